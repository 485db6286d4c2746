//! Calls of a keeper whose takes wait or fail.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::SlotKeeper;
use super::calls::{KeeperCall, KeeperCalls};
use super::testing::{KeeperCall as Recorded, RecordingKeeper};
use crate::ownership::{Epoch, Ownership, Slot};
use crate::store::StoreError;

/// Remembers its calls. Takes wait while there is no permit, and fail with any of the bad slots.
struct SlowKeeper {
    calls: RecordingKeeper,
    permits: Semaphore,
    bad: Mutex<HashSet<Slot>>,
}

impl SlotKeeper for SlowKeeper {
    fn want(&self, slots: &[Slot]) {
        self.calls.want(slots);
    }

    async fn prepare(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        self.calls.prepare(slots).await
    }

    async fn take(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        self.calls.take(slots.clone()).await?;
        let _permit = self.permits.acquire().await;
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let is_bad = slots.iter().any(|slot| bad.contains(slot));
        if is_bad { Err(StoreError::NotWritten) } else { Ok(()) }
    }

    async fn settle(&self, slots: Vec<Slot>) {
        self.calls.settle(slots).await;
    }

    fn drop(&self, slots: Vec<Slot>) {
        SlotKeeper::drop(&self.calls, slots);
    }

    fn lapse(&self, slots: Vec<Slot>) {
        self.calls.lapse(slots);
    }

    fn share(&self, nodes: usize) {
        self.calls.share(nodes);
    }
}

struct Node {
    keeper: Arc<SlowKeeper>,
    ownership: Ownership,
    calls: KeeperCalls,
}

impl Node {
    fn start(permits: usize, bad: &[Slot]) -> Self {
        let (calls, permits) = (RecordingKeeper::default(), Semaphore::new(permits));
        let bad = Mutex::new(bad.iter().copied().collect());
        let keeper = Arc::new(SlowKeeper { calls, permits, bad });
        let ownership = Ownership::of_node();
        let (calls, _) = KeeperCalls::start(Arc::clone(&keeper), ownership.clone());
        Self { keeper, ownership, calls }
    }

    async fn take(&self, slots: &[Slot]) {
        slots.iter().for_each(|slot| self.ownership.grant(*slot, Epoch(1)));
        self.calls
            .push(KeeperCall::Take(slots.iter().map(|slot| (*slot, Epoch(1))).collect()))
            .await;
    }

    /// The calls of the keeper within this time.
    async fn calls(&self, millis: u64) -> Vec<Recorded> {
        sleep(Duration::from_millis(millis)).await;
        self.keeper.calls.calls()
    }
}

/// The slots of takes that succeed because this one is not among them.
fn taken_without(calls: &[Recorded], bad: Slot) -> Vec<Slot> {
    let taken = calls.iter().filter_map(|call| match call {
        Recorded::Take(slots) if !slots.contains(&bad) => Some(slots.clone()),
        _ => None,
    });
    taken.flatten().collect()
}

fn slots(from: usize, count: usize) -> Vec<Slot> {
    Slot::all().skip(from).take(count).collect()
}

#[tokio::test(start_paused = true)]
async fn failing_take_holds_up_no_other_call() {
    let (bad, others) = (slots(0, 1), slots(40, 2));
    let node = Node::start(1, &bad);
    node.take(&bad).await;
    assert_eq!(node.calls(1).await, [Recorded::Take(bad.clone())]);
    node.calls.push(KeeperCall::Drop(others.clone())).await;
    node.calls.push(KeeperCall::Settle(others.clone())).await;
    node.calls.push(KeeperCall::Share(3)).await;
    let expected =
        [Recorded::Drop(others.clone()), Recorded::Share(3), Recorded::Settle(others.clone())];
    assert_eq!(node.calls(1).await, expected);
    assert_eq!(node.calls(1000).await, [Recorded::Take(bad.clone())], "again after a second");
    node.take(&others).await;
    let mut taken = taken_without(&node.calls(5000).await, bad[0]);
    taken.sort();
    assert_eq!(taken, others);
    node.keeper.bad.lock().unwrap().clear();
    assert!(!node.calls(2000).await.is_empty());
    assert_eq!(node.calls(60_000).await, [], "all are taken");
}

#[tokio::test(start_paused = true)]
async fn slots_are_taken_although_others_cannot_be_loaded() {
    let (all, bad) = (slots(0, 100), slots(3, 1));
    let node = Node::start(1, &bad);
    node.take(&all).await;
    let calls = node.calls(30_000).await;
    assert_eq!(calls.first(), Some(&Recorded::Take(all.clone())));
    assert_eq!(taken_without(&calls, bad[0]).len(), 99, "each once");
    node.keeper.bad.lock().unwrap().clear();
    assert_eq!(node.calls(2000).await.last(), Some(&Recorded::Take(bad)));
    assert_eq!(node.calls(60_000).await, []);
    node.take(&all).await;
    assert_eq!(node.calls(1).await, [Recorded::Take(all)], "all at once again");
}

#[tokio::test(start_paused = true)]
async fn lost_slots_leave_the_take_under_way() {
    for lose in [KeeperCall::Drop, KeeperCall::Lapse, KeeperCall::Settle] {
        let node = Node::start(0, &[]);
        node.take(&slots(0, 3)).await;
        assert_eq!(node.calls(1).await, [Recorded::Take(slots(0, 3))]);
        let lost = slots(1, 1);
        node.calls.push(lose(lost.clone())).await;
        let calls = node.calls(1).await;
        let kept = Recorded::Take(vec![slots(0, 1)[0], slots(2, 1)[0]]);
        assert!(calls.len() == 2 && calls.contains(&kept), "{calls:?}");
        node.keeper.permits.add_permits(1);
        assert_eq!(node.calls(60_000).await, [], "it is made once");
        // They come back.
        node.take(&lost).await;
        assert_eq!(node.calls(1).await, [Recorded::Take(lost)]);
    }
}
