//! The slots whose accounts this node watches, where several nodes share one state.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::account::AccountId;
use crate::ownership::{Ownership, SLOTS, Slot};

const WORDS: usize = SLOTS as usize / u64::BITS as usize;

/// Slots that are owned, or prepared for that: their accounts are in memory and have a watch. Of other slots only accounts with a
/// client here are in memory, as visitors. A node without companions holds all.
#[derive(Debug)]
pub(super) struct HeldSlots {
    pub(super) ownership: Ownership,
    slots: SlotSet,
    /// Owned slots that are about to be given away: their tokens are posted by the next owner.
    settling: SlotSet,
}

/// A set of slots.
#[derive(Debug)]
struct SlotSet([AtomicU64; WORDS]);

impl HeldSlots {
    pub(super) fn new(ownership: Ownership) -> Self {
        Self { ownership, slots: SlotSet::new(), settling: SlotSet::new() }
    }

    /// Reports if the account has its watch here.
    pub(super) fn has(&self, account: &AccountId) -> bool {
        self.ownership.is_sole() || self.has_slot(Slot::of(account))
    }

    pub(super) fn has_slot(&self, slot: Slot) -> bool {
        self.slots.has(slot)
    }

    pub(super) fn set(&self, slot: Slot, is_held: bool) {
        self.slots.set(slot, is_held);
    }

    /// Number of slots that are held, of a node with companions.
    pub(super) fn count(&self) -> usize {
        self.slots.count()
    }

    /// The slot is about to be given away, or is not any more.
    pub(super) fn set_settling(&self, slot: Slot, is_settling: bool) {
        self.settling.set(slot, is_settling);
    }

    /// Reports if any slot is about to be given away.
    pub(super) fn are_settling(&self) -> bool {
        !self.ownership.is_sole() && self.settling.count() > 0
    }

    /// Reports if this node posts tokens of the account.
    pub(super) fn posts(&self, account: &AccountId) -> bool {
        self.ownership.is_sole()
            || self.ownership.has(account) && !self.settling.has(Slot::of(account))
    }
}

impl SlotSet {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn has(&self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.0.get(word).is_some_and(|word| word.load(Ordering::SeqCst) & bit != 0)
    }

    fn set(&self, slot: Slot, is_in: bool) {
        let (word, bit) = place(slot);
        let Some(word) = self.0.get(word) else { return };
        if is_in {
            word.fetch_or(bit, Ordering::SeqCst);
        } else {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    fn count(&self) -> usize {
        let ones = |word: &AtomicU64| word.load(Ordering::SeqCst).count_ones() as usize;
        self.0.iter().map(ones).sum()
    }
}

fn place(slot: Slot) -> (usize, u64) {
    let number = usize::from(slot.number());
    (number / u64::BITS as usize, 1 << (number % u64::BITS as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_held_one_by_one() {
        let (alice, held) =
            (AccountId::new("alice", "imap.example.org:993"), HeldSlots::new(Ownership::of_node()));
        assert!(HeldSlots::new(Ownership::sole()).has(&alice) && !held.has(&alice));
        held.set(Slot::of(&alice), true);
        assert!(held.has(&alice));
        Slot::all().filter(|slot| *slot != Slot::of(&alice)).for_each(|slot| {
            assert!(!held.has_slot(slot));
            held.set(slot, true);
        });
        assert_eq!(held.count(), usize::from(SLOTS));
        held.set(Slot::of(&alice), false);
        assert!(!held.has(&alice) && held.count() == usize::from(SLOTS) - 1);
    }
}
