//! The guard of a connected client: while it exists, the account's devices are not woken.

use std::sync::atomic::{AtomicBool, Ordering};

use super::pool::{RETURN_TIME, SessionPool};
use crate::account::AccountId;
use crate::push::watch_status::WatchState;

/// Counts a client of the account as connected, until it is dropped.
pub(super) struct ClientGuard {
    pool: SessionPool,
    account: AccountId,
    /// The client waits for mail in the only mailbox that is watched.
    waits: AtomicBool,
    /// The reason for the status, if no session is left after the client.
    pub(super) reason: &'static str,
}

impl ClientGuard {
    pub(super) fn new(pool: SessionPool, account: AccountId) -> Self {
        pool.registry().change_clients(&account, |clients| {
            clients.here += 1;
        });
        let (waits, reason) = (AtomicBool::new(false), "the client's session was lost");
        Self { pool, account, waits, reason }
    }

    /// Records that the client waits for mail in `mailbox`. If no other mailbox is watched, the account's kept sessions close.
    pub(super) fn waits_in(&self, mailbox: &str) {
        let Self { pool, account, .. } = self;
        let Some(known) = pool.account_with_device(account) else { return };
        let mailboxes = pool.context().mailboxes(&known);
        let is_only = matches!(mailboxes.as_slice(), [only] if only == mailbox);
        if !is_only || self.waits.swap(true, Ordering::Relaxed) {
            return;
        }
        pool.registry().change_clients(account, |clients| {
            clients.waiting += 1;
        });
        known.kept.close_all();
        pool.show(&known, WatchState::WithClient);
    }

    /// Records that the client does something else, or is gone.
    pub(super) fn waits_no_more(&self) {
        if self.waits.swap(false, Ordering::Relaxed) {
            self.pool.registry().change_clients(&self.account, |clients| {
                clients.waiting -= 1;
            });
        }
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.waits_no_more();
        self.pool.registry().change_clients(&self.account, |clients| {
            clients.here -= 1;
        });
        self.pool.wake_if_alone(&self.account, self.reason, RETURN_TIME);
    }
}
