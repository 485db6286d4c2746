//! The event log: what a node has changed that others must hear of, as rows written with the change.
//!
//! Transactions are committed in another order than rows get their numbers. So the log is read from the oldest transaction
//! that was under way at the last read, and rows that were seen are skipped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::super::operations::{Operation, Result, StateChange};
use super::super::sql::{self, Row, Sql, SqlError, values};
use super::super::{Store, StoreError};
use super::Shared;
use crate::account::AccountId;

/// The log is read so often without any notification, which may have been lost.
const LOOK: Duration = Duration::from_secs(5);
/// Interval at which a node removes old rows.
const PRUNE: Duration = Duration::from_secs(120);
/// The separator of a login name and its mail server, in `data`. Neither contains it: PostgreSQL stores no NUL in a text.
const BETWEEN: u8 = 0;

/// Something that other nodes must hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredEvent {
    /// Tokens, credentials, mailboxes idled in, or the watch of the account have changed, or it is gone.
    Account(AccountId),
    /// The token with this hash may have something to announce, or another poster than before: all nodes look, also the one that
    /// tells.
    Pending(Vec<u8>),
    /// A device of the account fetches messages by itself: its token's hash, and when.
    Fetches(AccountId, Vec<u8>),
    /// The watch of the account is to begin again.
    Rewatch(AccountId),
    /// The mail server has no session left for the account's client: the watch leaves it its own.
    Yield(AccountId),
    /// Slots have other owners or heirs.
    Slots,
    /// A value that all nodes have in common is another one now.
    Shared,
    /// A node asks the owner of the account what it has in memory; with the number of the question.
    Ask(AccountId, Vec<u8>),
    /// The answer to a question: its number, and a text.
    Answer(Vec<u8>),
}

impl StoredEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Pending(_) => "pending",
            Self::Fetches(..) => "fetches",
            Self::Rewatch(_) => "rewatch",
            Self::Yield(_) => "yield",
            Self::Slots => "slots",
            Self::Shared => "shared",
            Self::Ask(..) => "ask",
            Self::Answer(_) => "answer",
        }
    }

    fn data(&self) -> Vec<u8> {
        let names = |account: &AccountId| {
            [account.user.as_bytes(), &[BETWEEN], account.upstream.as_bytes()].concat()
        };
        match self {
            Self::Account(account) | Self::Rewatch(account) | Self::Yield(account) => {
                names(account)
            }
            Self::Pending(bytes) | Self::Answer(bytes) => bytes.clone(),
            Self::Fetches(account, bytes) | Self::Ask(account, bytes) => {
                [names(account), vec![BETWEEN], bytes.clone()].concat()
            }
            Self::Slots | Self::Shared => Vec::new(),
        }
    }

    /// `None` for a kind that a newer version has.
    fn parse(kind: &str, data: &[u8]) -> Option<Self> {
        let mut parts = data.splitn(3, |byte| *byte == BETWEEN);
        let mut text = || std::str::from_utf8(parts.next()?).ok();
        let mut account = || Some(AccountId::new(text()?, text()?));
        match kind {
            "account" => Some(Self::Account(account()?)),
            "pending" => Some(Self::Pending(data.to_vec())),
            "fetches" => Some(Self::Fetches(account()?, parts.next()?.to_vec())),
            "ask" => Some(Self::Ask(account()?, parts.next()?.to_vec())),
            "answer" => Some(Self::Answer(data.to_vec())),
            "rewatch" => Some(Self::Rewatch(account()?)),
            "yield" => Some(Self::Yield(account()?)),
            "slots" => Some(Self::Slots),
            "shared" => Some(Self::Shared),
            _ => None,
        }
    }
}

/// Tells other nodes of something that is not in the state. Does nothing without companions.
#[must_use]
pub fn tell(event: StoredEvent) -> impl StateChange<()> {
    move |state: &mut Operation<'_>| state.tell(event.clone())
}

impl Operation<'_> {
    /// Tells other nodes of a change, together with it.
    pub(in crate::store) fn tell(&mut self, event: StoredEvent) -> Result<()> {
        let Some(node) = &mut self.node else { return Ok(()) };
        *node.tells = true;
        self.sql.execute(
            "INSERT INTO events (node, kind, data) VALUES (?1, ?2, ?3)",
            values![node.id, event.kind(), event.data()],
        )?;
        Ok(())
    }
}

