//! What is known of each watch: the last proof of life, what is wrong, what comes next. For people who look, and for the
//! proxy, which may ask a watch to give way.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::account::AccountId;
use crate::secret::DeviceToken;
use crate::store::MAX_TOKENS;
use crate::telemetry::{Event, Telemetry, Watch};

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
        /// What helps.
        cure: &'static str,
    },
}

impl WatchState {
    /// What they are called where they are counted, in the order of [`Board::count_states`].
    pub const NAMES: [&'static str; 4] = ["connecting", "watching", "interrupted", "awaiting_login"];

    fn told(&self) -> Watch<'_> {
        match self {
            Self::Connecting => Watch::Connecting,
            Self::Watching => Watch::Watching,
            Self::Interrupted { reason, next } => {
                Watch::Interrupted { reason, next: next.saturating_duration_since(Instant::now()) }
            }
            Self::AwaitingLogin { reason, cure } => Watch::AwaitingLogin { reason, cure },
        }
    }
}

/// What is known of a watch.
#[derive(Debug, Clone)]
pub struct WatchEntry {
    /// What it is doing.
    pub state: WatchState,
    /// Since when.
    pub since: Instant,
    /// It has a session at the server.
    has_session: bool,
    /// When the server last said something to it.
    pub last_proof: Option<Instant>,
    /// The longest time between two proofs of life of a watch that is well: news may be that late if the connection has died
    /// in silence just after a proof.
    pub blindness: Duration,
    /// Asks the watch to give way to the person's client.
    give_way: Arc<Notify>,
    /// When the account's devices last fetched through deltapush.
    fetched: Vec<(DeviceToken, Instant)>,
}

/// All watches. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: DashMap<AccountId, WatchEntry>,
    telemetry: Telemetry,
}

impl Board {
    /// A board whose changes are told to `telemetry`.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        Self(Arc::new(Shared { entries: DashMap::default(), telemetry }))
    }

    /// Where events are told.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// A watch of `account` begins, of which news may be `blindness` late at worst. Returns what wakes it when it shall give
    /// way.
    pub(crate) fn begin(&self, account: &AccountId, blindness: Duration) -> Arc<Notify> {
        let give_way = Arc::new(Notify::new());
        let entry = WatchEntry {
            state: WatchState::Connecting,
            since: Instant::now(),
            has_session: false,
            last_proof: None,
            blindness,
            give_way: Arc::clone(&give_way),
            fetched: Vec::new(),
        };
        self.0.entries.insert(account.clone(), entry);
        self.0.telemetry.tell(&Event::Watch { account, state: Watch::Connecting });
        give_way
    }

    pub(crate) fn set(&self, account: &AccountId, state: WatchState) {
        self.0.telemetry.tell(&Event::Watch { account, state: state.told() });
        if let Some(mut entry) = self.0.entries.get_mut(account) {
            entry.has_session &= state == WatchState::Watching;
            entry.state = state;
            entry.since = Instant::now();
        }
    }

    /// The server has just said something.
    pub(crate) fn proof(&self, account: &AccountId) {
        if let Some(mut entry) = self.0.entries.get_mut(account) {
            entry.last_proof = Some(Instant::now());
            entry.has_session = true;
        }
    }

    pub(crate) fn remove(&self, account: &AccountId) {
        if self.0.entries.remove(account).is_some() {
            self.0.telemetry.tell(&Event::Watch { account, state: Watch::Ended });
        }
    }

    /// What is known of the watch of `account`.
    #[must_use]
    pub fn get(&self, account: &AccountId) -> Option<WatchEntry> {
        self.0.entries.get(account).map(|entry| entry.clone())
    }

    /// Whether the account is watched now.
    #[must_use]
    pub fn is_watching(&self, account: &AccountId) -> bool {
        self.0.entries.get(account).is_some_and(|entry| entry.state == WatchState::Watching)
    }

    /// How many watches do what, in the order of [`WatchState::NAMES`].
    #[must_use]
    pub fn count_states(&self) -> [usize; 4] {
        let mut counts = [0_usize; 4];
        let [connecting, watching, interrupted, awaiting] = &mut counts;
        for entry in &self.0.entries {
            let count = match entry.state {
                WatchState::Connecting => &mut *connecting,
                WatchState::Watching => &mut *watching,
                WatchState::Interrupted { .. } => &mut *interrupted,
                WatchState::AwaitingLogin { .. } => &mut *awaiting,
            };
            *count = count.saturating_add(1);
        }
        counts
    }

    /// The device with this token fetches messages of the account.
    pub fn device_fetches(&self, account: &AccountId, token: &DeviceToken) {
        let Some(mut entry) = self.0.entries.get_mut(account) else { return };
        entry.fetched.retain(|(known, _)| known != token);
        // An account has no more tokens than that; those of devices that are gone make room.
        if entry.fetched.len() >= MAX_TOKENS {
            entry.fetched.remove(0);
        }
        entry.fetched.push((token.clone(), Instant::now()));
    }

    /// The tokens of the devices that have fetched since then.
    #[must_use]
    pub fn fetched_since(&self, account: &AccountId, since: Instant) -> Vec<DeviceToken> {
        let Some(entry) = self.0.entries.get(account) else { return Vec::new() };
        entry.fetched.iter().filter(|(_, at)| *at >= since).map(|(token, _)| token.clone()).collect()
    }

    /// The server has no session left for the person's own client: the watch leaves it its own, and comes back in minutes.
    /// Returns whether there was a session to leave.
    #[must_use]
    pub fn give_way(&self, account: &AccountId) -> bool {
        let Some(entry) = self.0.entries.get(account) else { return false };
        if entry.has_session {
            // Only whoever waits now: the next session shall not find an old wish.
            entry.give_way.notify_waiters();
        }
        entry.has_session
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_device_that_fetched_after_the_news_is_known() {
        let board = Board::default();
        let account = AccountId::new("alice", "imap.example.org:993");
        let token = |name: &str| DeviceToken::new(name.as_bytes()).unwrap();
        board.begin(&account, Duration::ZERO);
        board.device_fetches(&account, &token("early"));
        tokio::time::advance(Duration::from_secs(1)).await;
        let news = Instant::now();
        board.device_fetches(&account, &token("late"));
        assert_eq!(board.fetched_since(&account, news), [token("late")]);
        (0..100).for_each(|number| board.device_fetches(&account, &token(&format!("t{number}"))));
        assert_eq!(board.fetched_since(&account, news).len(), MAX_TOKENS);
    }

    #[tokio::test]
    async fn only_a_watch_with_a_session_gives_way() {
        let board = Board::default();
        let account = AccountId::new("alice", "imap.example.org:993");
        assert!(!board.give_way(&account));
        let asked = board.begin(&account, Duration::ZERO);
        assert!(!board.give_way(&account), "it has no session yet");
        board.proof(&account);
        let waiting = asked.notified();
        assert!(board.give_way(&account));
        waiting.await;
        board.set(&account, WatchState::AwaitingLogin { reason: String::new(), cure: "" });
        assert!(!board.give_way(&account), "it has none any more");
    }
}
