//! The model of a node: the machine with its driver, and a keeper with one watch for each slot.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::database::AccountRow;
use crate::cluster::lease::{LeaseMachine, LeaseSettings, NodeId};
use crate::ownership::{Epoch, Slot};

/// The watch of a slot's one account.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The mailbox was opened: new messages are seen.
    pub(super) is_idle: bool,
    /// Number of messages that it saw.
    pub(super) seen: u64,
    /// The epoch in which it was owned last.
    pub(super) epoch: Option<Epoch>,
    /// The row as it was loaded in this epoch, and changed since.
    pub(super) row: Option<AccountRow>,
    pub(super) is_committing: bool,
    pub(super) is_posting: bool,
    /// Messages up to this one are announced, and it is not known that this is written.
    pub(super) unwritten: Option<u64>,
    pub(super) is_writing: bool,
    pub(super) is_loading: bool,
    /// No POST begins.
    pub(super) is_settling: bool,
}

/// A run of a node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) machine: LeaseMachine,
    pub(super) is_running: bool,
    pub(super) is_leaving: bool,
    pub(super) is_paused: bool,
    pub(super) is_cut_off: bool,
    /// Notifications are lost.
    pub(super) is_deaf: bool,
    /// Its clock, relative to the true one.
    rate: f64,
    origin: Instant,
    pub(super) owned: BTreeMap<Slot, Epoch>,
    pub(super) hold: Option<Instant>,
    pub(super) watches: BTreeMap<Slot, Watch>,
    /// Slots that the machine waits for.
    pub(super) settling: Vec<Slot>,
    /// The request in flight.
    pub(super) request: Option<u64>,
    /// The number of the timer that counts.
    pub(super) timer: u64,
    /// Answers that were lost one after the other.
    pub(super) lost_in_a_row: u32,
    /// It has worked without a fault since.
    pub(super) healthy_since: u64,
    pub(super) share: usize,
}

impl Node {
    pub(super) fn new(id: NodeId, settings: LeaseSettings, rate: f64, now: u64) -> Self {
        let origin = Instant::now();
        let mut node = Self {
            id,
            machine: LeaseMachine::new(id, settings, origin),
            is_running: true,
            is_leaving: false,
            is_paused: false,
            is_cut_off: false,
            is_deaf: false,
            rate,
            origin,
            owned: BTreeMap::new(),
            hold: None,
            watches: BTreeMap::new(),
            settling: Vec::new(),
            request: None,
            timer: 0,
            lost_in_a_row: 0,
            healthy_since: now,
            share: 0,
        };
        node.machine = LeaseMachine::new(id, settings, node.clock(now));
        node
    }

    /// Its own time.
    pub(super) fn clock(&self, now: u64) -> Instant {
        self.origin + Duration::from_micros(now).mul_f64(self.rate)
    }

    /// The true time of its own time, not earlier.
    pub(super) fn true_time(&self, instant: Instant) -> u64 {
        let own = instant.duration_since(self.origin).div_f64(self.rate);
        u64::try_from(own.as_micros()).unwrap() + 2
    }

    /// The epoch in which it works for the slot, as `Ownership` would tell.
    pub(super) fn epoch(&self, slot: Slot, now: u64) -> Option<Epoch> {
        let holds = self.hold.is_some_and(|hold| self.clock(now) < hold);
        self.owned.get(&slot).copied().filter(|_| holds)
    }

    /// Reports if the process does anything.
    pub(super) fn acts(&self) -> bool {
        self.is_running && !self.is_paused
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.acts() && !self.is_cut_off && !self.is_leaving
    }
}