/// A reader of the log, from the moment on at which it was made.
pub struct EventLog {
    shared: Arc<Shared>,
    news: watch::Receiver<u64>,
    /// The place in the log; `None` before the first read.
    place: Option<Place>,
    pruned: Instant,
    /// Commits of unknown outcome that were cleared up.
    cleared: u64,
    /// Events that were read, and not passed on because of a failure afterwards.
    unread: Vec<StoredEvent>,
}

/// A place in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    /// All older transactions have ended.
    oldest: i64,
    /// The rows of later ones that were seen.
    seen: HashSet<i64>,
}

struct StoredRow {
    id: i64,
    transaction: i64,
    node: i64,
    event: Option<StoredEvent>,
    /// Time since it was written, by the database's clock.
    age: Duration,
}

impl StoredRow {
    /// The event, if this node is to hear of it.
    fn heard_by(self, node: i64) -> Option<StoredEvent> {
        let is_for_all = matches!(self.event, Some(StoredEvent::Pending(_)));
        self.event.filter(|_| is_for_all || self.node != node)
    }
}

impl Store {
    /// A reader of the event log. Its first read returns nothing: what is loaded after it has all before.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`] if the state is not shared.
    pub fn event_log(&self) -> Result<EventLog, StoreError> {
        self.shared()?;
        let shared = self.shared.clone().ok_or(StoreError::NotOwner)?;
        let news = shared.news.clone();
        Ok(EventLog {
            shared,
            news,
            place: None,
            pruned: Instant::now(),
            cleared: 0,
            unread: Vec::new(),
        })
    }
}

impl EventLog {
    /// Returns when there may be something new: when the database says so, or after a few seconds.
    pub async fn changed(&mut self) {
        // The sender ends with the process.
        let _ = timeout(LOOK, self.news.changed()).await;
    }

    /// The new events of other nodes, and those of this one that are for all, or whose commit was not answered. After the database was
    /// replaced by a standby that lacks the last ones, all that are there count as new.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is lost then.
    pub async fn read(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        self.news.mark_unchanged();
        let since = self.place.as_ref().map_or(0, |place| place.oldest);
        let reader = &self.shared.reader;
        let (oldest, rows) = reader.read(move |state| Ok(rows_since(state.sql, since)?)).await?;
        if self.pruned.elapsed() > PRUNE {
            self.pruned = Instant::now();
            // Another node may be at it.
            if let Err(error) = reader.read(prune).await {
                tracing::debug!("old events stay in the database for now: {error}");
            }
        }
        let own = self.shared.node;
        let (place, news) = advance(self.place.take(), oldest, rows);
        self.place = Some(place);
        if let Some(lag) = news.iter().map(|row| row.age).max() {
            self.shared.own.read_log(lag);
        }
        let news = news.into_iter().filter_map(|row| row.heard_by(own));
        self.unread.extend(news);
        let doubts = self.shared.doubts.count();
        if doubts != self.cleared {
            let unclear = reader.read(move |state| Ok(recent(state.sql, own)?)).await?;
            self.unread.extend(unclear);
            self.cleared = doubts;
        }
        Ok(std::mem::take(&mut self.unread))
    }
}

/// The latest writes of this node, as if another had: its changes, and the tokens with something to announce.
fn recent(sql: Sql<'_>, node: i64) -> sql::Result<Vec<StoredEvent>> {
    let mut found = Vec::new();
    sql.each(
        "SELECT DISTINCT kind, data FROM events
         WHERE node = ?1 AND at > now() - INTERVAL '1 minute' AND kind <> 'pending'
         UNION ALL SELECT DISTINCT 'pending', hash FROM tokens WHERE pending IS NOT NULL",
        values![node],
        |row| {
            let (kind, data): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
            found.extend(StoredEvent::parse(&kind, &data));
            Ok(())
        },
    )?;
    Ok(found)
}

/// Removes old rows.
fn prune(state: &mut Operation<'_>) -> Result<()> {
    let old = "DELETE FROM events WHERE at < now() - INTERVAL '10 minutes'";
    state.sql.execute(old, values![])?;
    Ok(())
}

