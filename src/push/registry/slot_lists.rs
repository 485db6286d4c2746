//! The accounts in memory by their slots, where several nodes share one state: slots come and go without a look at all accounts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::account::AccountId;
use crate::ownership::{SLOTS, Slot};
use crate::push::account::Account;

/// A list for each slot. A node without companions has none.
#[derive(Debug)]
pub(super) struct SlotLists(Vec<Mutex<Vec<Weak<Account>>>>);

impl SlotLists {
    pub(super) fn new(is_sole: bool) -> Self {
        let slots = if is_sole { 0 } else { SLOTS };
        Self((0..slots).map(|_| Mutex::default()).collect())
    }

    pub(super) fn add(&self, account: &Arc<Account>) {
        if let Some(mut list) = self.list_of(&account.id) {
            list.push(Arc::downgrade(account));
        }
    }

    pub(super) fn remove(&self, account: &Arc<Account>) {
        if let Some(mut list) = self.list_of(&account.id) {
            list.retain(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(account)));
        }
    }

    /// The accounts of a slot.
    pub(super) fn accounts(&self, slot: Slot) -> Vec<Arc<Account>> {
        let list = self.list(slot);
        list.map(|list| list.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
    }

    /// Their number.
    pub(super) fn count(&self, slot: Slot) -> usize {
        self.list(slot).map_or(0, |list| list.len())
    }

    fn list_of(&self, account: &AccountId) -> Option<MutexGuard<'_, Vec<Weak<Account>>>> {
        // The slot takes a while to compute.
        if self.0.is_empty() { None } else { self.list(Slot::of(account)) }
    }

    fn list(&self, slot: Slot) -> Option<MutexGuard<'_, Vec<Weak<Account>>>> {
        let list = self.0.get(usize::from(slot.number()))?;
        Some(list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
