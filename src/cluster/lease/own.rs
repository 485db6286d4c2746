//! The slots that the keeper of this node has, by what it knows of them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{LeaseAction, LeaseFacts, NodeId, SlotFact};
use crate::ownership::{Epoch, Slot};

/// The last word to the keeper about a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnSlot {
    /// To work for it.
    Owned(Epoch),
    /// To work for it, but to begin no POST.
    Settling(Epoch),
    /// To drop it. The row does not show that yet.
    Given(Epoch),
    /// That the lease has lapsed.
    Lapsed,
    /// To prepare it, in this epoch of its owner.
    Preparing(Epoch),
    /// As before, and it is ready.
    Ready(Epoch),
}

/// All slots that the keeper has. The keeper knows nothing of others.
#[derive(Debug, Default)]
pub(super) struct OwnSlots {
    slots: BTreeMap<Slot, OwnSlot>,
    /// When preparations count as done whatever the keeper says.
    prepared_at: Option<Instant>,
    /// When no POST counts as in flight whatever the keeper says.
    settled_at: Option<Instant>,
}

impl OwnSlots {
    /// Takes over what the rows say, and returns the keeper's work, in order. Without `inherits` nothing is prepared.
    pub(super) fn adopt(
        &mut self,
        facts: &LeaseFacts,
        me: NodeId,
        inherits: bool,
        prepared_at: Instant,
    ) -> Vec<LeaseAction> {
        let (mut taken, mut dropped, mut prepare) = (Vec::new(), Vec::new(), Vec::new());
        for SlotFact { slot, owner, epoch, heir, .. } in &facts.slots {
            let before = self.slots.get(slot).copied();
            if *owner == Some(me) {
                if !before.is_some_and(|before| before.is_owned(*epoch)) {
                    self.slots.insert(*slot, OwnSlot::Owned(*epoch));
                    taken.push((*slot, *epoch));
                }
                continue;
            }
            let is_heir = *heir == Some(me) && inherits;
            if is_heir && before.is_some_and(|before| before.is_prepared(*epoch)) {
                continue;
            }
            self.slots.remove(slot);
            dropped.extend(before.filter(|before| before.is_kept()).map(|_| *slot));
            if is_heir {
                self.slots.insert(*slot, OwnSlot::Preparing(*epoch));
                self.prepared_at = Some(prepared_at);
                prepare.push(*slot);
            }
        }
        let mut work = Vec::new();
        work.extend((!dropped.is_empty()).then_some(LeaseAction::Drop(dropped)));
        work.extend((!taken.is_empty()).then_some(LeaseAction::Take(taken)));
        work.extend((!prepare.is_empty()).then_some(LeaseAction::Prepare(prepare)));
        work
    }

    /// The lease has lapsed. Returns the slots that were owned.
    pub(super) fn lapse(&mut self) -> Vec<Slot> {
        let mut lapsed = Vec::new();
        for (slot, own) in &mut self.slots {
            if matches!(own, OwnSlot::Owned(_) | OwnSlot::Settling(_)) {
                *own = OwnSlot::Lapsed;
                lapsed.push(*slot);
            }
        }
        lapsed
    }

    /// The keeper has prepared the slots.
    pub(super) fn prepared(&mut self, slots: &[Slot]) {
        for slot in slots {
            if let Some(own) = self.slots.get_mut(slot)
                && let OwnSlot::Preparing(epoch) = *own
            {
                *own = OwnSlot::Ready(epoch);
            }
        }
        if self.preparing() == 0 {
            self.prepared_at = None;
        }
    }

    /// All preparations count as done if they have taken too long. Reports if any did.
    pub(super) fn prepared_in_time(&mut self, now: Instant) -> bool {
        if self.prepared_at.is_none_or(|at| now < at) {
            return false;
        }
        let slots: Vec<Slot> = self.slots.keys().copied().collect();
        self.prepared(&slots);
        self.prepared_at = None;
        true
    }

    /// The keeper is to begin no POST for the slots. Returns those for which it may until now.
    pub(super) fn settle(&mut self, slots: &[Slot], settled_at: Instant) -> Vec<Slot> {
        let mut settling = Vec::new();
        for slot in slots {
            if let Some(own) = self.slots.get_mut(slot)
                && let OwnSlot::Owned(epoch) = *own
            {
                *own = OwnSlot::Settling(epoch);
                settling.push(*slot);
            }
        }
        if !settling.is_empty() {
            self.settled_at = Some(settled_at);
        }
        settling
    }

    /// No POST for the slots is in flight. Returns those that the keeper has to drop: they can be given.
    pub(super) fn settled(&mut self, slots: &[Slot]) -> Vec<Slot> {
        let mut dropped = Vec::new();
        for slot in slots {
            if let Some(own) = self.slots.get_mut(slot)
                && let OwnSlot::Settling(epoch) = *own
            {
                *own = OwnSlot::Given(epoch);
                dropped.push(*slot);
            }
        }
        dropped
    }

    /// All slots count as settled if it has taken too long.
    pub(super) fn settled_in_time(&mut self, now: Instant) -> Vec<Slot> {
        if self.settled_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.settled_at = None;
        let slots: Vec<Slot> = self.slots.keys().copied().collect();
        self.settled(&slots)
    }

    /// When preparations, or POSTs in flight, count as done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.prepared_at.into_iter().chain(self.settled_at).min()
    }

    /// The slots that the keeper works for.
    pub(super) fn owned(&self) -> Vec<Slot> {
        let owned = |own: &OwnSlot| matches!(own, OwnSlot::Owned(_) | OwnSlot::Settling(_));
        self.slots.iter().filter(|(_, own)| owned(own)).map(|(slot, _)| *slot).collect()
    }

    /// Slots to give.
    pub(super) fn given(&self) -> Vec<(Slot, Epoch)> {
        let given = |(slot, own): (&Slot, &OwnSlot)| match own {
            OwnSlot::Given(epoch) => Some((*slot, *epoch)),
            _ => None,
        };
        self.slots.iter().filter_map(given).collect()
    }

    /// Number of slots that are being prepared.
    pub(super) fn preparing(&self) -> usize {
        self.slots.values().filter(|own| matches!(own, OwnSlot::Preparing(_))).count()
    }

    /// Reports if the slot is prepared in this epoch of its owner.
    pub(super) fn is_ready(&self, slot: Slot, epoch: Epoch) -> bool {
        self.slots.get(&slot) == Some(&OwnSlot::Ready(epoch))
    }

    /// Everything is given up. Returns what the keeper had.
    pub(super) fn drop_all(&mut self) -> Vec<Slot> {
        (self.prepared_at, self.settled_at) = (None, None);
        let slots = std::mem::take(&mut self.slots).into_iter();
        slots.filter(|(_, own)| own.is_kept()).map(|(slot, _)| slot).collect()
    }
}

impl OwnSlot {
    /// Reports if the keeper has it.
    fn is_kept(self) -> bool {
        !matches!(self, Self::Given(_))
    }

    /// Reports if the row of an owner is as it should be.
    fn is_owned(self, in_epoch: Epoch) -> bool {
        matches!(self, Self::Owned(epoch) | Self::Settling(epoch) | Self::Given(epoch) if epoch == in_epoch)
    }

    fn is_prepared(self, in_epoch: Epoch) -> bool {
        matches!(self, Self::Preparing(epoch) | Self::Ready(epoch) if epoch == in_epoch)
    }
}
