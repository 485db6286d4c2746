//! Recent history of each account: in memory, since the start, and bounded.
//!
//! An entry takes 40 bytes. An account has [`MAX_ENTRIES`] of them at most, with 2 KiB of words. Measured, with all that the map
//! needs: 1.3 KiB for an account that has had one message, 3.2 KiB for one that is full. Accounts without a device have none.

mod entry;
mod ring;
#[cfg(test)]
mod tests;

use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::{LoginResult, TelemetryEvent, WatchEvent};
use crate::account::AccountId;
use crate::secret::DeviceToken;
use entry::short;
pub use entry::{HistoryEntry, HistoryTime, WatchNote, What};
use ring::{HistoryRing, cut};
pub use ring::{LastPush, MAX_ENTRIES};

/// What rounding to milliseconds leaves out at most.
const ALMOST_A_MILLISECOND: Duration = Duration::from_nanos(999_999);

/// So many accounts have a history. Further ones get one as others go.
pub const MAX_ACCOUNTS: usize = 20_000;

/// The history of all accounts.
#[derive(Debug)]
pub struct History {
    began: Instant,
    /// Boxed: a map keeps room for more than it has.
    accounts: DashMap<AccountId, Box<HistoryRing>>,
    /// Since when the notification server is down.
    down: std::sync::Mutex<Option<HistoryTime>>,
    changed: Notify,
}

/// What is known of an account at a glance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistorySummary {
    /// When a message was last noticed.
    pub last_message: Option<HistoryTime>,
    /// The last POST that has ended.
    pub last_push: Option<LastPush>,
    /// When each device last connected.
    pub connected: Vec<DeviceConnection>,
    /// When one of the devices last came for a background fetch.
    pub background: Option<HistoryTime>,
}

/// A device that has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceConnection {
    /// The short hash of its token.
    pub device: u32,
    /// When it handed its token over.
    pub at: HistoryTime,
    /// The connection in which it did.
    pub session: u64,
    /// That connection has not ended.
    pub online: bool,
}

/// What happened to an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The oldest first.
    pub entries: Vec<HistoryEntry>,
    /// Older ones were dropped; otherwise these are all since the start.
    pub full: bool,
    /// How many there ever were. It grows with whatever happens.
    pub count: u64,
    mailboxes: Vec<Box<str>>,
}

impl Timeline {
    /// The name of a mailbox of an entry.
    #[must_use]
    pub fn mailbox(&self, number: u8) -> &str {
        self.mailboxes.get(usize::from(number)).map_or("another mailbox", |name| name)
    }
}

impl Default for History {
    fn default() -> Self {
        let (accounts, down, changed) =
            (DashMap::new(), std::sync::Mutex::default(), Notify::new());
        Self { began: Instant::now(), accounts, down, changed }
    }
}

impl History {
    pub(super) fn note(&self, event: &TelemetryEvent<'_>) {
        let now = HistoryTime::now(self.began);
        match event {
            TelemetryEvent::Login {
                session,
                account: Some(account),
                result: LoginResult::Accepted,
            } => {
                self.of_known(account, |ring| ring.login(now, *session));
            }
            TelemetryEvent::Registered { session, account, token } => {
                self.of(account, |ring| ring.registered(now, *session, token.short_hash()));
            }
            TelemetryEvent::BackgroundFetch { session, account } => {
                self.of_known(account, |ring| ring.background_fetch(now, *session));
            }
            TelemetryEvent::Fetched { session, account, token } => {
                let (session, device) = (*session, token.map(DeviceToken::short_hash));
                self.of_known(account, |ring| ring.push(now, What::Fetched { session, device }));
            }
            TelemetryEvent::Watch { account, state } => self.watch(now, account, *state),
            TelemetryEvent::LoggedOut { session, account } => {
                self.of_known(account, |ring| ring.logged_out(*session))
            }
            TelemetryEvent::Judged { account, mailbox, uid, skipped } => {
                self.of_known(account, |ring| {
                    let mailbox = ring.mailbox(mailbox);
                    ring.push(now, What::Judged { mailbox, uid: *uid, skipped: *skipped });
                })
            }
            TelemetryEvent::Noticed { account, mailbox, announce, since } => {
                self.of_known(account, |ring| {
                    // A look that finds nothing is no message.
                    if !announce && since.is_none() {
                        return;
                    }
                    let mailbox = ring.mailbox(mailbox);
                    // Rounded up, as `now` is rounded down: the news never seem to come after what they led to.
                    let ago = |since: std::time::Instant| {
                        Instant::now().saturating_duration_since(since.into())
                    };
                    let heard =
                        since.map(|since| short(ago(since).saturating_add(ALMOST_A_MILLISECOND)));
                    ring.last_message = Some(now);
                    ring.push(now, What::Noticed { mailbox, announce: *announce, heard });
                })
            }
            TelemetryEvent::Posted { accounts, token, result, took } => {
                let device = token.short_hash();
                self.of_all(accounts, |ring| ring.posted(now, device, *result, short(*took)));
            }
            TelemetryEvent::Waits { accounts, token, pause, next } => {
                let (device, next) = (token.short_hash(), short(*next));
                self.of_all(accounts, |ring| {
                    ring.push(now, What::Waits { device, pause: *pause, next })
                });
            }
            TelemetryEvent::GaveUp { accounts, token, reason } => {
                let device = token.short_hash();
                self.of_all(accounts, |ring| {
                    ring.push(now, What::GaveUp { device, words: cut(reason) })
                });
            }
            TelemetryEvent::PushTest { account, token } => {
                let device = token.short_hash();
                self.of(account, |ring| ring.push(now, What::Tested { device }));
            }
            TelemetryEvent::Outage { down } => *self.down() = down.then_some(now),
            TelemetryEvent::Forgotten { account } => {
                self.accounts.remove(*account);
            }
            TelemetryEvent::Connected
            | TelemetryEvent::TurnedAway
            | TelemetryEvent::Disconnected
            | TelemetryEvent::Login { .. } => return,
        }
        self.changed.notify_waiters();
    }

