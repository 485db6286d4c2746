//! The shared state and its event log, as the store has them.

use super::SharedState;
use super::events::{EventLog, NodeEvent};
use crate::account::AccountId;
use crate::ownership::Slot;
use crate::store::{self, Loaded, Store, StoreError, StoredEvent, TokenPost};

impl SharedState for Store {
    async fn load_slots(&self, slots: &[Slot]) -> Result<Loaded, StoreError> {
        self.load_slots(slots).await
    }

    async fn pending(&self, slots: &[Slot]) -> Result<Loaded, StoreError> {
        self.pending(slots).await
    }

    async fn load_account(&self, account: &AccountId) -> Result<Loaded, StoreError> {
        self.load_account(account).await
    }

    async fn token_post(&self, token: &[u8]) -> Result<TokenPost, StoreError> {
        self.token_post(token).await
    }
}

/// The event log of the store.
pub struct StoredLog {
    log: store::EventLog,
    /// Called when a value that all nodes have in common is another one.
    shared_changed: Box<dyn Fn() + Send>,
}

impl StoredLog {
    /// Reads the log of the store; `shared_changed` is called when a value that all nodes have in common is another one. None if
    /// the state is not shared.
    #[must_use]
    pub fn new(store: &Store, shared_changed: impl Fn() + Send + 'static) -> Option<Self> {
        Some(Self { log: store.event_log().ok()?, shared_changed: Box::new(shared_changed) })
    }
}

impl EventLog for StoredLog {
    async fn changed(&mut self) {
        self.log.changed().await;
    }

    async fn read(&mut self) -> Result<Vec<NodeEvent>, StoreError> {
        let mut events = Vec::new();
        for event in self.log.read().await? {
            events.push(match event {
                StoredEvent::Account(account) => NodeEvent::Account(account),
                StoredEvent::Pending(token) => NodeEvent::Pending(token),
                StoredEvent::Fetches(account, fetch) => NodeEvent::Fetches(account, fetch),
                StoredEvent::Rewatch(account) => NodeEvent::Rewatch(account),
                StoredEvent::Yield(account) => NodeEvent::Yield(account),
                // The driver of the lease reads the log for itself.
                StoredEvent::Slots => continue,
                StoredEvent::Shared => {
                    (self.shared_changed)();
                    continue;
                }
            });
        }
        Ok(events)
    }
}
