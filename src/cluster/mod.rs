//! Several nodes that share one state: which slots of accounts each of them owns.
//!
//! Accounts are dealt into slots ([`crate::ownership`]). A node holds a lease, which the database's clock grants and which it
//! renews. While the lease holds, the node owns the slots that the database names as its own, and works for their accounts. A
//! node without companions (SQLite) has none of this.

mod calls;
#[cfg(test)]
mod calls_tests;
mod changes;
mod lease;
mod member;
mod membership;
#[cfg(test)]
mod membership_tests;
#[cfg(test)]
mod postgres_tests;
pub mod shared;
#[cfg(test)]
mod simulation;
mod takes;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod versions_tests;
mod view;

use std::future::Future;
use std::time::Duration;

pub use member::{NodeName, serve};
pub use view::{AccountOwner, ClusterStatus, ClusterView, DatabaseTrouble, SeenEnd, SeenNode};

pub use crate::store::{EndedNode, NodeCounts, NodeFacts, NodeId, NodeStatus};

use crate::ownership::Slot;
use crate::store::StoreError;

/// Time from a renewal of a node's lease to its end.
pub const LEASE: Duration = Duration::from_secs(9);

/// The work of a node for its slots. Called by the driver of the lease, in order. [`prepare`], [`settle`] and [`take`] run while
/// others are called: the slots of the first two may be taken or dropped meanwhile, a take of such slots is cancelled before.
///
/// [`prepare`]: SlotKeeper::prepare
/// [`settle`]: SlotKeeper::settle
/// [`take`]: SlotKeeper::take
pub trait SlotKeeper: Send + Sync + 'static {
    /// The slots are about to be prepared: their accounts may be loaded from now on, until the slots are dropped.
    fn want(&self, slots: &[Slot]);

    /// Loads the accounts of those of the slots that are still wanted and starts their watches, as standby. Returns when each
    /// watch waits in IDLE, or cannot (login refused, server down), or after 30 s.
    ///
    /// # Errors
    /// [`StoreError`] if the accounts cannot be loaded; nothing is prepared then.
    fn prepare(&self, slots: Vec<Slot>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The slots are owned: the [`Ownership`](crate::ownership::Ownership) was granted just before. Loads what was not
    /// prepared, and once more the positions and pending pushes of what was: the owner before has changed them. Takes up pending
    /// pushes and waiting news. Owned slots may be taken again, in the same epoch (after [`lapse`](SlotKeeper::lapse)) or in another.
    /// May be cancelled; one call at a time.
    ///
    /// # Errors
    /// [`StoreError`] if the accounts cannot be loaded; the driver calls again, as long as the slots are owned.
    fn take(&self, slots: Vec<Slot>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The slots are to be given to a node that is prepared for them, and are still owned. No POST of their tokens begins from
    /// now on. Returns when those in flight are answered and the answers written, or after 3 s; [`drop`](SlotKeeper::drop)
    /// follows, or [`take`](SlotKeeper::take).
    fn settle(&self, slots: Vec<Slot>) -> impl Future<Output = ()> + Send;

    /// The slots belong to others, or to nobody; the ownership was revoked just before. POSTs of their tokens leave the
    /// schedule, accounts leave (visitors stay). Also called for slots that were prepared and are not taken.
    fn drop(&self, slots: Vec<Slot>);

    /// The lease has lapsed; the ownership was revoked just before. No POSTs; watches stay as standby until the slots are taken
    /// or dropped.
    fn lapse(&self, slots: Vec<Slot>);

    /// Number of living nodes, this one included: shares of limits.
    fn share(&self, nodes: usize);
}
