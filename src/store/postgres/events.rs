//! The event log: what a node has changed that others must hear of, as rows written with the change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::super::operations::{Operation, Result, StateChange};
use super::super::sql::{self, Row, Sql, SqlError, values};
use super::super::{Store, StoreError};
use super::Shared;
use super::place::{EventKey, Found, Place, StoredRow, Told};
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
    /// A fact was forwarded to the owner of the account.
    Forwarded(AccountId),
    /// Slots have other owners or heirs.
    Slots,
    /// A value that all nodes have in common is another one now.
    Shared,
    /// A node asks the owner of the account what it has in memory; with the number of the question.
    Ask(AccountId, Vec<u8>),
    /// The answer to a question: its number, and a text.
    Answer(Vec<u8>),
    /// The database has lost commits, of any kind: everything is to be loaded again. The log has no such rows; its reader adds it.
    Rewound,
}

impl StoredEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Pending(_) => "pending",
            Self::Fetches(..) => "fetches",
            Self::Rewatch(_) => "rewatch",
            Self::Yield(_) => "yield",
            Self::Forwarded(_) => "forwarded",
            Self::Slots => "slots",
            Self::Shared => "shared",
            Self::Ask(..) => "ask",
            Self::Answer(_) => "answer",
            Self::Rewound => "rewound",
        }
    }

    /// Reports if the node that has written it is to hear of it, too.
    fn is_for_all(&self) -> bool {
        matches!(self, Self::Pending(_) | Self::Forwarded(_))
    }

    fn data(&self) -> Vec<u8> {
        let names = |account: &AccountId| {
            [account.user.as_bytes(), &[BETWEEN], account.upstream.as_bytes()].concat()
        };
        match self {
            Self::Account(account)
            | Self::Rewatch(account)
            | Self::Yield(account)
            | Self::Forwarded(account) => names(account),
            Self::Pending(bytes) | Self::Answer(bytes) => bytes.clone(),
            Self::Fetches(account, bytes) | Self::Ask(account, bytes) => {
                [names(account), vec![BETWEEN], bytes.clone()].concat()
            }
            Self::Slots | Self::Shared | Self::Rewound => Vec::new(),
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
            "forwarded" => Some(Self::Forwarded(account()?)),
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
        let row = self.sql.one(
            "INSERT INTO events (node, kind, data) VALUES (?1, ?2, ?3)
             RETURNING id, CAST(extract(epoch FROM at) * 1000000 AS BIGINT)",
            values![node.id, event.kind(), event.data()],
            |row| Ok(EventKey { id: row.get(0)?, at: row.get(1)? }),
        )?;
        *node.told = Some(row);
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

    /// The new events of other nodes, and those of this one that are for all, or whose commit was not answered. If commits are
    /// lost, all that is in the log counts as new, and [`StoredEvent::Rewound`] comes first.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is lost then.
    pub async fn read(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        self.news.mark_unchanged();
        let (shared, place) = (Arc::clone(&self.shared), self.place.clone());
        // Before the rows are read: it is among them.
        let told = shared.told.last();
        let own = shared.node;
        let read = move |state: &mut Operation<'_>| Ok(read_on(state.sql, own, place, told)?);
        let (place, news) = shared.reader.read(read).await?;
        let lag = place.lag();
        self.place = Some(place);
        self.unread.extend(news);
        if self.pruned.elapsed() > PRUNE {
            self.pruned = Instant::now();
            // Another node may be at it.
            if let Err(error) = shared.reader.read(prune).await {
                tracing::debug!("old events stay in the database for now: {error}");
            }
        }
        if let Some(lag) = lag {
            shared.own.read_log(lag);
        }
        let doubts = shared.doubts.count();
        if doubts != self.cleared {
            let unclear = shared.reader.read(move |state| Ok(recent(state.sql, own)?)).await?;
            self.unread.extend(unclear);
            self.cleared = doubts;
        }
        Ok(std::mem::take(&mut self.unread))
    }
}

/// Reads on from a place, or begins. Returns the next place, and the news.
fn read_on(
    sql: Sql<'_>,
    node: i64,
    place: Option<Place>,
    told: Option<Told>,
) -> sql::Result<(Place, Vec<StoredEvent>)> {
    let now = Instant::now();
    let found = rows_since(sql, node, place.as_ref().map_or(0, Place::since))?;
    match place {
        None => Ok((Place::after(&found, told, now), Vec::new())),
        Some(place) if place.is_rewound(&found, told, now) => {
            let whole = rows_since(sql, node, 0)?;
            let place = Place::after(&whole, told, now);
            let rest = whole.rows.into_iter().filter_map(|row| row.event);
            Ok((place, [StoredEvent::Rewound].into_iter().chain(rest).collect()))
        }
        Some(mut place) => {
            let news = place.advance(found, now);
            Ok((place, news))
        }
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

/// The rows of transactions from `since` on.
fn rows_since(sql: Sql<'_>, node: i64, since: i64) -> sql::Result<Found> {
    // Both in one statement, which sees one state of the database.
    let mut found = Found { oldest: 0, time: 0, rows: Vec::new() };
    sql.each(
        "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT),
             CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT),
             e.id, CAST(extract(epoch FROM e.at) * 1000000 AS BIGINT),
             CAST(CAST(e.xid AS TEXT) AS BIGINT), e.node, e.kind, e.data
         FROM (SELECT 1) one LEFT JOIN events e
             ON e.xid >= CAST(CAST(?1 AS TEXT) AS xid8)
         ORDER BY e.id",
        values![since.to_string()],
        |row| {
            (found.oldest, found.time) = (row.get(0)?, row.get(1)?);
            if row.get::<Option<i64>>(2)?.is_some() {
                found.rows.push(row_in(row, node)?);
            }
            Ok(())
        },
    )?;
    Ok(found)
}

fn row_in(row: &Row<'_>, node: i64) -> sql::Result<StoredRow> {
    let (kind, data): (String, Vec<u8>) = (row.get(6)?, row.get(7)?);
    let event = StoredEvent::parse(&kind, &data);
    let is_this_nodes = row.get::<i64>(5)? == node;
    Ok::<_, SqlError>(StoredRow {
        key: EventKey { id: row.get(2)?, at: row.get(3)? },
        transaction: row.get(4)?,
        is_own: is_this_nodes && event != Some(StoredEvent::Slots),
        event: event.filter(|event| !is_this_nodes || event.is_for_all()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_written() {
        let account = AccountId::new("alice", "imap.example.org:993");
        for event in [
            StoredEvent::Account(account.clone()),
            StoredEvent::Pending(vec![0, 1, 0, 2]),
            StoredEvent::Fetches(account.clone(), vec![0, 1, 0, 2]),
            StoredEvent::Rewatch(account.clone()),
            StoredEvent::Yield(account.clone()),
            StoredEvent::Forwarded(account.clone()),
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