/// The rows of transactions from `since` on, or all if these lie ahead, and the oldest transaction that is under way.
fn rows_since(sql: Sql<'_>, since: i64) -> sql::Result<(i64, Vec<StoredRow>)> {
    // Both in one statement, which sees one state of the database.
    let mut oldest = 0;
    let mut rows = Vec::new();
    sql.each(
        "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT),
             e.id, CAST(CAST(e.xid AS TEXT) AS BIGINT), e.node, e.kind, e.data,
             CAST(extract(epoch FROM clock_timestamp() - e.at) * 1000000 AS BIGINT)
         FROM (SELECT 1) one LEFT JOIN events e
             ON e.xid >= CAST(CAST(?1 AS TEXT) AS xid8)
         ORDER BY e.id",
        values![since.to_string()],
        |row| {
            oldest = row.get(0)?;
            if row.get::<Option<i64>>(1)?.is_some() {
                rows.push(row_in(row)?);
            }
            Ok(())
        },
    )?;
    if since > oldest {
        return rows_since(sql, 0);
    }
    Ok((oldest, rows))
}

fn row_in(row: &Row<'_>) -> sql::Result<StoredRow> {
    let (kind, data): (String, Vec<u8>) = (row.get(4)?, row.get(5)?);
    let event = StoredEvent::parse(&kind, &data);
    Ok::<_, SqlError>(StoredRow {
        id: row.get(1)?,
        transaction: row.get(2)?,
        node: row.get(3)?,
        event,
        age: Duration::from_micros(u64::try_from(row.get::<i64>(6)?).unwrap_or_default()),
    })
}

/// The next place, and the rows that are new since the last one.
fn advance(last: Option<Place>, oldest: i64, rows: Vec<StoredRow>) -> (Place, Vec<StoredRow>) {
    let is_first = last.is_none();
    // Numbers of a standby that has become the primary may begin again.
    let last = last.filter(|place| place.oldest <= oldest).unwrap_or_default();
    let seen = rows.iter().filter(|row| row.transaction >= oldest).map(|row| row.id).collect();
    let news = rows.into_iter().filter(|row| !is_first && !last.seen.contains(&row.id)).collect();
    (Place { oldest, seen }, news)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, transaction: i64) -> StoredRow {
        StoredRow { id, transaction, node: 1, event: None, age: Duration::ZERO }
    }

    fn read(place: &mut Option<Place>, oldest: i64, rows: &[(i64, i64)]) -> Vec<i64> {
        let rows = rows.iter().map(|(id, transaction)| row(*id, *transaction)).collect();
        let (next, news) = advance(place.take(), oldest, rows);
        *place = Some(next);
        news.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn each_row_is_news_once_whenever_it_is_committed() {
        let mut place = None;
        assert_eq!(read(&mut place, 10, &[(1, 9), (2, 11)]), [0; 0], "the first read is the start");
        assert_eq!(read(&mut place, 10, &[(2, 11), (4, 12)]), [4]);
        assert_eq!(read(&mut place, 10, &[(2, 11), (3, 10), (4, 12)]), [3], "committed late");
        assert_eq!(read(&mut place, 13, &[(2, 11), (3, 10), (4, 12)]), [0; 0]);
        assert_eq!(read(&mut place, 13, &[(5, 13)]), [5]);
        assert_eq!(
            read(&mut place, 11, &[(4, 10), (5, 11)]),
            [4, 5],
            "another server begins earlier"
        );
    }

    #[test]
    fn events_are_read_as_written() {
        let account = AccountId::new("alice", "imap.example.org:993");
        for event in [
            StoredEvent::Account(account.clone()),
            StoredEvent::Pending(vec![0, 1, 0, 2]),
            StoredEvent::Fetches(account.clone(), vec![0, 1, 0, 2]),
            StoredEvent::Rewatch(account.clone()),
            StoredEvent::Yield(account.clone()),
            StoredEvent::Ask(account, vec![0, 1, 0, 2]),
            StoredEvent::Answer(vec![0, 1, 0, 2]),
            StoredEvent::Slots,
            StoredEvent::Shared,
        ] {
            assert_eq!(StoredEvent::parse(event.kind(), &event.data()), Some(event));
        }
        assert_eq!(StoredEvent::parse("of a later version", b""), None);
        assert_eq!(StoredEvent::parse("account", b"alice"), None);
    }
}
