//! Slots for which there is work, as a set: each waits once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::ownership::Slot;

/// Slots that wait for one task. Clones are handles of the same.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotQueue(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    slots: Mutex<HashSet<Slot>>,
    added: Notify,
}

impl SlotQueue {
    pub(super) fn add(&self, slots: impl IntoIterator<Item = Slot>) {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner).extend(slots);
        self.0.added.notify_one();
    }

    /// Those that have been added since the last time, as soon as there are any.
    pub(super) async fn next(&self) -> HashSet<Slot> {
        loop {
            let slots =
                std::mem::take(&mut *self.0.slots.lock().unwrap_or_else(PoisonError::into_inner));
            if !slots.is_empty() {
                return slots;
            }
            self.0.added.notified().await;
        }
    }
}
