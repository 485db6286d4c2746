//! The work of the keepers: watches that see messages, commits that carry epochs, POSTs.

use super::database::{AccountRow, Change};
use super::world::{Event, World};
use super::{MILLISECOND, Mutation, SECOND};
use crate::cluster::lease::LeaseInput;
use crate::ownership::{Epoch, Slot};

/// An event in the work of a node.
#[derive(Debug)]
pub(super) enum Work {
    /// The watches of the slots wait.
    Prepared(Vec<Slot>),
    /// The watch of a slot waits, and sees what is there.
    Idle(Slot),
    /// The watch of a slot sees what is there.
    Sees(Slot),
    /// POSTs may have ended; or those that have not are waited for no longer.
    Settles,
    Settled,
    /// Try again what is to be done.
    Again(Slot),
    LoadArrives {
        slot: Slot,
        epoch: Epoch,
    },
    Loaded {
        slot: Slot,
        epoch: Epoch,
        row: Option<AccountRow>,
    },
    CommitArrives {
        slot: Slot,
        epoch: Epoch,
        change: Change,
    },
    Committed {
        slot: Slot,
        epoch: Epoch,
        change: Change,
        outcome: Outcome,
    },
    /// The notification server answered a POST, or did not.
    Answered {
        slot: Slot,
        epoch: Epoch,
        message: u64,
        accepted: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    NotOwner,
    Failed,
}

impl World {
    pub(super) fn message(&mut self, account: usize) {
        self.mailboxes[account] += 1;
        let slot = Slot::all().nth(account).unwrap();
        for place in 0..self.nodes.len() {
            if self.nodes[place].watches.get(&slot).is_some_and(|watch| watch.is_idle) {
                let delay = self.rng.u64(0..500 * MILLISECOND);
                self.at(self.now + delay, Event::Work(place, Work::Sees(slot)));
            }
        }
    }

    /// Starts the watches; one may take all the time there is.
    pub(super) fn prepare(&mut self, place: usize, slots: Vec<Slot>) {
        let mut last = self.now;
        for slot in &slots {
            last = last.max(self.watch(place, *slot));
        }
        let done = last.min(self.now + 30 * SECOND);
        self.at(done, Event::Work(place, Work::Prepared(slots)));
    }

    /// Starts the watch of a slot if there is none. Returns when it will wait.
    fn watch(&mut self, place: usize, slot: Slot) -> u64 {
        if self.nodes[place].watches.contains_key(&slot) {
            return self.now;
        }
        self.nodes[place].watches.entry(slot).or_default();
        let slow = self.rng.u8(0..20) == 0;
        let wait = if slow { 40 * SECOND } else { self.rng.u64(10 * MILLISECOND..3 * SECOND) };
        let wait = if self.now + wait > super::SETTLES_AT { wait.min(SECOND) } else { wait };
        self.at(self.now + wait, Event::Work(place, Work::Idle(slot)));
        self.now + wait
    }

    pub(super) fn take(&mut self, place: usize, slots: &[(Slot, Epoch)]) {
        for (slot, epoch) in slots {
            self.nodes[place].owned.insert(*slot, *epoch);
            if self.database.slot(*slot).epoch == *epoch {
                self.ledger.takes(*slot, self.now);
            }
            self.watch(place, *slot);
            self.nodes[place].settling.retain(|settling| settling != slot);
            let watch = self.nodes[place].watches.entry(*slot).or_default();
            watch.is_settling = false;
            if watch.epoch != Some(*epoch) {
                // Writes of another owner are not known.
                (watch.row, watch.is_committing, watch.is_loading) = (None, false, false);
                (watch.unwritten, watch.is_writing) = (None, false);
                watch.epoch = Some(*epoch);
            }
            self.go_on(place, *slot);
        }
    }

    /// Ends the POSTs of the slots.
    pub(super) fn settle_posts(&mut self, place: usize, slots: Vec<Slot>) {
        for slot in &slots {
            self.nodes[place].watches.entry(*slot).or_default().is_settling = true;
        }
        self.nodes[place].settling.extend(slots);
        self.at(self.now, Event::Work(place, Work::Settles));
        self.at(self.now + 3 * SECOND, Event::Work(place, Work::Settled));
    }

    /// Tells the machine of slots without a POST in flight, or of all.
    fn settled(&mut self, place: usize, all: bool) {
        let node = &mut self.nodes[place];
        let watches = &node.watches;
        let posts = |slot: &Slot| {
            watches.get(slot).is_some_and(|watch| watch.is_posting || watch.unwritten.is_some())
        };
        let settled: Vec<Slot> =
            node.settling.iter().copied().filter(|slot| all || !posts(slot)).collect();
        node.settling.retain(|slot| !settled.contains(slot));
        if !settled.is_empty() {
            self.handle(place, LeaseInput::Settled(settled));
        }
    }

    pub(super) fn drop(&mut self, place: usize, slots: &[Slot]) {
        for slot in slots {
            self.nodes[place].owned.remove(slot);
            self.nodes[place].watches.remove(slot);
        }
    }

    pub(super) fn lapse(&mut self, place: usize, slots: &[Slot]) {
        for slot in slots {
            self.nodes[place].owned.remove(slot);
        }
    }

