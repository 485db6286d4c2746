//! Nodes and slots, as the database has them, and what the request of a node's lease changes in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    /// Duration of the last request, in microseconds; zero before the first.
    latency: Arc<AtomicU64>,
}

impl NodeIdentity {
    pub(crate) fn new(id: NodeId, name: String, lease: Duration) -> Self {
        Self { id, name, lease, latency: Arc::default() }
    }

    /// A request took so long.
    pub(crate) fn took(&self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.latency.store(microseconds, Ordering::Relaxed);
    }

    pub(crate) fn latency(&self) -> Option<u64> {
        Some(self.latency.load(Ordering::Relaxed)).filter(|latency| *latency > 0)
    }
}

/// A node, as any node shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The run of its process.
    pub id: NodeId,
    /// Its `node.name`.
    pub name: String,
    /// Version of deltapush.
    pub program: String,
    /// Number of slots that it owns.
    pub slots: usize,
    /// Time until its lease ends, by the database's clock; zero if it has ended.
    pub lease_left: Duration,
    /// Duration of a request of its lease, lately.
    pub database_latency: Option<Duration>,
    /// True if others inherit its slots.
    pub is_leaving: bool,
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
