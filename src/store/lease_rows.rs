//! Nodes and slots, as the database has them, and what the request of a node's lease changes in them.

use std::time::Duration;

use super::UnixTime;
use super::node_facts::NodeFacts;
use crate::ownership::{Epoch, Slot};

/// A run of a process: its number is drawn at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i64);

/// This node, as its row shows it.
#[derive(Debug, Clone)]
pub(crate) struct NodeIdentity {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// Time from a renewal to the end of the lease.
    pub(crate) lease: Duration,
}

/// A node that has a row, as any node shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The run of its process.
    pub id: NodeId,
    /// Its `node.name`.
    pub name: String,
    /// Version of deltapush.
    pub program: String,
    /// When it joined, by the database's clock.
    pub started: UnixTime,
    /// Time until its lease ends, by the database's clock; zero if it has ended.
    pub lease_left: Duration,
    /// True if others inherit its slots.
    pub is_leaving: bool,
    /// Its own report.
    pub facts: NodeFacts,
}

/// A node that has no row any more, and has not come back under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedNode {
    /// The run of its process.
    pub id: NodeId,
    /// Its `node.name`.
    pub name: String,
    /// When its lease ended, or when it left, by the database's clock.
    pub ended: UnixTime,
    /// True if its lease ended; false if it left.
    pub has_died: bool,
    /// The nodes that own its slots now, with the number of these; `None` for slots that nobody owns at the moment.
    pub successors: Vec<(Option<NodeId>, usize)>,
}

/// The answer to a request, and the rows that people are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaseAnswer {
    pub(crate) facts: LeaseFacts,
    /// By name.
    pub(crate) nodes: Vec<NodeStatus>,
    /// The latest first.
    pub(crate) ended: Vec<EndedNode>,
}

/// Tells one renewal of a node from the next. The database's time of the end of the lease, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseStamp(pub(crate) i64);

/// A row of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeFact {
    pub(crate) id: NodeId,
    pub(crate) stamp: LeaseStamp,
    /// Time until the lease ends, by the database's clock; zero if it has ended.
    pub(crate) left: Duration,
    /// True if others should inherit its slots.
    pub(crate) leaving: bool,
}

/// A row of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotFact {
    pub(crate) slot: Slot,
    pub(crate) owner: Option<NodeId>,
    pub(crate) epoch: Epoch,
    /// The node that prepares to own it.
    pub(crate) heir: Option<NodeId>,
    /// True if the heir is prepared.
    pub(crate) ready: bool,
}

/// All rows, after the request was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaseFacts {
    pub(crate) nodes: Vec<NodeFact>,
    /// In the order of their numbers.
    pub(crate) slots: Vec<SlotFact>,
}

/// A request, done as a whole or not at all. Its answer is [`LeaseFacts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseRequest {
    /// Renew the lease.
    Renew(Renewal),
    /// Give up all slots, delete this node's row.
    Release,
}

/// The changes of a renewal. Nothing else is done if this node's row is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Renewal {
    /// Make this node's row if there is none.
    pub(crate) join: bool,
    /// Others should inherit.
    pub(crate) leaving: bool,
    /// Rows of dead nodes to delete, if they have not been renewed since.
    pub(crate) bury: Vec<(NodeId, LeaseStamp)>,
    /// Slots to own, in the next epoch: if the epoch is still this one, and there is no owner, or its row is gone.
    pub(crate) claim: Vec<(Slot, Epoch)>,
    /// Slots to be the heir of: if the epoch is still this one, and there is no other heir that stays.
    pub(crate) mark: Vec<(Slot, Epoch)>,
    /// Slots whose heir this node is, and now prepared: if the epoch is still this one.
    pub(crate) ready: Vec<(Slot, Epoch)>,
    /// Slots to own no longer: if the epoch is still this one. It stays: nobody else has commits in it.
    pub(crate) give: Vec<(Slot, Epoch)>,
}

impl Renewal {
    /// Reports if it changes anything that an earlier answer calls for.
    pub(crate) fn is_needed(&self) -> bool {
        let slots = [&self.claim, &self.mark, &self.ready, &self.give];
        !self.bury.is_empty() || slots.iter().any(|slots| !slots.is_empty())
    }
}
