//! Recent history of each account: in memory, since the start, and bounded.
//!
//! An entry takes 40 bytes. An account has [`MAX_ENTRIES`] of them at most, with 2 KiB of words. Measured, with all that it
//! needs: 1.3 KiB for an account that has had one message, 3.2 KiB for one that is full. Accounts without a device have none.

mod entry;
mod ring;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{AccountTelemetry, LoginResult, TelemetryEvent, WatchEvent};
use crate::secret::DeviceToken;
use entry::short;
pub use entry::{HistoryEntry, HistoryTime, WatchNote, What};
use ring::{HistoryRing, cut};
pub use ring::{LastPush, MAX_ENTRIES};

/// Maximum loss by rounding to milliseconds.
const ALMOST_A_MILLISECOND: Duration = Duration::from_nanos(999_999);

/// Maximum number of accounts with a history. Further accounts get one as others are erased.
pub const MAX_ACCOUNTS: usize = 20_000;

/// The history that accounts have in common, and the room for their own.
#[derive(Debug)]
pub struct History {
    began: Instant,
    /// Room for accounts with a history.
    places: Arc<Semaphore>,
    /// Start of the notification server's outage, if it is down.
    down: std::sync::Mutex<Option<HistoryTime>>,
    changed: Notify,
}

/// The history of one account, and the room that it takes.
#[derive(Debug)]
pub(super) struct HistoryPlace {
    pub(super) ring: HistoryRing,
    _place: OwnedSemaphorePermit,
}

/// The latest events of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistorySummary {
    /// Time of the last discovery of a message.
    pub last_message: Option<HistoryTime>,
    /// The last completed POST.
    pub last_push: Option<LastPush>,
    /// Last connection of each device.
    pub connected: Vec<DeviceConnection>,
    /// Last background fetch of any device.
    pub background: Option<HistoryTime>,
}

/// A device that has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceConnection {
    /// The short hash of its token.
    pub device: u32,
    /// Time at which it handed over its token.
    pub at: HistoryTime,
    /// The connection in which it did so.
    pub session: u64,
    /// That connection is still open.
    pub online: bool,
}

/// The recent history of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The oldest first.
    pub entries: Vec<HistoryEntry>,
    /// Older entries were dropped; otherwise these are all since the start.
    pub full: bool,
    /// Number of entries ever made, dropped ones included.
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
        let (down, changed) = (std::sync::Mutex::default(), Notify::new());
        Self {
            began: Instant::now(),
            places: Arc::new(Semaphore::new(MAX_ACCOUNTS)),
            down,
            changed,
        }
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
                of_known(account, |ring| ring.login(now, *session));
            }
            TelemetryEvent::Registered { session, account, token } => {
                if let Some(account) = account {
                    self.of(account, |ring| ring.registered(now, *session, token.short_hash()));
                }
            }
            TelemetryEvent::BackgroundFetch { session, account } => {
                of_known(account, |ring| ring.background_fetch(now, *session));
            }
            TelemetryEvent::Fetched { session, account, token } => {
                let (session, device) = (*session, token.map(DeviceToken::short_hash));
                of_known(account, |ring| ring.push(now, What::Fetched { session, device }));
            }
            TelemetryEvent::Watch { account, state } => self.watch(now, account, *state),
            TelemetryEvent::LoggedOut { session, account } => {
                if let Some(account) = account {
                    of_known(account, |ring| ring.logged_out(*session));
                }
            }
            TelemetryEvent::Judged { account, mailbox, uid, skipped } => {
                of_known(account, |ring| {
                    let mailbox = ring.mailbox(mailbox);
                    ring.push(now, What::Judged { mailbox, uid: *uid, skipped: *skipped });
                })
            }
            TelemetryEvent::Noticed { account, mailbox, announce, since } => {
                of_known(account, |ring| {
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
            TelemetryEvent::Connected
            | TelemetryEvent::TurnedAway
            | TelemetryEvent::Disconnected
            | TelemetryEvent::NewsRefused(_)
            | TelemetryEvent::Login { .. } => return,
        }
        self.changed.notify_waiters();
    }

    fn watch(&self, now: HistoryTime, account: &AccountTelemetry, state: WatchEvent<'_>) {
        let (state, words) = match state {
            WatchEvent::Connecting => (WatchNote::Connecting, ""),
            WatchEvent::Watching => (WatchNote::Watching, ""),
            WatchEvent::Interrupted { reason, .. } => (WatchNote::Interrupted, reason),
            WatchEvent::AwaitingLogin { reason, .. } => (WatchNote::AwaitingLogin, reason),
            // Either another one begins at once, or the account goes.
            WatchEvent::Ended => return,
        };
        let note = |ring: &mut HistoryRing| ring.watch(now, state, words);
        // The last event of a watch whose account was erased starts no new history.
        if state == WatchNote::Connecting {
            self.of(account, note)
        } else {
            of_known(account, note)
        }
    }

    /// For what only happens to accounts with a device.
    fn of(&self, account: &AccountTelemetry, note: impl FnOnce(&mut HistoryRing)) {
        let mut notes = account.lock();
        if notes.history.is_none() {
            let place = Arc::clone(&self.places).try_acquire_owned().ok();
            notes.history =
                place.map(|_place| Box::new(HistoryPlace { ring: HistoryRing::default(), _place }));
        }
        if let Some(place) = &mut notes.history {
            note(&mut place.ring);
        }
    }

    fn of_all(&self, accounts: &[&AccountTelemetry], note: impl Fn(&mut HistoryRing)) {
        accounts.iter().for_each(|account| self.of(account, &note));
    }

    fn down(&self) -> std::sync::MutexGuard<'_, Option<HistoryTime>> {
        self.down.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Since when the notification server counts as down, if it does.
    #[must_use]
    pub fn down_since(&self) -> Option<HistoryTime> {
        *self.down()
    }

    /// Start of the history.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Now, as its moments are counted.
    #[must_use]
    pub fn now(&self) -> HistoryTime {
        HistoryTime::now(self.began)
    }

    /// Wakes earlier callers when something has happened.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

fn of_known(account: &AccountTelemetry, note: impl FnOnce(&mut HistoryRing)) {
    if let Some(place) = &mut account.lock().history {
        note(&mut place.ring);
    }
}
