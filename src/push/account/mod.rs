//! One account that has a device, with all that is known of it in memory: tokens and credentials, its watch, its kept
//! sessions, and what telemetry has noted.
//!
//! The registry's table holds each account once, as an `AccountOwner`. Everything that works for an account holds the
//! account itself. When the table drops its owner, because the last token was removed, the account's watch and its kept
//! sessions end, and nothing new begins in it.
//!
//! Each part has a lock of its own. None is held over an await, nor while another part or the table is locked; the table may
//! be locked while a part is.

mod news;
mod registered;
mod unwritten;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::kept::state::KeptState;
use super::watch_status::Watch;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::store::{Idled, StoredToken, UnixTime};
use crate::telemetry::AccountTelemetry;
use news::NewsNotes;
pub use news::NewsStatus;
use registered::Registered;
pub(super) use registered::WatchNeed;

/// An account that has a device.
pub struct Account {
    /// The name of the account.
    pub id: AccountId,
    /// It was found at the start, or with slots of another node.
    from_before: AtomicBool,
    /// Its last token was removed: the table does not have it any more.
    is_erased: AtomicBool,
    registered: Registered,
    /// Its watch: the task, and its status.
    pub watch: Watch,
    /// Its kept sessions.
    pub(super) kept: KeptState,
    /// The mail server's news of it.
    news: NewsNotes,
    /// Its history and delays.
    pub telemetry: AccountTelemetry,
}

/// The state of an account as the store has it.
#[derive(Debug)]
pub(super) struct AccountState {
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) tokens: Vec<StoredToken>,
    pub(super) idled: Vec<Idled>,
    pub(super) called: Option<UnixTime>,
    pub(super) is_watched: bool,
}

impl Account {
    pub(super) fn new(id: AccountId, state: AccountState, from_before: bool) -> Self {
        Self {
            id,
            from_before: AtomicBool::new(from_before),
            is_erased: AtomicBool::new(false),
            registered: Registered::new(state),
            watch: Watch::default(),
            kept: KeptState::default(),
            news: NewsNotes::default(),
            telemetry: AccountTelemetry::default(),
        }
    }

    /// Reports if the account was there before this process: a mailbox of it that was never looked through has waited
    /// for a while.
    #[must_use]
    pub fn is_from_before(&self) -> bool {
        self.from_before.load(Ordering::Relaxed)
    }

    /// It was there before its watch came to this process.
    pub(super) fn set_from_before(&self) {
        self.from_before.store(true, Ordering::Relaxed);
    }

    /// Reports if its last token was removed: nothing begins for it any more.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.is_erased.load(Ordering::SeqCst)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

/// The table's hold of an account. Dropped, it ends all that goes on in the account.
#[derive(Debug)]
pub(super) struct AccountOwner(pub(super) Arc<Account>);

impl Deref for AccountOwner {
    type Target = Arc<Account>;

    fn deref(&self) -> &Arc<Account> {
        &self.0
    }
}

impl Drop for AccountOwner {
    fn drop(&mut self) {
        // First: what begins later looks at it under the lock of its part.
        self.is_erased.store(true, Ordering::SeqCst);
        self.registered.erase();
        self.watch.stop();
        self.kept.close_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_is_small() {
        // In bytes, without what its parts allocate.
        assert!(size_of::<Account>() <= 480, "{}", size_of::<Account>());
    }
}
