//! The event log: what a node has changed that others must hear of, as rows written with the change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::super::operations::{Operation, Result, StateChange};
use super::super::sql::values;
use super::super::{Store, StoreError};
use super::Shared;
use super::doubts::OpenDoubts;
use super::log_rows::{prune, read_on};
use super::place::{EventKey, Place};
use super::premises::{self, Premises, changed};
use crate::account::AccountId;

/// The log is read so often without any notification, which may have been lost.
const LOOK: Duration = Duration::from_secs(5);
/// The same while the end of a commit is waited for that was not answered.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
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
    pub(super) fn is_for_all(&self) -> bool {
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
    pub(super) fn parse(kind: &str, data: &[u8]) -> Option<Self> {
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
        let Premises { key_check, known } = node.premises;
        let (row, outdated) = self.sql.one(
            concat!(
                "INSERT INTO events (node, kind, data) VALUES (?1, ?2, ?3)
                 RETURNING id, CAST(extract(epoch FROM at) * 1000000 AS BIGINT), (",
                changed!("?4", "?5"),
                ")"
            ),
            values![node.id, event.kind(), event.data(), key_check, known],
            |row| Ok((EventKey { id: row.get(0)?, at: row.get(1)? }, row.get(2)?)),
        )?;
        premises::outdated(outdated)?;
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
    /// The last row that was removed.
    pruned_to: i64,
    /// Commits of unknown outcome.
    doubts: OpenDoubts,
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
            pruned_to: 0,
            doubts: OpenDoubts::new(Instant::now()),
            unread: Vec::new(),
        })
    }
}

impl EventLog {
    /// Returns when there may be something new: when the database says so, or after a few seconds.
    pub async fn changed(&mut self) {
        // The sender ends with the process.
        let look = if self.doubts.are_waited_for() { LOOK_AGAIN } else { LOOK };
        let _ = timeout(look, self.news.changed()).await;
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
        let (place, news) = shared.reader.look(read).await?;
        let lag = place.lag();
        self.place = Some(place);
        self.unread.extend(news);
        if let Some(lag) = lag {
            shared.own.read_log(lag);
        }
        self.unread.extend(self.doubts.clear_up(&shared).await?);
        if self.pruned.elapsed() > PRUNE {
            self.prune().await;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Removes a portion of the old rows. Another node may be at it.
    pub(super) async fn prune(&mut self) {
        let place = self.pruned_to;
        match self.shared.reader.read(move |state| Ok(prune(state.sql, place)?)).await {
            // There may be more.
            Ok(Some(last)) => self.pruned_to = last,
            Ok(None) => self.pruned = Instant::now(),
            Err(error) => {
                self.pruned = Instant::now();
                tracing::debug!("old events stay in the database for now: {error}");
            }
        }
    }
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
