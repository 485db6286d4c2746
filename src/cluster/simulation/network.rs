//! The ways between nodes and database: late, lost, cut.

use super::world::{Event, World};
use super::{MILLISECOND, SECOND};
use crate::cluster::lease::LeaseRequest;

impl World {
    pub(super) fn ask(&mut self, place: usize, request: LeaseRequest) {
        let number = self.sequence;
        let node = &mut self.nodes[place];
        node.request = Some(number);
        let limit = node.true_time(node.clock(self.now) + self.settings.limit);
        let refused = self.database_since.is_none() && self.rng.bool();
        let fails_at = if refused { self.now + 2 * MILLISECOND } else { limit };
        self.at(fails_at, Event::Failed(place, number));
        let latency = self.slow_latency();
        self.at(self.now + latency, Event::Request(place, number, request));
    }

    /// A request at the database, which may be away, and its answer, which may be lost.
    pub(super) fn request(&mut self, place: usize, number: u64, request: &LeaseRequest) {
        let id = self.nodes[place].id;
        if !self.is_reached(place) {
            return;
        }
        let (claimed, notifies) = self.database.request(id, request, self.now);
        self.ledger.claimed(&claimed, id, &self.nodes, self.now);
        if notifies {
            self.notify();
        }
        let node = &mut self.nodes[place];
        if !self.settled && node.lost_in_a_row < 2 && self.rng.u8(0..100) == 0 {
            node.lost_in_a_row += 1;
            return;
        }
        let facts = self.database.facts(self.now);
        let latency = self.slow_latency();
        self.at(self.now + latency, Event::Answer(place, number, facts));
    }

    /// The way of a request or its answer. As long as one takes seconds, the database does not work well.
    fn slow_latency(&mut self) -> u64 {
        let latency = self.latency();
        if latency > SECOND {
            self.at(self.now + latency, Event::Slow);
        }
        latency
    }

    fn notify(&mut self) {
        for place in 0..self.nodes.len() {
            let node = &self.nodes[place];
            if node.is_running && !node.is_deaf && !node.is_cut_off {
                let latency = self.latency();
                self.at(self.now + latency, Event::Notification(place));
            }
        }
    }

    /// Reports if something that the node sends comes to the database.
    pub(super) fn is_reached(&mut self, place: usize) -> bool {
        let is_lost = !self.settled && self.rng.u8(0..100) == 0;
        self.database_since.is_some() && !self.nodes[place].is_cut_off && !is_lost
    }

    /// One way, mostly short; now and then longer than any time limit.
    pub(super) fn latency(&mut self) -> u64 {
        match self.rng.u8(0..200) {
            0 if !self.settled => self.rng.u64(SECOND..4 * SECOND),
            1..6 => self.rng.u64(100 * MILLISECOND..700 * MILLISECOND),
            _ => self.rng.u64(MILLISECOND..20 * MILLISECOND),
        }
    }
}
