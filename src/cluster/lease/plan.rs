//! Plan: what the next renewal does, from the latest rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::balance::deal;
use super::own::OwnSlots;
use super::sightings::Sightings;
use super::{LeaseFacts, LeaseSettings, NodeId, Renewal, SlotFact};
use crate::ownership::{Epoch, Slot};

/// The latest rows, with what a node concludes from them.
#[derive(Debug, Default)]
pub(super) struct View {
    facts: LeaseFacts,
    sightings: Sightings,
    /// Slots whose owner has no row, with the time when that was first seen.
    orphans: BTreeMap<Slot, Instant>,
}

impl View {
    /// Takes the rows that came at `now`.
    pub(super) fn look(
        &mut self,
        facts: LeaseFacts,
        me: NodeId,
        settings: &LeaseSettings,
        now: Instant,
    ) {
        self.sightings.look(&facts, me, settings, now);
        let rows: BTreeSet<NodeId> = facts.nodes.iter().map(|node| node.id).collect();
        let before = std::mem::take(&mut self.orphans);
        for fact in &facts.slots {
            if fact.owner.is_none_or(|owner| !rows.contains(&owner)) {
                let since = before.get(&fact.slot).copied().unwrap_or(now);
                self.orphans.insert(fact.slot, since);
            }
        }
        self.facts = facts;
    }

    /// The nodes that live, this one included.
    pub(super) fn living(&self, me: NodeId, now: Instant) -> BTreeSet<NodeId> {
        let lives = |id: &NodeId| *id == me || self.sightings.lives(*id, now);
        self.facts.nodes.iter().map(|node| node.id).filter(lives).collect()
    }

    /// The nodes that live and stay, this one included if it stays.
    pub(super) fn takers(&self, me: NodeId, now: Instant) -> BTreeSet<NodeId> {
        let leaving =
            |id: &NodeId| self.facts.nodes.iter().any(|node| node.id == *id && node.leaving);
        self.living(me, now).into_iter().filter(|id| !leaving(id)).collect()
    }

    /// When the plan may change although no rows come.
    pub(super) fn changes_at(&self, settings: &LeaseSettings, now: Instant) -> Option<Instant> {
        let claimed = self.orphans.values().map(|since| *since + settings.grace);
        claimed.filter(|at| *at > now).chain(self.sightings.next_death(now)).min()
    }

    /// Slots of this node whose heir is ready.
    pub(super) fn awaited(&self, me: NodeId, now: Instant) -> Vec<Slot> {
        let takers = self.takers(me, now);
        let awaits = |fact: &&SlotFact| {
            let heir = fact.heir.filter(|heir| *heir != me && takers.contains(heir));
            fact.owner == Some(me) && fact.ready && heir.is_some()
        };
        self.facts.slots.iter().filter(awaits).map(|fact| fact.slot).collect()
    }

    /// The plan for this node.
    pub(super) fn plan(
        &self,
        me: NodeId,
        own: &OwnSlots,
        settings: &LeaseSettings,
        now: Instant,
    ) -> Renewal {
        let (living, takers) = (self.living(me, now), self.takers(me, now));
        let dealt = deal(&self.facts.slots, &takers);
        let dead = self.facts.nodes.iter().filter(|node| !living.contains(&node.id));
        let bury = dead.map(|node| (node.id, node.stamp)).collect();
        let mut plan = Renewal { bury, ..Renewal::default() };
        let room = settings.portion.saturating_sub(own.preparing());
        for fact in self.facts.slots.iter().filter(|fact| fact.owner != Some(me)) {
            let (row, is_dealt) = ((fact.slot, fact.epoch), dealt.get(&fact.slot) == Some(&me));
            let is_heir = fact.heir == Some(me);
            if fact.owner.is_none_or(|owner| !living.contains(&owner)) {
                let since = self.orphans.get(&fact.slot);
                let is_late = since.is_some_and(|since| *since + settings.grace <= now);
                if is_dealt || is_heir || is_late {
                    plan.claim.push(row);
                }
            } else if own.is_ready(fact.slot, fact.epoch) && !fact.ready {
                plan.ready.push(row);
            } else if is_dealt && !is_heir && plan.mark.len() < room {
                plan.mark.push(row);
            }
        }
        plan
    }

    /// Slots that this node waits for. A claim of them succeeds as soon as they are given.
    pub(super) fn hopes(&self, own: &OwnSlots) -> impl Iterator<Item = (Slot, Epoch)> {
        let hoped = |fact: &&SlotFact| fact.ready && own.is_ready(fact.slot, fact.epoch);
        self.facts.slots.iter().filter(hoped).map(|fact| (fact.slot, fact.epoch))
    }
}
