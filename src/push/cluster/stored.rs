//! The shared state and its event log, as the store has them.

use super::SharedState;
use super::events::{EventLog, NodeEvent};
use crate::account::AccountId;
use crate::ownership::Slot;
use crate::store::{self, ForwardedFact, Loaded, Store, StoreError, StoredEvent, TokenPost};

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

    async fn forwarded(&self, slots: &[Slot]) -> Result<Vec<ForwardedFact>, StoreError> {
        self.forwarded(slots).await
    }

    async fn token_post(&self, token: &[u8]) -> Result<TokenPost, StoreError> {
        self.token_post(token).await
    }
}

/// The event log of the store.
pub struct StoredLog {
    log: store::EventLog,
    /// Called with events that concern no account in memory.
    others: Box<dyn Fn(OtherEvent) + Send>,
}

/// An event of another node that does not concern the accounts in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherEvent {
    /// A value that all nodes have in common is another one now.
    SharedChanged,
    /// A node asks the owner of the account what it has in memory; with the number of the question.
    Asked(AccountId, Vec<u8>),
    /// The answer to a question: its number, and a text.
    Answered(Vec<u8>),
}

impl StoredLog {
    /// Reads the log of the store; `others` is called with events that concern no account in memory, and must not block.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`] if the state is not shared.
    pub fn new(
        store: &Store,
        others: impl Fn(OtherEvent) + Send + 'static,
    ) -> Result<Self, StoreError> {
        Ok(Self { log: store.event_log()?, others: Box::new(others) })
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
                StoredEvent::Forwarded(account) => NodeEvent::Forwarded(account),
                // The driver of the lease reads the log for itself.
                StoredEvent::Slots => continue,
                StoredEvent::Shared => {
                    (self.others)(OtherEvent::SharedChanged);
                    continue;
                }
                StoredEvent::Ask(account, number) => {
                    (self.others)(OtherEvent::Asked(account, number));
                    continue;
                }
                StoredEvent::Answer(answer) => {
                    (self.others)(OtherEvent::Answered(answer));
                    continue;
                }
                StoredEvent::Rewound => {
                    (self.others)(OtherEvent::SharedChanged);
                    NodeEvent::Rewound
                }
            });
        }
        Ok(events)
    }
}
