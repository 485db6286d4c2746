//! Loads from the state that are under way, and the accounts that change meanwhile: a load must not put an older account in the
//! place of a newer one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::account::AccountId;

/// The loads under way.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// Their number: mostly none, and then a change costs nothing more.
    count: AtomicUsize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    /// Each with the accounts that have changed since it began.
    changed: HashMap<u64, HashSet<AccountId>>,
}

/// One load, until it is dropped.
#[derive(Debug)]
pub struct LoadGuard<'a> {
    loads: &'a Loads,
    number: u64,
}

impl Loads {
    /// A load begins.
    pub(super) fn begin(&self) -> LoadGuard<'_> {
        let mut under_way = self.lock();
        let number = under_way.next;
        under_way.next = number.wrapping_add(1);
        under_way.changed.insert(number, HashSet::new());
        self.count.store(under_way.changed.len(), Ordering::SeqCst);
        LoadGuard { loads: self, number }
    }

    /// The account changes.
    pub(super) fn account_changes(&self, account: &AccountId) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let mut under_way = self.lock();
            under_way.changed.values_mut().for_each(|changed| _ = changed.insert(account.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoadGuard<'_> {
    /// The account is about to be taken over as this load has found it: what others under way have found may be older.
    pub(super) fn takes_over(&self, account: &AccountId) {
        if self.loads.count.load(Ordering::SeqCst) > 1 {
            let mut under_way = self.loads.lock();
            let others = under_way.changed.iter_mut().filter(|(number, _)| **number != self.number);
            others.for_each(|(_, changed)| _ = changed.insert(account.clone()));
        }
    }

    /// The findings are taken over. Returns the accounts that have changed since it began.
    pub(super) fn end(self) -> HashSet<AccountId> {
        self.loads.lock().changed.remove(&self.number).unwrap_or_default()
    }
}

impl Drop for LoadGuard<'_> {
    fn drop(&mut self) {
        let mut under_way = self.loads.lock();
        under_way.changed.remove(&self.number);
        self.loads.count.store(under_way.changed.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_for_the_loads_under_way() {
        let (loads, alice) = (Loads::default(), AccountId::new("alice", "imap.example.org:993"));
        loads.account_changes(&alice);
        let first = loads.begin();
        loads.account_changes(&alice);
        let second = loads.begin();
        second.takes_over(&alice);
        assert!(second.end().is_empty(), "that was before");
        assert_eq!(first.end(), HashSet::from([alice]));
        assert_eq!(loads.count.load(Ordering::SeqCst), 0);
    }
}
