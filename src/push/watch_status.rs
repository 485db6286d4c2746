//! Status of each watch: last activity, current trouble, next attempt. For people, and for the proxy, which may ask a
//! watch to yield its session.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::account::AccountId;
use crate::secret::DeviceToken;
use crate::store::MAX_TOKENS;
use crate::telemetry::{Telemetry, TelemetryEvent, WatchEvent};

/// What helps an account without a session.
const AWAITING_DEVICE: &str =
    "deltapush wakes its devices; push goes on when one of them has logged in";

/// How long the log names no other oddity of an account's server.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(3600);

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
    /// A client of the account waits for mail itself, and what it hears wakes the others.
    WithClient,
    /// No session is left to watch in, for a reason in words: one of the account's devices has to come.
    AwaitingDevice {
        /// What happened.
        reason: String,
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
    pub const NAMES: [&'static str; 4] =
        ["connecting", "watching", "interrupted", "awaiting_login"];

    fn told(&self) -> WatchEvent<'_> {
        match self {
            Self::Connecting => WatchEvent::Connecting,
            Self::Watching | Self::WithClient => WatchEvent::Watching,
            Self::AwaitingDevice { reason } => {
                WatchEvent::AwaitingLogin { reason, cure: AWAITING_DEVICE }
            }
            Self::Interrupted { reason, next } => WatchEvent::Interrupted {
                reason,
                next: next.saturating_duration_since(Instant::now()),
            },
            Self::AwaitingLogin { reason, cure } => WatchEvent::AwaitingLogin { reason, cure },
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
    /// The mailboxes that cannot be opened.
    pub left_out: Vec<SkippedMailbox>,
    /// The server announces what only UW imapd has.
    pub is_uw_imapd: bool,
    /// When the log last named an oddity of the server's.
    complained: Option<Instant>,
}

/// A mailbox that is not watched because it cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedMailbox {
    /// Its name.
    pub mailbox: String,
    /// The server's words.
    pub reason: String,
    /// When it could not be opened for the first time.
    pub since: Instant,
}

/// All watches. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<BoardShared>);

#[derive(Debug, Default)]
struct BoardShared {
    entries: DashMap<AccountId, WatchEntry>,
    telemetry: Telemetry,
}

impl Board {
    /// A board whose changes are told to `telemetry`.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        Self(Arc::new(BoardShared { entries: DashMap::default(), telemetry }))
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
            left_out: Vec::new(),
            is_uw_imapd: false,
            complained: None,
        };
        let before = self.0.entries.insert(account.clone(), entry);
        if let (Some(before), Some(mut entry)) = (before, self.0.entries.get_mut(account)) {
            entry.left_out = before.left_out;
            entry.complained = before.complained;
        }
        self.0.telemetry.tell(&TelemetryEvent::Watch { account, state: WatchEvent::Connecting });
        give_way
    }

    /// What wakes the watch of `account` when it shall give way, if there is one.
    pub(crate) fn give_way_of(&self, account: &AccountId) -> Option<Arc<Notify>> {
        self.0.entries.get(account).map(|entry| Arc::clone(&entry.give_way))
    }

    /// The watch of `account` has another session: news may be `blindness` late at worst.
    pub(crate) fn found_within(&self, account: &AccountId, blindness: Duration) {
        if let Some(mut entry) = self.0.entries.get_mut(account) {
            entry.blindness = blindness;
        }
    }

    pub(crate) fn set(&self, account: &AccountId, state: WatchState) {
        self.0.telemetry.tell(&TelemetryEvent::Watch { account, state: state.told() });
        if let Some(mut entry) = self.0.entries.get_mut(account) {
            entry.has_session &= state == WatchState::Watching;
            entry.state = state;
            entry.since = Instant::now();
        }
    }

    /// The account's mailboxes are these: no other is left out.
    pub(crate) fn watches(&self, account: &AccountId, mailboxes: &[String]) {
        if let Some(mut entry) = self.0.entries.get_mut(account) {
            entry.left_out.retain(|left_out| mailboxes.contains(&left_out.mailbox));
        }
    }

    /// A mailbox cannot be opened. Returns since when, if that is known already.
    pub(crate) fn left_out(
        &self,
        account: &AccountId,
        mailbox: &str,
        words: &str,
    ) -> Option<Instant> {
        let mut entry = self.0.entries.get_mut(account)?;
        if let Some(known) = entry.left_out.iter_mut().find(|known| known.mailbox == mailbox) {
            words.clone_into(&mut known.reason);
            return Some(known.since);
        }
        let (mailbox, reason) = (mailbox.to_owned(), words.to_owned());
        entry.left_out.push(SkippedMailbox { mailbox, reason, since: Instant::now() });
        None
    }

    pub(crate) fn is_left_out(&self, account: &AccountId, mailbox: &str) -> bool {
        let entry = self.0.entries.get(account);
        entry.is_some_and(|entry| entry.left_out.iter().any(|left_out| left_out.mailbox == mailbox))
    }

    /// A mailbox that could not be opened is open, or is not to be watched any more.
    pub(crate) fn no_longer_left_out(&self, account: &AccountId, mailbox: &str) {
        if let Some(mut entry) = self.0.entries.get_mut(account) {
            entry.left_out.retain(|left_out| left_out.mailbox != mailbox);
        }
    }

    pub(crate) fn is_uw_imapd(&self, account: &AccountId, is_uw_imapd: bool) {
        if let Some(mut entry) = self.0.entries.get_mut(account) {
            entry.is_uw_imapd = is_uw_imapd;
        }
    }

    /// Whether the log may name an oddity of the account's server: once an hour.
    pub(crate) fn may_complain(&self, account: &AccountId) -> bool {
        let Some(mut entry) = self.0.entries.get_mut(account) else { return false };
        let is_due = entry.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE);
        if is_due {
            entry.complained = Some(Instant::now());
        }
        is_due
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
            self.0.telemetry.tell(&TelemetryEvent::Watch { account, state: WatchEvent::Ended });
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
        self.0.entries.get(account).is_some_and(|entry| {
            matches!(entry.state, WatchState::Watching | WatchState::WithClient)
        })
    }

    /// How many watches do what, in the order of [`WatchState::NAMES`].
    #[must_use]
    pub fn count_states(&self) -> [usize; 4] {
        let mut counts = [0_usize; 4];
        let [connecting, watching, interrupted, awaiting] = &mut counts;
        for entry in &self.0.entries {
            let count = match entry.state {
                WatchState::Connecting => &mut *connecting,
                WatchState::Watching | WatchState::WithClient => &mut *watching,
                WatchState::Interrupted { .. } => &mut *interrupted,
                WatchState::AwaitingLogin { .. } | WatchState::AwaitingDevice { .. } => {
                    &mut *awaiting
                }
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
        entry
            .fetched
            .iter()
            .filter(|(_, at)| *at >= since)
            .map(|(token, _)| token.clone())
            .collect()
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
    async fn device_that_fetched_after_the_news_is_known() {
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
