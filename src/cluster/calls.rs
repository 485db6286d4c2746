//! Calls of the keeper, in order, on a task of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tracing::warn;

use super::SlotKeeper;
use super::lease::LeaseInput;
use crate::ownership::{Epoch, Ownership, Slot};

/// Length of the queue. A keeper that is so far behind holds the lease up: it is not renewed, and other nodes take over.
const QUEUE: usize = 256;
/// Pause after slots could not be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// A call of the keeper.
#[derive(Debug)]
pub(super) enum KeeperCall {
    Prepare(Vec<Slot>),
    Settle(Vec<Slot>),
    Take(Vec<(Slot, Epoch)>),
    Drop(Vec<Slot>),
    Lapse(Vec<Slot>),
    Share(usize),
}

/// The queue of calls.
pub(super) struct KeeperCalls {
    queue: mpsc::Sender<KeeperCall>,
    task: JoinHandle<()>,
}

impl KeeperCalls {
    /// Starts the task. What the machine is to know of the calls comes out of the receiver.
    pub(super) fn start<K: SlotKeeper>(
        keeper: Arc<K>,
        ownership: Ownership,
    ) -> (Self, mpsc::Receiver<LeaseInput>) {
        let (queue, calls) = mpsc::channel(QUEUE);
        let (answers, inputs) = mpsc::channel(QUEUE);
        let task = tokio::spawn(serve(keeper, ownership, calls, answers));
        (Self { queue, task }, inputs)
    }

    pub(super) async fn push(&self, call: KeeperCall) {
        // The task ends when this is dropped.
        let _ = self.queue.send(call).await;
    }

    /// Waits for the calls that are left.
    pub(super) async fn finish(self) {
        drop(self.queue);
        let _ = self.task.await;
    }
}

async fn serve<K: SlotKeeper>(
    keeper: Arc<K>,
    ownership: Ownership,
    mut calls: mpsc::Receiver<KeeperCall>,
    answers: mpsc::Sender<LeaseInput>,
) {
    // Ends with this function.
    let mut beside = JoinSet::new();
    while let Some(call) = calls.recv().await {
        while beside.try_join_next().is_some() {}
        let (keeper, answers) = (Arc::clone(&keeper), answers.clone());
        match call {
            KeeperCall::Prepare(slots) => {
                beside.spawn(async move {
                    if let Err(error) = keeper.prepare(slots.clone()).await {
                        // They are loaded again when they are taken.
                        warn!(slots = slots.len(), "accounts cannot be loaded ahead: {error}");
                    }
                    let _ = answers.send(LeaseInput::Prepared(slots)).await;
                });
            }
            KeeperCall::Settle(slots) => {
                beside.spawn(async move {
                    keeper.settle(slots.clone()).await;
                    let _ = answers.send(LeaseInput::Settled(slots)).await;
                });
            }
            KeeperCall::Take(slots) => take(keeper.as_ref(), &ownership, slots).await,
            KeeperCall::Drop(slots) => SlotKeeper::drop(keeper.as_ref(), slots),
            KeeperCall::Lapse(slots) => keeper.lapse(slots),
            KeeperCall::Share(nodes) => keeper.share(nodes),
        }
    }
}

/// Until it is done, or the slots are not owned any more.
async fn take<K: SlotKeeper>(keeper: &K, ownership: &Ownership, mut slots: Vec<(Slot, Epoch)>) {
    loop {
        slots.retain(|(slot, epoch)| ownership.epoch(*slot) == Some(*epoch));
        if slots.is_empty() {
            return;
        }
        match keeper.take(slots.iter().map(|(slot, _)| *slot).collect()).await {
            Ok(()) => return,
            Err(error) => {
                warn!(
                    slots = slots.len(),
                    "accounts cannot be loaded, and are tried again: {error}"
                );
                sleep(PAUSE).await;
            }
        }
    }
}
