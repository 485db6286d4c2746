//! Lease: when this node renews it, which slots it takes, prepares, gives up, and how it leaves. A machine of the database's answers
//! and time.
//!
//! All requests are one kind: each renews this node's row, does what the machine asks for, and returns all rows of nodes and
//! slots. So each decision follows from the latest answer, and a request whose answer is lost needs no repair: the next answer
//! shows if it was done.
//!
//! **Own lease.** It counts from before its request was sent, less a margin. At its end the node owns nothing, whatever else waits.
//!
//! **Other nodes.** A node is dead if its row has not changed for a whole lease by this node's own clock (`sightings.rs`). The
//! clock of the database only makes that quicker: it tells how old the renewal was when it was first seen. Steps of that clock
//! kill nobody. Death is the deletion of the row, compare-and-set against the renewal that was seen: a node that renews in time
//! cannot be deleted, and one that was deleted cannot renew.
//!
//! **Slots.** Each living node computes the same deal from the same rows (`balance.rs`): equal shares, and only the surplus
//! moves. Slots without an owner that lives are claimed at once. Claims are compare-and-set by epoch: nodes that see different
//! rows cannot own one slot both. Slots of the living are never claimed. An heir marks itself in the row, prepares its watches, a
//! portion at a time, and tells the owner that it is ready. The owner ends its POSTs, gives the slot, and the heir claims it.

mod balance;
mod machine;
mod own;
mod plan;
mod sightings;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub(crate) use machine::LeaseMachine;

use crate::ownership::{Epoch, Slot};
pub(crate) use crate::store::lease_rows::{
    LeaseFacts, LeaseRequest, LeaseStamp, NodeFact, NodeId, Renewal, SlotFact,
};

/// Durations and limits of a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseSettings {
    /// Time from a renewal to the end of the lease.
    pub(crate) lease: Duration,
    /// The node stops so long before the end: clocks do not run at the same rate.
    pub(crate) margin: Duration,
    /// Time from one request to the next while nothing happens.
    pub(crate) renew: Duration,
    /// Shortest time between two requests.
    pub(crate) floor: Duration,
    /// Time from a failed request to the next, also counted from its beginning.
    pub(crate) retry: Duration,
    /// Time limit of a request.
    pub(crate) limit: Duration,
    /// Time without an owner after which any node claims a slot, not only the one that it was dealt to.
    pub(crate) grace: Duration,
    /// Longest preparation of a portion: the keeper's own limit and some more.
    pub(crate) prepare: Duration,
    /// Longest wait for POSTs in flight before a slot is given.
    pub(crate) settle: Duration,
    /// Longest time in which others inherit from a node that leaves.
    pub(crate) leave: Duration,
    /// Most slots that a node prepares at once: only so many are in motion.
    pub(crate) portion: usize,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            lease: crate::cluster::LEASE,
            margin: Duration::from_secs(1),
            renew: Duration::from_secs(3),
            floor: Duration::from_millis(200),
            retry: Duration::from_secs(1),
            limit: Duration::from_secs(2),
            grace: Duration::from_secs(1),
            prepare: Duration::from_secs(35),
            settle: Duration::from_secs(5),
            leave: Duration::from_secs(20),
            portion: 32,
        }
    }
}

/// Input of the machine.
#[derive(Debug)]
pub(crate) enum LeaseInput {
    /// Nothing but time.
    Tick,
    /// The answer to the request in flight.
    Answered(LeaseFacts),
    /// The request in flight failed, or its time limit is over. It may have been done all the same.
    Failed,
    /// Another node has changed rows of nodes or slots.
    Notified,
    /// The watches of these slots wait, or cannot.
    Prepared(Vec<Slot>),
    /// No POST for these slots is in flight.
    Settled(Vec<Slot>),
    /// The process is to end.
    Leave,
}

/// Work for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseAction {
    /// Send the request; its answer is an input. There is one in flight at most.
    Ask(LeaseRequest),
    /// Prepare the slots; the answer is [`LeaseInput::Prepared`].
    Prepare(Vec<Slot>),
    /// The lease is held until then: at this time the node owns nothing, also if nothing else comes of the machine before.
    Hold(Instant),
    /// The slots are owned.
    Take(Vec<(Slot, Epoch)>),
    /// The slots are still owned: begin no POST for them; the answer is [`LeaseInput::Settled`].
    Settle(Vec<Slot>),
    /// The slots are not owned, nor prepared.
    Drop(Vec<Slot>),
    /// The lease has lapsed: the slots are not owned.
    Lapse(Vec<Slot>),
    /// Number of living nodes, this one included.
    Share(usize),
    /// The node owns nothing and asks for nothing any more.
    Left,
}
