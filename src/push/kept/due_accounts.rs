//! The queue of accounts whose devices are to be woken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::push::account::Account;

/// Accounts by the time when their devices are to be woken. Each account knows its own time; older entries of it are ignored.
#[derive(Default)]
pub(super) struct DueAccounts {
    queue: Mutex<BTreeMap<Instant, Vec<Weak<Account>>>>,
    earlier: Notify,
}

impl DueAccounts {
    /// Schedules the account's devices for that time, unless they are to be woken before.
    pub(super) fn put(&self, account: &Arc<Account>, due: Instant) {
        if account.kept.wake_at(due) {
            self.lock().entry(due).or_default().push(Arc::downgrade(account));
            self.earlier.notify_one();
        }
    }

    /// Waits for the next account that is due, and takes it; none before `not_before`.
    pub(super) async fn next(&self, not_before: Instant) -> Arc<Account> {
        loop {
            let first = self.lock().first_key_value().map(|(due, _)| (*due).max(not_before));
            tokio::select! {
                () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {}
                () = self.earlier.notified() => continue,
            }
            while let Some((due, account)) = self.pop() {
                if let Some(account) =
                    account.upgrade().filter(|account| account.kept.take_due(due))
                {
                    return account;
                }
            }
        }
    }

    /// Takes the first entry, if its time has come.
    fn pop(&self) -> Option<(Instant, Weak<Account>)> {
        let mut queue = self.lock();
        let mut first = queue.first_entry().filter(|first| *first.key() <= Instant::now())?;
        let (due, account) = (*first.key(), first.get_mut().pop());
        if first.get().is_empty() {
            first.remove();
        }
        account.map(|account| (due, account))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Instant, Vec<Weak<Account>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time `time` after `now`, or `now` if there is no such time.
pub(super) fn later(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
