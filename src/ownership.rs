//! Ownership of accounts where several nodes share one state: which of them this node may work for.
//!
//! Accounts are dealt into [`SLOTS`] by a hash of their names. A slot has one owner at a time. The database numbers its owners
//! by an epoch, which each write for one of its accounts carries: a node that has lost a slot without knowing can change
//! nothing. A node without companions owns everything ([`Ownership::sole`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;

use crate::account::AccountId;
use crate::clock;

/// Number of slots: with a hundred nodes, each has ten.
pub const SLOTS: u16 = 1024;

/// A share of all accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of an account. The same in all versions: the database has it in each account's row.
    #[must_use]
    pub fn of(account: &AccountId) -> Self {
        let names = [account.user.as_bytes(), account.upstream.as_bytes()].join(&0);
        let hash = digest(&SHA256, &names);
        let first =
            hash.as_ref().iter().take(2).fold(0, |hash: u16, byte| hash << 8 | u16::from(*byte));
        Self(first % SLOTS)
    }

    /// The slot with this number, if there is one.
    #[must_use]
    pub fn new(number: i64) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| *number < SLOTS).map(Self)
    }

    /// Its number, from zero.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// All slots.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }
}

/// Numbers the owners of a slot, upwards from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// The slots that this node owns, as far as it knows. Clones are handles of the same.
#[derive(Debug, Clone)]
pub struct Ownership(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    /// The epoch of each slot that is owned, and zero for the others.
    epochs: [AtomicI64; SLOTS as usize],
    /// When the lease ends, in microseconds after `start`. A process that was stopped, or whose machine was suspended, may go on
    /// long after, and begin a POST before the driver of the lease can revoke anything.
    held: AtomicU64,
    start: Instant,
    /// Changes with each slot that is gained or lost.
    changes: watch::Sender<u64>,
    /// Number of living nodes, this one included.
    nodes: AtomicUsize,
}

impl Ownership {
    /// Of a node without companions, which owns everything.
    #[must_use]
    pub fn sole() -> Self {
        Self(None)
    }

    /// Of one node of several. It owns nothing yet.
    #[must_use]
    pub fn of_node() -> Self {
        let epochs = [const { AtomicI64::new(0) }; SLOTS as usize];
        let (changes, nodes) = (watch::Sender::new(0), AtomicUsize::new(1));
        let (held, start) = (AtomicU64::new(u64::MAX), clock::elsewhere());
        Self(Some(Arc::new(Shared { epochs, held, start, changes, nodes })))
    }

    /// Reports if the node has no companions.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.0.is_none()
    }

    /// Reports if the account belongs to this node.
    #[must_use]
    pub fn has(&self, account: &AccountId) -> bool {
        self.is_sole() || self.epoch(Slot::of(account)).is_some()
    }

    /// The epoch in which this node owns the slot, if it does.
    #[must_use]
    pub fn epoch(&self, slot: Slot) -> Option<Epoch> {
        let Some(shared) = &self.0 else { return Some(Epoch(0)) };
        let epoch = shared.epochs.get(usize::from(slot.0))?.load(Ordering::SeqCst);
        (epoch > 0 && shared.is_held()).then_some(Epoch(epoch))
    }

    /// From this time on the node owns nothing, unless the time is moved on. It also comes while the machine is suspended, as for
    /// other machines. Until it is set there is no such time.
    pub fn hold_until(&self, end: Instant) {
        let Some(shared) = &self.0 else { return };
        let after = end.saturating_duration_since(shared.start).as_micros();
        shared.held.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Number of living nodes, this one included: limits that hold for all of them are divided by it.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.0.as_ref().map_or(1, |shared| shared.nodes.load(Ordering::Relaxed))
    }

    /// So many nodes live from now on.
    pub fn set_nodes(&self, nodes: usize) {
        if let Some(shared) = &self.0 {
            shared.nodes.store(nodes.max(1), Ordering::Relaxed);
        }
    }

    /// The slots that this node owns.
    #[must_use]
    pub fn owned(&self) -> Vec<(Slot, Epoch)> {
        Slot::all().filter_map(|slot| Some((slot, self.epoch(slot)?))).collect()
    }

    /// The slot belongs to this node from now on, in this epoch.
    pub fn grant(&self, slot: Slot, epoch: Epoch) {
        self.set(slot, epoch.0);
    }

    /// The slot does not belong to this node any more.
    pub fn revoke(&self, slot: Slot) {
        self.set(slot, 0);
    }

    fn set(&self, slot: Slot, epoch: i64) {
        let Some(shared) = &self.0 else { return };
        if let Some(place) = shared.epochs.get(usize::from(slot.0)) {
            place.store(epoch, Ordering::SeqCst);
            shared.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    /// Waits until the account belongs to this node.
    pub async fn until_has(&self, account: &AccountId) {
        let Some(shared) = &self.0 else { return };
        let slot = Slot::of(account);
        // The sender is there as long as this is.
        let _ = shared.changes.subscribe().wait_for(|_| self.epoch(slot).is_some()).await;
    }
}

impl Shared {
    fn is_held(&self) -> bool {
        let held = self.held.load(Ordering::SeqCst);
        held == u64::MAX
            || clock::elsewhere().duration_since(self.start).as_micros() < u128::from(held)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn account(name: &str) -> AccountId {
        AccountId::new(name, "imap.example.org:993")
    }

    #[test]
    fn slot_of_an_account_is_the_same_in_all_versions() {
        let slots = ["alice", "bob", "carol"].map(|name| Slot::of(&account(name)).number());
        assert_eq!(slots, [948, 33, 867]);
    }

    #[test]
    fn accounts_are_dealt_evenly() {
        let mut counts = vec![0_u32; usize::from(SLOTS)];
        for number in 0..100 * u32::from(SLOTS) {
            counts[usize::from(Slot::of(&account(&number.to_string())).number())] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
        assert_eq!(Slot::new(i64::from(SLOTS)), None);
        assert_eq!(Slot::all().last(), Slot::new(i64::from(SLOTS) - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_ends_by_itself() {
        let (node, alice) = (Ownership::of_node(), account("alice"));
        node.grant(Slot::of(&alice), Epoch(1));
        node.hold_until(clock::elsewhere() + Duration::from_secs(9));
        tokio::time::advance(Duration::from_millis(8_999)).await;
        assert!(node.has(&alice));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!node.has(&alice) && node.owned().is_empty());
        node.hold_until(clock::elsewhere() + Duration::from_secs(9));
        assert!(node.has(&alice));
    }

    #[tokio::test]
    async fn account_is_waited_for() {
        let (sole, node, alice) = (Ownership::sole(), Ownership::of_node(), account("alice"));
        sole.until_has(&alice).await;
        assert!(sole.has(&alice) && !node.has(&alice));
        let slot = Slot::of(&alice);
        let other = Slot::all().find(|other| *other != slot).unwrap();
        let waiting = tokio::spawn({
            let (node, alice) = (node.clone(), alice.clone());
            async move { node.until_has(&alice).await }
        });
        node.grant(other, Epoch(3));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        node.grant(slot, Epoch(7));
        waiting.await.unwrap();
        assert_eq!(node.epoch(slot), Some(Epoch(7)));
        assert_eq!(node.owned().len(), 2);
        node.revoke(slot);
        assert_eq!((node.epoch(slot), node.owned()), (None, vec![(other, Epoch(3))]));
    }
}
