//! Loads and commits of the keepers, on their way and at the database.

use super::SECOND;
use super::database::Change;
use super::work::{Outcome, Work};
use super::world::{Event, World};

impl World {
    /// Sends something to the database, which fails after two seconds if nothing comes back.
    pub(super) fn send(&mut self, place: usize, work: Work) {
        let failed = match &work {
            Work::LoadArrives { slot, epoch } => {
                Work::Loaded { slot: *slot, epoch: *epoch, row: None }
            }
            Work::CommitArrives { slot, epoch, change } => {
                let outcome = Outcome::Failed;
                Work::Committed { slot: *slot, epoch: *epoch, change: *change, outcome }
            }
            _ => return,
        };
        // A commit may wait for others in the database.
        let waits = self.rng.u8(0..50) == 0;
        let latency = if waits { self.rng.u64(0..15 * SECOND) } else { self.latency() };
        if self.is_reached(place) {
            self.at(self.now + latency, Event::Work(place, work));
        } else {
            self.at(self.now + 2 * SECOND, Event::Work(place, failed));
        }
    }

    /// A load or a commit at the database. What was sent is done, also if the node was killed or cut off since.
    pub(super) fn at_the_database(&mut self, place: usize, work: Work) {
        let id = self.nodes[place].id;
        let up = self.database_since.is_some();
        let answer = match work {
            Work::LoadArrives { slot, epoch } => {
                let row = up.then(|| self.database.account(slot));
                Work::Loaded { slot, epoch, row }
            }
            Work::CommitArrives { slot, epoch, change } => {
                let written = up && self.database.commit(slot, epoch, change);
                if written {
                    self.ledger.accepted(id, slot, epoch, &self.database);
                    if let Change::Announced(message) = change {
                        self.ledger.written(slot, message);
                    }
                }
                let is_lost = !self.is_reached(place);
                let outcome = match written {
                    _ if is_lost || !up => Outcome::Failed,
                    true => Outcome::Written,
                    false => Outcome::NotOwner,
                };
                self.ledger.counts.refused += u64::from(outcome == Outcome::NotOwner);
                Work::Committed { slot, epoch, change, outcome }
            }
            _ => return,
        };
        let latency = self.latency();
        self.at(self.now + latency, Event::Work(place, answer));
    }
}
