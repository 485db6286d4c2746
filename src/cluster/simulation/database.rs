//! The model of the database: rows, each request done as a whole, and a clock that steps.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Mutation;
use crate::cluster::lease::{
    LeaseFacts, LeaseRequest, LeaseStamp, NodeFact, NodeId, Renewal, SlotFact,
};
use crate::ownership::{Epoch, SLOTS, Slot};

/// A row of a node.
struct NodeRow {
    lease_until: i64,
    leaving: bool,
}

/// State of the one account of a slot. Messages are numbered from one; a message's number is also the generation of its mark.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AccountRow {
    /// Number of messages that were noticed.
    pub(super) position: u64,
    /// Number of messages that are to be announced.
    pub(super) pending: u64,
    /// Number of messages that were announced.
    pub(super) announced: u64,
}

/// A change that only the owner may make.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Noticed(u64),
    Announced(u64),
}

/// An owner that changed.
pub(in crate::cluster) struct Claimed {
    pub(super) slot: Slot,
    /// True if the owner before gave it to this one.
    pub(super) was_given: bool,
}

pub(in crate::cluster) struct Database {
    /// Steps of its clock, in microseconds.
    pub(super) step: i64,
    nodes: BTreeMap<NodeId, NodeRow>,
    slots: Vec<SlotFact>,
    accounts: Vec<AccountRow>,
    lease: Duration,
    mutation: Mutation,
}

impl Database {
    pub(super) fn new(slots: usize, lease: Duration, mutation: Mutation) -> Self {
        let fact = |slot| SlotFact { slot, owner: None, epoch: Epoch(1), heir: None, ready: false };
        Self {
            step: 0,
            nodes: BTreeMap::new(),
            slots: Slot::all().take(slots).map(fact).collect(),
            accounts: vec![AccountRow::default(); slots],
            lease,
            mutation,
        }
    }

    /// All slots there are.
    pub(in crate::cluster) fn of_all_slots(lease: Duration) -> Self {
        Self::new(usize::from(SLOTS), lease, Mutation::None)
    }

    /// Does a request. Returns the owners that changed, and if other nodes are notified.
    pub(in crate::cluster) fn request(
        &mut self,
        me: NodeId,
        request: &LeaseRequest,
        now: u64,
    ) -> (Vec<Claimed>, bool) {
        match request {
            LeaseRequest::Release => {
                self.slots.iter_mut().filter(|fact| fact.owner == Some(me)).for_each(|fact| {
                    fact.owner = None;
                });
                (Vec::new(), self.nodes.remove(&me).is_some())
            }
            LeaseRequest::Renew(renewal) => self.renew(me, renewal, now),
        }
    }

    fn renew(&mut self, me: NodeId, renewal: &Renewal, now: u64) -> (Vec<Claimed>, bool) {
        let lease_until = self.clock(now) + i64::try_from(self.lease.as_micros()).unwrap();
        let known = self.nodes.get(&me).map(|row| row.leaving);
        if known.is_none() && !renewal.join {
            return (Vec::new(), false);
        }
        self.nodes.insert(me, NodeRow { lease_until, leaving: renewal.leaving });
        let before = self.nodes.len();
        for (id, stamp) in &renewal.bury {
            if self.nodes.get(id).is_some_and(|row| row.lease_until == stamp.0) {
                self.nodes.remove(id);
            }
        }
        let claimed = self.claim(me, &renewal.claim);
        for (slot, epoch) in &renewal.mark {
            let fact = &mut self.slots[usize::from(slot.number())];
            let other = fact.heir.and_then(|heir| self.nodes.get(&heir));
            if fact.epoch == *epoch && other.is_none_or(|heir| heir.leaving) {
                (fact.heir, fact.ready) = (Some(me), false);
            }
        }
        let mut given = false;
        for (slot, epoch) in &renewal.ready {
            let fact = &mut self.slots[usize::from(slot.number())];
            if fact.epoch == *epoch && fact.heir == Some(me) {
                (fact.ready, given) = (true, true);
            }
        }
        for (slot, epoch) in &renewal.give {
            let fact = &mut self.slots[usize::from(slot.number())];
            if fact.epoch == *epoch && fact.owner == Some(me) {
                (fact.owner, given) = (None, true);
            }
        }
        let changed = known != Some(renewal.leaving) || self.nodes.len() < before;
        let notifies = changed || given || !claimed.is_empty();
        (claimed, notifies)
    }

    fn claim(&mut self, me: NodeId, claims: &[(Slot, Epoch)]) -> Vec<Claimed> {
        let mut claimed = Vec::new();
        for (slot, epoch) in claims {
            let fact = &mut self.slots[usize::from(slot.number())];
            let is_free = fact.owner.is_none_or(|owner| !self.nodes.contains_key(&owner));
            let is_same = fact.epoch == *epoch;
            if is_free && is_same || self.mutation == Mutation::ClaimsBlindly {
                let was_given = fact.owner.is_none() && fact.heir == Some(me) && fact.ready;
                fact.epoch.0 += 1;
                (fact.owner, fact.heir, fact.ready) = (Some(me), None, false);
                claimed.push(Claimed { slot: *slot, was_given });
            }
        }
        claimed
    }

    /// All rows.
    pub(in crate::cluster) fn facts(&self, now: u64) -> LeaseFacts {
        let clock = self.clock(now);
        let node = |(id, row): (&NodeId, &NodeRow)| NodeFact {
            id: *id,
            stamp: LeaseStamp(row.lease_until),
            left: Duration::from_micros(u64::try_from(row.lease_until - clock).unwrap_or_default()),
            leaving: row.leaving,
        };
        LeaseFacts { nodes: self.nodes.iter().map(node).collect(), slots: self.slots.clone() }
    }

    /// Makes a change of an account, if the epoch is the slot's.
    pub(super) fn commit(&mut self, slot: Slot, epoch: Epoch, change: Change) -> bool {
        let place = usize::from(slot.number());
        if self.slots[place].epoch != epoch && self.mutation != Mutation::NoFence {
            return false;
        }
        let row = &mut self.accounts[place];
        match change {
            Change::Noticed(message) if message > row.position => {
                row.position = message;
                row.pending = row.pending.max(message);
            }
            Change::Noticed(_) => {}
            Change::Announced(message) => row.announced = row.announced.max(message),
        }
        true
    }

    pub(super) fn account(&self, slot: Slot) -> AccountRow {
        self.accounts[usize::from(slot.number())]
    }

    pub(super) fn slot(&self, slot: Slot) -> SlotFact {
        self.slots[usize::from(slot.number())]
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        Slot::all().take(self.slots.len())
    }

    fn clock(&self, now: u64) -> i64 {
        i64::try_from(now).unwrap() + self.step
    }
}
