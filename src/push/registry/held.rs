//! The slots whose accounts this node watches, where several nodes share one state.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::account::AccountId;
use crate::ownership::{Ownership, SLOTS, Slot};

const WORDS: usize = SLOTS as usize / u64::BITS as usize;

/// A slot on its way into memory. An owned slot is loaded, or its load is tried again until it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SlotLoad {
    /// Of other nodes: only accounts with a client here are in memory, as visitors.
    Free,
    /// It is to be loaded, and counts as another node's until then.
    Wanted,
    /// Its accounts are being loaded. Those that come meanwhile are watched here.
    Loading,
    /// Its accounts are in memory, and are watched here.
    Loaded,
}

/// Slots that are owned, or prepared for that: their accounts are in memory and have a watch. A node without companions holds all.
#[derive(Debug)]
pub(super) struct HeldSlots {
    pub(super) ownership: Ownership,
    loads: [AtomicU8; SLOTS as usize],
    /// Owned slots that are about to be given away: their tokens are posted by the next owner.
    settling: SlotSet,
}

/// A set of slots.
#[derive(Debug)]
struct SlotSet([AtomicU64; WORDS]);

impl HeldSlots {
    pub(super) fn new(ownership: Ownership) -> Self {
        let loads = [const { AtomicU8::new(SlotLoad::Free as u8) }; SLOTS as usize];
        Self { ownership, loads, settling: SlotSet::new() }
    }

    /// Reports if the account has its watch here.
    pub(super) fn has(&self, account: &AccountId) -> bool {
        self.ownership.is_sole() || self.has_slot(Slot::of(account))
    }

    fn has_slot(&self, slot: Slot) -> bool {
        self.is(slot, SlotLoad::Loading) || self.is(slot, SlotLoad::Loaded)
    }

    /// Reports if the slot is as far as that.
    pub(super) fn is(&self, slot: Slot, load: SlotLoad) -> bool {
        self.load(slot).is_some_and(|now| now.load(Ordering::SeqCst) == load as u8)
    }

    /// Moves the slot on, if it is where it was expected to be. Returns whether it was: it may be dropped at any moment.
    pub(super) fn advance(&self, slot: Slot, from: SlotLoad, to: SlotLoad) -> bool {
        self.load(slot).is_some_and(|now| {
            now.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }

    /// The slot is another node's. Returns whether it was held.
    pub(super) fn free(&self, slot: Slot) -> bool {
        let Some(now) = self.load(slot) else { return false };
        let before = now.swap(SlotLoad::Free as u8, Ordering::SeqCst);
        before == SlotLoad::Loading as u8 || before == SlotLoad::Loaded as u8
    }

    /// The slots whose accounts have their watch here, of a node with companions.
    pub(super) fn held(&self) -> impl Iterator<Item = Slot> {
        Slot::all().filter(|slot| self.has_slot(*slot))
    }

    /// The slots that are loaded, of a node with companions.
    pub(super) fn loaded(&self) -> impl Iterator<Item = Slot> {
        Slot::all().filter(|slot| self.is(*slot, SlotLoad::Loaded))
    }

    fn load(&self, slot: Slot) -> Option<&AtomicU8> {
        self.loads.get(usize::from(slot.number()))
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
        use SlotLoad::{Free, Loaded, Loading, Wanted};
        let (alice, held) =
            (AccountId::new("alice", "imap.example.org:993"), HeldSlots::new(Ownership::of_node()));
        let slot = Slot::of(&alice);
        assert!(HeldSlots::new(Ownership::sole()).has(&alice) && !held.has(&alice));
        assert!(held.advance(slot, Free, Wanted) && !held.has(&alice));
        assert!(held.advance(slot, Wanted, Loading) && held.has(&alice));
        assert_eq!(held.loaded().count(), 0);
        assert!(held.advance(slot, Loading, Loaded) && held.has(&alice));
        assert!(!held.advance(slot, Free, Wanted), "it is loaded");
        assert_eq!(held.loaded().collect::<Vec<_>>(), [slot]);
        assert!(held.free(slot) && !held.free(slot));
        assert!(!held.has(&alice) && !held.advance(slot, Loading, Loaded), "it was dropped");
        Slot::all().for_each(|slot| {
            assert!(!held.has_slot(slot));
            assert!(held.advance(slot, Free, Loading));
        });
    }

    #[test]
    fn slots_settle_one_by_one() {
        let held = HeldSlots::new(Ownership::of_node());
        assert!(!held.are_settling());
        Slot::all().for_each(|slot| held.set_settling(slot, true));
        assert_eq!(held.settling.count(), usize::from(SLOTS));
        Slot::all().for_each(|slot| held.set_settling(slot, false));
        assert!(!held.are_settling());
    }
}
