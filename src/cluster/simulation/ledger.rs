//! The promises, checked after every event.

use std::collections::BTreeMap;

use super::SECOND;
use super::database::{Claimed, Database};
use super::node::Node;
use crate::cluster::lease::NodeId;
use crate::ownership::{Epoch, Slot};

/// Longest time of an account without an owner, while the database and one node at least work.
const BOUND: u64 = 15 * SECOND;

/// A POST as far as it is known whether its answer was written.
#[derive(Debug, Default)]
struct Posted {
    /// Messages up to this one were posted.
    posted: u64,
    /// Messages up to this one are known to be announced, on disk.
    written: u64,
}

/// Counts of a schedule.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) takeovers: u64,
    pub(super) handovers: u64,
    pub(super) refused: u64,
    pub(super) posts: u64,
    /// POSTs of messages that were posted before, whose answer was not written.
    pub(super) repeated: u64,
    /// Longest time of an account without an owner that counts, in microseconds.
    pub(super) longest: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    /// The node whose commits were accepted, by slot and epoch.
    accepted: BTreeMap<(Slot, Epoch), NodeId>,
    /// When a slot last had an owner that acts.
    covered: BTreeMap<Slot, u64>,
    posts: BTreeMap<Slot, Posted>,
    pub(super) counts: Counts,
    /// The first promise that was broken.
    pub(super) broken: Option<String>,
}

impl Ledger {
    fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// A commit was accepted.
    pub(super) fn accepted(&mut self, node: NodeId, slot: Slot, epoch: Epoch, database: &Database) {
        let first = *self.accepted.entry((slot, epoch)).or_insert(node);
        if first != node {
            self.fail(format!("{first:?} and {node:?} both changed {slot:?} in {epoch:?}"));
        }
        // A slot that is given keeps its epoch until the next owner claims it.
        if database.slot(slot).owner.is_some_and(|owner| owner != node) {
            self.fail(format!("{node:?} changed {slot:?}, which it does not own"));
        }
    }

    /// An owner works for a slot at this time.
    pub(super) fn takes(&mut self, slot: Slot, now: u64) {
        self.covered.insert(slot, now);
    }

    /// A fault befalls a node that acted until now: the bound for its slots counts from the last one.
    pub(super) fn befalls(&mut self, node: NodeId, database: &Database, now: u64) {
        let owned = database.slots().filter(|slot| database.slot(*slot).owner == Some(node));
        owned.for_each(|slot| self.takes(slot, now));
    }

    /// Owners changed.
    pub(super) fn claimed(&mut self, claimed: &[Claimed], by: NodeId, nodes: &[Node], now: u64) {
        for Claimed { slot, was_given } in claimed {
            self.covered.insert(*slot, now);
            self.counts.handovers += u64::from(*was_given);
            self.counts.takeovers += u64::from(!*was_given);
            let works =
                |node: &&Node| node.id != by && node.acts() && node.epoch(*slot, now).is_some();
            if let Some(other) = nodes.iter().find(works) {
                self.fail(format!("{by:?} took {slot:?} while {:?} worked for it", other.id));
            }
        }
    }

    /// A POST of the messages from `announced` to `message` begins, which the notification server will accept.
    pub(super) fn posts(&mut self, slot: Slot, announced: u64, message: u64) {
        let post = self.posts.entry(slot).or_default();
        self.counts.posts += 1;
        self.counts.repeated += u64::from(post.posted > announced);
        post.posted = post.posted.max(message);
        let written = post.written;
        if written > announced {
            self.fail(format!(
                "messages of {slot:?} up to {written} are posted again from {announced}"
            ));
        }
    }

    /// That messages are announced was written.
    pub(super) fn written(&mut self, slot: Slot, message: u64) {
        let post = self.posts.entry(slot).or_default();
        post.written = post.written.max(message);
    }

    /// Checks the time without an owner. `database_since`: since when the database works, if it does.
    pub(super) fn check_owners(
        &mut self,
        database: &Database,
        database_since: Option<u64>,
        nodes: &[Node],
        now: u64,
    ) {
        let healthy = nodes.iter().filter(|node| node.is_healthy());
        let node_since = healthy.map(|node| node.healthy_since).min();
        for slot in database.slots() {
            let epoch = database.slot(slot).epoch;
            let covers = |node: &Node| node.acts() && node.epoch(slot, now) == Some(epoch);
            let covered = self.covered.entry(slot).or_default();
            if nodes.iter().any(covers) {
                *covered = now;
                continue;
            }
            let (Some(database_since), Some(node_since)) = (database_since, node_since) else {
                continue;
            };
            let gap = now.saturating_sub(database_since.max(node_since).max(*covered));
            self.counts.longest = self.counts.longest.max(gap);
            if gap > BOUND {
                self.fail(format!("{slot:?} has no owner for {} ms", gap / 1000));
            }
        }
    }

    /// Checks the end, long after the last fault: every message was posted, every slot has an owner, the shares are equal.
    pub(super) fn check_end(
        &mut self,
        database: &Database,
        mailboxes: &[u64],
        nodes: &[Node],
        now: u64,
    ) {
        for (slot, messages) in database.slots().zip(mailboxes) {
            let posted = self.posts.get(&slot).map_or(0, |post| post.posted);
            if posted < *messages {
                self.fail(format!("{slot:?} has {messages} messages, and {posted} were posted"));
            }
        }
        let takers = || nodes.iter().filter(|node| node.is_healthy());
        let counts: Vec<usize> = takers()
            .map(|node| database.slots().filter(|slot| node.epoch(*slot, now).is_some()).count())
            .collect();
        let all = counts.iter().sum::<usize>() == database.slots().count();
        let even = counts
            .iter()
            .max()
            .zip(counts.iter().min())
            .is_some_and(|(most, least)| most - least <= 1);
        let share = takers().all(|node| node.share == counts.len());
        if !(all && even && share) {
            self.fail(format!("slots are dealt {counts:?} in the end"));
        }
    }
}

impl Counts {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            takeovers: self.takeovers + other.takeovers,
            handovers: self.handovers + other.handovers,
            refused: self.refused + other.refused,
            posts: self.posts + other.posts,
            repeated: self.repeated + other.repeated,
            longest: self.longest.max(other.longest),
        }
    }
}