    /// Inputs of a node that acts.
    pub(super) fn work(&mut self, place: usize, work: Work) {
        match work {
            Work::Prepared(slots) => self.handle(place, LeaseInput::Prepared(slots)),
            Work::Idle(slot) | Work::Sees(slot) => {
                let seen = self.mailboxes[usize::from(slot.number())];
                if let Some(watch) = self.nodes[place].watches.get_mut(&slot) {
                    watch.is_idle |= matches!(work, Work::Idle(_));
                    watch.seen = if watch.is_idle { seen } else { watch.seen };
                }
                self.go_on(place, slot);
            }
            Work::Settles => self.settled(place, false),
            Work::Settled => self.settled(place, true),
            Work::Again(slot) => {
                self.settled(place, false);
                self.go_on(place, slot);
            }
            Work::Loaded { slot, epoch, row } => self.loaded(place, slot, epoch, row),
            Work::Committed { slot, epoch, change, outcome } => {
                self.committed(place, slot, epoch, change, outcome);
            }
            Work::Answered { slot, epoch, message, accepted } => {
                self.answered(place, slot, epoch, message, accepted);
            }
            Work::LoadArrives { .. } | Work::CommitArrives { .. } => {}
        }
    }

    /// Does the next thing for a slot that is owned.
    fn go_on(&mut self, place: usize, slot: Slot) {
        let node = &mut self.nodes[place];
        let epoch = node.epoch(slot, self.now);
        let Some((epoch, watch)) = epoch.zip(node.watches.get_mut(&slot)) else { return };
        let Some(row) = watch.row else {
            if !std::mem::replace(&mut watch.is_loading, true) {
                self.send(place, Work::LoadArrives { slot, epoch });
            }
            return;
        };
        if watch.seen > row.position && !watch.is_committing {
            watch.is_committing = true;
            let change = Change::Noticed(watch.seen);
            self.send(place, Work::CommitArrives { slot, epoch, change });
        }
        let watch = self.nodes[place].watches.entry(slot).or_default();
        if let Some(message) = watch.unwritten.filter(|_| !watch.is_writing) {
            watch.is_writing = true;
            let change = Change::Announced(message);
            self.send(place, Work::CommitArrives { slot, epoch, change });
        }
        let watch = self.nodes[place].watches.entry(slot).or_default();
        if row.pending > row.announced && !watch.is_posting && !watch.is_settling {
            watch.is_posting = true;
            self.post(place, slot, epoch, row);
        }
    }

    fn loaded(&mut self, place: usize, slot: Slot, epoch: Epoch, row: Option<AccountRow>) {
        let forgets = self.mutation == Mutation::ForgetsMarks;
        let node = &mut self.nodes[place];
        let watch = node.watches.get_mut(&slot).filter(|watch| watch.epoch == Some(epoch));
        let Some(watch) = watch else { return };
        watch.is_loading = false;
        if watch.row.is_none() {
            watch.row = row.map(|row| AccountRow {
                announced: if forgets { row.pending } else { row.announced },
                ..row
            });
        }
        if row.is_some() { self.go_on(place, slot) } else { self.again(place, slot, SECOND) }
    }

    fn again(&mut self, place: usize, slot: Slot, wait: u64) {
        self.at(self.now + wait, Event::Work(place, Work::Again(slot)));
    }

    fn committed(
        &mut self,
        place: usize,
        slot: Slot,
        epoch: Epoch,
        change: Change,
        outcome: Outcome,
    ) {
        let node = &mut self.nodes[place];
        let Some(watch) = node.watches.get_mut(&slot) else { return };
        match change {
            Change::Noticed(_) => watch.is_committing = false,
            Change::Announced(_) => watch.is_writing = false,
        }
        let row = watch.row.as_mut().filter(|_| watch.epoch == Some(epoch));
        match (outcome, change, row) {
            (Outcome::Written, Change::Noticed(message), Some(row)) => {
                row.position = row.position.max(message);
                row.pending = row.pending.max(message);
            }
            (Outcome::Written, Change::Announced(message), _)
                if watch.unwritten == Some(message) =>
            {
                watch.unwritten = None;
            }
            _ => {}
        }
        let wait = if outcome == Outcome::Written { 0 } else { SECOND };
        self.again(place, slot, wait);
    }

    fn post(&mut self, place: usize, slot: Slot, epoch: Epoch, row: AccountRow) {
        let accepted = self.rng.u8(0..20) > 0;
        if accepted {
            self.ledger.posts(slot, row.announced, row.pending);
        }
        let wait = self.rng.u64(20 * MILLISECOND..SECOND);
        let answered = Work::Answered { slot, epoch, message: row.pending, accepted };
        self.at(self.now + wait, Event::Work(place, answered));
    }

    fn answered(&mut self, place: usize, slot: Slot, epoch: Epoch, message: u64, accepted: bool) {
        let Some(watch) = self.nodes[place].watches.get_mut(&slot) else { return };
        watch.is_posting = false;
        let row = watch.row.as_mut().filter(|_| watch.epoch == Some(epoch));
        if let Some(row) = row.filter(|_| accepted) {
            // Memory knows it from now on; the state as soon as it can be written.
            row.announced = message;
            watch.unwritten = Some(message);
        }
        self.again(place, slot, if accepted { 0 } else { SECOND });
    }
}
