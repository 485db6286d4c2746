//! Faults as they befall nodes and the database, and their ends.

use super::Mutation;
use super::faults::Fault;
use super::node::Node;
use super::world::{Event, World};
use crate::cluster::lease::{LeaseInput, LeaseSettings, NodeId};

/// Most nodes that run at once.
const MOST_NODES: usize = 4;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Join => self.join(),
            Fault::Step(by) => self.database.step += by,
            Fault::Down(wait) => {
                self.database_since = None;
                self.at(self.now + wait, Event::Up);
            }
            Fault::Leave(nth) => {
                let Some(place) = self.nth(nth) else { return };
                self.nodes[place].is_leaving = true;
                self.handle(place, LeaseInput::Leave);
            }
            Fault::Kill(nth) => {
                let Some(place) = self.nth(nth) else { return };
                self.nodes[place].is_running = false;
                self.ledger.befalls(self.nodes[place].id, &self.database, self.now);
            }
            Fault::Pause(nth, wait) => {
                self.afflict(nth, wait, |node| node.is_paused = true, Event::Resume)
            }
            Fault::CutOff(nth, wait) => {
                self.afflict(nth, wait, |node| node.is_cut_off = true, Event::Reconnect);
            }
            Fault::Deafen(nth, wait) => {
                self.afflict(nth, wait, |node| node.is_deaf = true, Event::Hear)
            }
        }
    }

    fn afflict(&mut self, nth: usize, wait: u64, begin: fn(&mut Node), end: fn(usize) -> Event) {
        let Some(place) = self.nth(nth) else { return };
        begin(&mut self.nodes[place]);
        self.ledger.befalls(self.nodes[place].id, &self.database, self.now);
        self.at(self.now + wait, end(place));
    }

    /// The nth of the nodes that act.
    fn nth(&self, nth: usize) -> Option<usize> {
        let acting: Vec<usize> =
            (0..self.nodes.len()).filter(|place| self.nodes[*place].acts()).collect();
        acting.get(nth.checked_rem(acting.len())?).copied()
    }

    fn join(&mut self) {
        if self.nodes.iter().filter(|node| node.is_running).count() >= MOST_NODES {
            return;
        }
        let rate = 0.98 + 0.04 * self.rng.f64();
        let id = NodeId(self.rng.i64(1..i64::MAX));
        let lease = match self.mutation {
            Mutation::LongLease if self.nodes.len().is_multiple_of(2) => {
                self.settings.lease * 3 / 2
            }
            Mutation::NoTakeover => self.settings.lease * 10,
            _ => self.settings.lease,
        };
        let settings = LeaseSettings { lease, ..self.settings };
        self.nodes.push(Node::new(id, settings, rate, self.now));
        self.handle(self.nodes.len() - 1, LeaseInput::Tick);
    }

    /// The keeper may act before the driver of the lease does: what came meanwhile comes in any order.
    pub(super) fn resume(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.is_paused = false;
        node.healthy_since = self.now;
        let mut events = self.deferred.remove(&place).unwrap_or_default();
        let timer = Event::Timer(place, self.nodes[place].timer);
        let at = self.rng.usize(0..=events.len());
        events.insert(at, timer);
        events.into_iter().for_each(|event| self.at_the_node(place, event));
    }

    pub(super) fn settle(&mut self) {
        self.settled = true;
        self.happen(Event::Up);
        for place in 0..self.nodes.len() {
            self.nodes[place].is_cut_off = false;
            self.nodes[place].is_deaf = false;
            if self.nodes[place].is_paused {
                self.resume(place);
            }
        }
        if !self.nodes.iter().any(Node::is_healthy) {
            self.join();
        }
    }
}
