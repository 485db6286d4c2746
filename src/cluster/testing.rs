//! A keeper for tests: it keeps nothing, and remembers what it was called for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{NodeFacts, NodeId, NodeStatus, SlotKeeper};
use crate::ownership::Slot;
use crate::store::{StoreError, UnixTime};

/// A node that is well: `push-` and its number.
pub(crate) fn status_of(id: i64) -> NodeStatus {
    NodeStatus {
        id: NodeId(id),
        name: format!("push-{id}"),
        program: "0.1.0".to_owned(),
        started: UnixTime(1_764_000_000),
        lease_left: Duration::from_secs(8),
        is_leaving: false,
        facts: NodeFacts::default(),
    }
}

/// A call of a keeper's method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeeperCall {
    Prepare(Vec<Slot>),
    Take(Vec<Slot>),
    Settle(Vec<Slot>),
    Drop(Vec<Slot>),
    Lapse(Vec<Slot>),
    Share(usize),
}

/// Remembers its calls, and is ready at once.
#[derive(Debug, Default)]
pub(crate) struct RecordingKeeper {
    calls: Mutex<Vec<KeeperCall>>,
    is_faulty: bool,
}

impl RecordingKeeper {
    /// One that ends by a panic when it is to take slots.
    pub(crate) fn faulty() -> Self {
        Self { is_faulty: true, ..Self::default() }
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Vec<KeeperCall> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn record(&self, call: KeeperCall) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

impl SlotKeeper for RecordingKeeper {
    fn want(&self, _: &[Slot]) {}

    async fn prepare(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        self.record(KeeperCall::Prepare(slots));
        Ok(())
    }

    async fn take(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        assert!(!self.is_faulty, "a fault of the keeper");
        self.record(KeeperCall::Take(slots));
        Ok(())
    }

    async fn settle(&self, slots: Vec<Slot>) {
        self.record(KeeperCall::Settle(slots));
    }

    fn drop(&self, slots: Vec<Slot>) {
        self.record(KeeperCall::Drop(slots));
    }

    fn lapse(&self, slots: Vec<Slot>) {
        self.record(KeeperCall::Lapse(slots));
    }

    fn share(&self, nodes: usize) {
        self.record(KeeperCall::Share(nodes));
    }
}

#[tokio::test]
async fn keeper_remembers_its_calls() {
    let keeper = RecordingKeeper::default();
    let slots: Vec<Slot> = Slot::all().take(2).collect();
    keeper.prepare(slots.clone()).await.unwrap();
    keeper.take(slots.clone()).await.unwrap();
    keeper.settle(slots.clone()).await;
    keeper.lapse(slots.clone());
    keeper.drop(slots.clone());
    keeper.share(3);
    let expected = [
        KeeperCall::Prepare(slots.clone()),
        KeeperCall::Take(slots.clone()),
        KeeperCall::Settle(slots.clone()),
        KeeperCall::Lapse(slots.clone()),
        KeeperCall::Drop(slots),
        KeeperCall::Share(3),
    ];
    assert_eq!(keeper.calls(), expected);
    assert_eq!(keeper.calls(), []);
}
