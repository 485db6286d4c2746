//! Calls of the keeper, in order, on a task of its own.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use super::SlotKeeper;
use super::lease::LeaseInput;
use super::takes::Takes;
use crate::ownership::{Epoch, Ownership, Slot};

/// Length of the queue. A keeper that is so far behind holds the lease up: it is not renewed, and other nodes take over.
const QUEUE: usize = 256;

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
        // If the task has ended, the receiver of its inputs says so.
        let _ = self.queue.send(call).await;
    }

    /// Waits for the calls that are left, but for slots that could not be taken yet.
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
    // Both end with this function.
    let (mut takes, mut beside) = (Takes::new(keeper.as_ref(), &ownership), JoinSet::new());
    loop {
        let call = tokio::select! {
            // Takes begin before any later call.
            biased;
            () = takes.go_on() => continue,
            call = calls.recv() => call,
        };
        let Some(call) = call else { return };
        while beside.try_join_next().is_some() {}
        let (keeper, answers) = (Arc::clone(&keeper), answers.clone());
        match call {
            KeeperCall::Prepare(slots) => {
                // In order: a preparation that begins after its slots were dropped loads nothing.
                keeper.want(&slots);
                beside.spawn(async move {
                    if let Err(error) = keeper.prepare(slots.clone()).await {
                        // They are loaded again when they are taken.
                        warn!(slots = slots.len(), "accounts cannot be loaded ahead: {error}");
                    }
                    let _ = answers.send(LeaseInput::Prepared(slots)).await;
                });
            }
            KeeperCall::Settle(slots) => {
                // They are dropped next, or lapse.
                takes.withdraw(&slots);
                beside.spawn(async move {
                    keeper.settle(slots.clone()).await;
                    let _ = answers.send(LeaseInput::Settled(slots)).await;
                });
            }
            KeeperCall::Take(slots) => takes.add(slots),
            KeeperCall::Drop(slots) => {
                takes.withdraw(&slots);
                SlotKeeper::drop(keeper.as_ref(), slots);
            }
            KeeperCall::Lapse(slots) => {
                takes.withdraw(&slots);
                keeper.lapse(slots);
            }
            KeeperCall::Share(nodes) => keeper.share(nodes),
        }
    }
}
