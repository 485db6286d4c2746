//! Commits whose outcome is unknown, because the connection was lost before the answer: their changes may be in the database,
//! and not in this node's memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::StoreError;
use super::super::sql::{self, Sql, values};
use super::Shared;
use super::events::StoredEvent;

/// The server ends the transaction of a lost connection within this time: the time limits that it was given are shorter. Only others
/// take longer.
const LONGEST: Duration = Duration::from_secs(12);

/// The number of such commits.
pub(super) struct Doubts {
    count: AtomicU64,
    /// Wakes the reader of the event log, which clears them up.
    news: watch::Sender<u64>,
}

impl Doubts {
    pub(super) fn new(news: watch::Sender<u64>) -> Self {
        Self { count: AtomicU64::new(0), news }
    }

    /// A commit was not answered.
    pub(super) fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Their number up to now.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

/// The transactions that one look at the database finds, by their numbers.
#[derive(Debug, Clone, Copy)]
struct Transactions {
    /// All before this one have ended.
    oldest: i64,
    /// This look's own: it got its number after all that were under way then.
    newest: i64,
}

/// The commits that are not cleared up yet. The server may still be at one of them: it waits for its standby, and does not notice
/// that nobody waits for the answer.
#[derive(Debug)]
pub(super) struct OpenDoubts {
    cleared: u64,
    awaited: Option<Awaited>,
    /// The last time at which there were none.
    none_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Awaited {
    /// The number of commits.
    count: u64,
    /// They had all begun before this transaction.
    before: i64,
    since: Instant,
}

impl OpenDoubts {
    pub(super) fn new(now: Instant) -> Self {
        Self { cleared: 0, awaited: None, none_at: now }
    }

    /// Reads what they have changed, once they have ended, as if another node had.
    ///
    /// # Errors
    /// [`StoreError`]; they are not cleared up then.
    pub(super) async fn clear_up(
        &mut self,
        shared: &Shared,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let (count, now) = (shared.doubts.count(), Instant::now());
        if !self.are_there(count, now) {
            return Ok(Vec::new());
        }
        let found = shared.reader.read(|state| Ok(transactions(state.sql)?)).await?;
        if !self.have_ended(count, found, now) {
            return Ok(Vec::new());
        }
        let (own, age) = (shared.node, self.age(now));
        let changed = shared.reader.read(move |state| Ok(recent(state.sql, own, age)?)).await?;
        self.clear();
        Ok(changed)
    }

    /// Reports if there are any. `count` is [`Doubts::count`].
    fn are_there(&mut self, count: u64, now: Instant) -> bool {
        if count == self.cleared {
            self.none_at = now;
        }
        count != self.cleared
    }

    /// Reports if all of them have ended: their changes are visible now, or never. `count` was there before the look that found the
    /// transactions.
    fn have_ended(&mut self, count: u64, found: Transactions, now: Instant) -> bool {
        let new = Awaited { count, before: found.newest, since: now };
        let awaited = self.awaited.filter(|awaited| awaited.count == count).unwrap_or(new);
        self.awaited = Some(awaited);
        found.oldest >= awaited.before || now.duration_since(awaited.since) >= LONGEST
    }

    /// They are cleared up.
    fn clear(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            self.cleared = awaited.count;
        }
    }

    /// Reports if the end of some is waited for.
    pub(super) fn are_waited_for(&self) -> bool {
        self.awaited.is_some()
    }

    /// The time within which all of them began.
    fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.none_at)
    }
}

/// The transactions of all nodes.
fn transactions(sql: Sql<'_>) -> sql::Result<Transactions> {
    sql.one(
        // The end of a snapshot would not do: it is behind the last transaction that has ended, and later ones may be under way.
        "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT),
             CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)",
        values![],
        |row| Ok(Transactions { oldest: row.get(0)?, newest: row.get(1)? }),
    )
}

/// The writes of this node since `age` and some time before, as if another had made them: its changes, and the tokens with
/// something to announce of its own slots.
fn recent(sql: Sql<'_>, node: i64, age: Duration) -> sql::Result<Vec<StoredEvent>> {
    let mut found = Vec::new();
    // Older rows are not kept.
    let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX).min(600) + 60;
    sql.each(
        "SELECT DISTINCT kind, data FROM events
         WHERE node = ?1 AND kind <> 'pending'
             AND at > now() - CAST(?2 AS BIGINT) * INTERVAL '1 second'
         UNION ALL SELECT DISTINCT 'pending', t.hash FROM tokens t JOIN accounts a ON a.id = t.account
         WHERE t.pending IS NOT NULL AND a.slot IN (SELECT slot FROM slots WHERE owner = ?1)",
        values![node, age],
        |row| {
            let (kind, data): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
            found.extend(StoredEvent::parse(&kind, &data));
            Ok(())
        },
    )?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(oldest: i64, newest: i64) -> Transactions {
        Transactions { oldest, newest }
    }

    #[test]
    fn commit_counts_as_ended_when_all_transactions_of_its_time_have() {
        let now = Instant::now();
        let mut doubts = OpenDoubts::new(now);
        assert!(!doubts.are_there(0, now) && doubts.are_there(1, now));
        assert!(!doubts.have_ended(1, found(10, 15), now) && doubts.are_waited_for());
        assert!(!doubts.have_ended(1, found(14, 20), now));
        assert!(doubts.have_ended(1, found(15, 25), now));
        doubts.clear();
        assert!(!doubts.are_there(1, now) && !doubts.are_waited_for());
        assert!(!doubts.have_ended(2, found(20, 25), now));
        assert!(!doubts.have_ended(3, found(25, 30), now), "one more has come");
        assert!(doubts.have_ended(3, found(30, 30), now));
    }

    #[test]
    fn long_transactions_of_others_are_not_waited_for() {
        let now = Instant::now();
        let mut doubts = OpenDoubts::new(now);
        assert!(!doubts.have_ended(1, found(10, 15), now));
        let later = now + LONGEST;
        assert!(doubts.have_ended(1, found(10, 99), later));
        assert_eq!(doubts.age(later), LONGEST);
    }
}
