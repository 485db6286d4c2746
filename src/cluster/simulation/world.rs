//! Virtual time: events in order, faults, and the driver of each machine.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use fastrand::Rng;

use super::database::Database;
use super::faults::{self, Fault};
use super::ledger::{Counts, Ledger};
use super::node::Node;
use super::work::Work;
use super::{ENDS_AT, MILLISECOND, Mutation, SECOND, SETTLES_AT};
use crate::cluster::lease::{LeaseAction, LeaseFacts, LeaseInput, LeaseRequest, LeaseSettings};
use crate::machine::Machine;

/// Accounts, one in each slot.
const SLOTS: usize = 5;
/// Time between two looks at the owners.
const CHECKS_EVERY: u64 = 200 * MILLISECOND;

/// Something that happens, to the nth node of all that ever ran.
#[derive(Debug)]
pub(super) enum Event {
    Fault(Fault),
    /// A fault ends: the pause, the cut, the deafness of a node, the outage of the database.
    Resume(usize),
    Reconnect(usize),
    Hear(usize),
    Up,
    /// Something came that was on its way for long.
    Slow,
    /// All faults end.
    Settle,
    /// The machine's deadline, if the timer still counts.
    Timer(usize, u64),
    /// A request comes to the database.
    Request(usize, u64, LeaseRequest),
    Answer(usize, u64, LeaseFacts),
    /// The time limit of a request is over, or its connection was refused.
    Failed(usize, u64),
    Notification(usize),
    Work(usize, Work),
    /// A message arrives in a mailbox.
    Message(usize),
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    pub(super) sequence: u64,
    pub(super) nodes: Vec<Node>,
    /// Inputs for a node that came while it was paused.
    pub(super) deferred: BTreeMap<usize, Vec<Event>>,
    pub(super) database: Database,
    /// Since when the database works, if it does.
    pub(super) database_since: Option<u64>,
    /// Number of messages of each account.
    pub(super) mailboxes: Vec<u64>,
    pub(super) ledger: Ledger,
    pub(super) settings: LeaseSettings,
    pub(super) mutation: Mutation,
    /// Faults that come at any time are over.
    pub(super) settled: bool,
    /// When owners are looked at next.
    checks_at: u64,
    prints: bool,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Mutation) -> Self {
        let real = LeaseSettings { portion: 2, ..LeaseSettings::default() };
        let mut world = Self {
            now: 0,
            rng: Rng::with_seed(seed),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            deferred: BTreeMap::new(),
            database: Database::new(SLOTS, real.lease, mutation),
            database_since: Some(0),
            mailboxes: vec![0; SLOTS],
            ledger: Ledger::default(),
            settings: real,
            mutation,
            settled: false,
            checks_at: 0,
            prints: super::number("DELTAPUSH_SCHEDULES") == Some(1),
        };
        world.draw();
        world
    }

    fn draw(&mut self) {
        self.at(0, Event::Fault(Fault::Join));
        for (at, fault) in faults::draw(&mut self.rng) {
            self.at(at, Event::Fault(fault));
        }
        for _ in 0..self.rng.usize(5..15) {
            let (at, account) =
                (self.rng.u64(0..SETTLES_AT + 5 * SECOND), self.rng.usize(0..SLOTS));
            self.at(at, Event::Message(account));
        }
        self.at(SETTLES_AT, Event::Settle);
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.insert(self.sequence, event);
        self.queue.push(Reverse((time.max(self.now), self.sequence)));
    }

    pub(super) fn run(mut self) -> Result<Counts, String> {
        while let Some(Reverse((time, sequence))) = self.queue.pop() {
            if time > ENDS_AT || self.ledger.broken.is_some() {
                break;
            }
            self.now = time;
            if let Some(event) = self.events.remove(&sequence) {
                self.check_owners(matches!(event, Event::Fault(_)));
                self.happen(event);
            }
        }
        if self.ledger.broken.is_none() {
            self.ledger.check_end(&self.database, &self.mailboxes, &self.nodes, self.now);
        }
        let (at, counts) = (self.now / MILLISECOND, self.ledger.counts);
        self.ledger.broken.map_or(Ok(counts), |broken| Err(format!("at {at} ms, {broken}")))
    }

    /// Looks at what was until now, now and then, and before a fault ends it.
    fn check_owners(&mut self, always: bool) {
        if always || self.now >= self.checks_at {
            self.checks_at = self.now + CHECKS_EVERY;
            self.ledger.check_owners(&self.database, self.database_since, &self.nodes, self.now);
        }
    }

    /// Prints what happens, if one schedule is played alone.
    fn trace(&self, what: &dyn std::fmt::Debug) {
        if self.prints {
            println!("{:>9.3} s {what:?}", Duration::from_micros(self.now).as_secs_f64());
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        match &event {
            Event::Timer(..) => {}
            Event::Answer(place, number, _) => {
                self.trace(&format_args!("Answer({place}, {number})"))
            }
            event => self.trace(event),
        }
        match event {
            Event::Fault(fault) => self.fault(fault),
            Event::Resume(node) => self.resume(node),
            Event::Reconnect(node) => self.nodes[node].is_cut_off = false,
            Event::Hear(node) => self.nodes[node].is_deaf = false,
            Event::Up => self.database_since = self.database_since.or(Some(self.now)),
            Event::Slow => self.database_since = self.database_since.map(|_| self.now),
            Event::Settle => self.settle(),
            Event::Message(account) => self.message(account),
            Event::Request(node, number, request) => self.request(node, number, &request),
            Event::Work(node, work @ (Work::CommitArrives { .. } | Work::LoadArrives { .. })) => {
                self.at_the_database(node, work);
            }
            Event::Timer(node, _)
            | Event::Answer(node, ..)
            | Event::Failed(node, _)
            | Event::Notification(node)
            | Event::Work(node, _) => self.at_the_node(node, event),
        }
    }

    /// Something for a node, which waits while it is paused.
    pub(super) fn at_the_node(&mut self, place: usize, event: Event) {
        let node = &mut self.nodes[place];
        if !node.is_running {
            return;
        }
        if node.is_paused {
            return self.deferred.entry(place).or_default().push(event);
        }
        match event {
            Event::Timer(_, timer) if timer == node.timer => self.handle(place, LeaseInput::Tick),
            Event::Answer(_, number, facts) if node.request == Some(number) => {
                node.request = None;
                node.lost_in_a_row = 0;
                self.handle(place, LeaseInput::Answered(facts));
            }
            Event::Failed(_, number) if node.request == Some(number) => {
                node.request = None;
                node.healthy_since = self.now;
                self.handle(place, LeaseInput::Failed);
            }
            Event::Notification(_) => self.handle(place, LeaseInput::Notified),
            Event::Work(_, work) => self.work(place, work),
            _ => {}
        }
    }

    /// Hands the machine an input, and does what it asks for.
    pub(super) fn handle(&mut self, place: usize, input: LeaseInput) {
        let node = &mut self.nodes[place];
        let mut actions: Vec<LeaseAction> = Vec::new();
        let clock = node.clock(self.now);
        node.machine.handle(input, clock, &mut actions);
        for action in actions {
            self.trace(&(place, &action));
            match action {
                LeaseAction::Ask(request) => self.ask(place, request),
                LeaseAction::Hold(until) => self.nodes[place].hold = Some(until),
                LeaseAction::Share(nodes) => self.nodes[place].share = nodes,
                LeaseAction::Left => self.nodes[place].is_running = false,
                LeaseAction::Prepare(slots) => self.prepare(place, slots),
                LeaseAction::Take(slots) => self.take(place, &slots),
                LeaseAction::Settle(slots) => self.settle_posts(place, slots),
                LeaseAction::Drop(slots) => self.drop(place, &slots),
                LeaseAction::Lapse(slots) => self.lapse(place, &slots),
            }
        }
        let node = &mut self.nodes[place];
        node.timer += 1;
        if let Some(deadline) = node.machine.deadline() {
            let (at, timer) = (node.true_time(deadline), node.timer);
            self.at(at, Event::Timer(place, timer));
        }
    }
}