    fn watch(&self, now: HistoryTime, account: &AccountId, state: WatchEvent<'_>) {
        let (state, words) = match state {
            WatchEvent::Connecting => (WatchNote::Connecting, ""),
            WatchEvent::Watching => (WatchNote::Watching, ""),
            WatchEvent::Interrupted { reason, .. } => (WatchNote::Interrupted, reason),
            WatchEvent::AwaitingLogin { reason, .. } => (WatchNote::AwaitingLogin, reason),
            // Either another one begins at once, or the account goes.
            WatchEvent::Ended => return,
        };
        let note = |ring: &mut HistoryRing| ring.watch(now, state, words);
        // What a watch says with its last breath, when its account has gone already, begins no history.
        if state == WatchNote::Connecting {
            self.of(account, note)
        } else {
            self.of_known(account, note)
        }
    }

    /// For what only happens to accounts with a device.
    fn of(&self, account: &AccountId, note: impl FnOnce(&mut HistoryRing)) {
        if let Some(mut ring) = self.accounts.get_mut(account) {
            return note(&mut ring);
        }
        if self.accounts.len() < MAX_ACCOUNTS {
            note(&mut self.accounts.entry(account.clone()).or_default());
        }
    }

    fn of_known(&self, account: &AccountId, note: impl FnOnce(&mut HistoryRing)) {
        if let Some(mut ring) = self.accounts.get_mut(account) {
            note(&mut ring);
        }
    }

    fn of_all(&self, accounts: &[AccountId], note: impl Fn(&mut HistoryRing)) {
        accounts.iter().for_each(|account| self.of(account, &note));
    }

    fn down(&self) -> std::sync::MutexGuard<'_, Option<HistoryTime>> {
        self.down.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What is known of an account at a glance.
    #[must_use]
    pub fn summary(&self, account: &AccountId) -> HistorySummary {
        let Some(ring) = self.accounts.get(account) else { return HistorySummary::default() };
        HistorySummary {
            last_message: ring.last_message,
            last_push: ring.last_push,
            connected: ring.connected.clone(),
            background: ring.background,
        }
    }

    /// What happened to an account lately; `None` if nothing is known of it.
    #[must_use]
    pub fn timeline(&self, account: &AccountId) -> Option<Timeline> {
        let ring = self.accounts.get(account)?;
        let (entries, mailboxes) = (ring.entries.clone(), ring.mailboxes.clone());
        Some(Timeline { entries, full: ring.full, count: ring.count, mailboxes })
    }

    /// Since when the notification server counts as down, if it does.
    #[must_use]
    pub fn down_since(&self) -> Option<HistoryTime> {
        *self.down()
    }

    /// When the history began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Now, as its moments are counted.
    #[must_use]
    pub fn now(&self) -> HistoryTime {
        HistoryTime::now(self.began)
    }

    /// Wakes whoever has called this before, when something has happened.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}
