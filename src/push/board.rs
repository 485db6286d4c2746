//! What is known of each watch: the last proof of life, what is wrong, what comes next. For people who look, and for the
//! proxy, which may ask a watch to give way.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::account::AccountId;

/// What a watch is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchState {
    /// It waits for its turn at the server, or is logging in.
    Connecting,
    /// The mailbox is watched.
    Watching,
    /// It was interrupted, for a reason in words, and tries again at a time.
    Interrupted {
        /// What happened.
        reason: String,
        /// When it is tried again.
        next: Instant,
    },
    /// It ended, for a reason in words, until a client logs in.
    AwaitingLogin {
        /// What happened.
        reason: String,
    },
}

/// What is known of a watch.
#[derive(Debug, Clone)]
pub struct WatchEntry {
    /// What it is doing.
    pub state: WatchState,
    /// When the server last said something to it.
    pub last_proof: Option<Instant>,
    /// The longest time between two proofs of life of a watch that is well: news may be that late if the connection has died
    /// in silence just after a proof.
    pub blindness: Duration,
    /// Asks the watch to give way to the person's client.
    give_way: Arc<Notify>,
}

/// All watches. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Board {
    entries: Arc<DashMap<AccountId, WatchEntry>>,
}

impl Board {
    /// A watch of `account` begins, of which news may be `blindness` late at worst. Returns what wakes it when it shall give
    /// way.
    pub(crate) fn begin(&self, account: &AccountId, blindness: Duration) -> Arc<Notify> {
        let give_way = Arc::new(Notify::new());
        let entry =
            WatchEntry { state: WatchState::Connecting, last_proof: None, blindness, give_way: Arc::clone(&give_way) };
        self.entries.insert(account.clone(), entry);
        give_way
    }

    pub(crate) fn set(&self, account: &AccountId, state: WatchState) {
        if let Some(mut entry) = self.entries.get_mut(account) {
            entry.state = state;
        }
    }

    /// The server has just said something.
    pub(crate) fn proof(&self, account: &AccountId) {
        if let Some(mut entry) = self.entries.get_mut(account) {
            entry.last_proof = Some(Instant::now());
        }
    }

    pub(crate) fn remove(&self, account: &AccountId) {
        self.entries.remove(account);
    }

    /// What is known of the watch of `account`.
    #[must_use]
    pub fn get(&self, account: &AccountId) -> Option<WatchEntry> {
        self.entries.get(account).map(|entry| entry.clone())
    }

    /// Whether the account is watched now.
    #[must_use]
    pub fn is_watching(&self, account: &AccountId) -> bool {
        self.entries.get(account).is_some_and(|entry| entry.state == WatchState::Watching)
    }

    /// The server has no session left for the person's own client: the watch leaves it its own, and comes back in minutes.
    /// Returns whether there was a session to leave.
    #[must_use]
    pub fn give_way(&self, account: &AccountId) -> bool {
        let Some(entry) = self.entries.get(account) else { return false };
        let has_session = entry.last_proof.is_some() && !matches!(entry.state, WatchState::AwaitingLogin { .. });
        if has_session {
            entry.give_way.notify_one();
        }
        has_session
    }
}
