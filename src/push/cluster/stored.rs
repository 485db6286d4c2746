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

    async fn token_posts(&self, tokens: &[Vec<u8>]) -> Result<Vec<TokenPost>, StoreError> {
        self.token_posts(tokens).await
    }
}

/// The event log of the store: the one reader of a node, whose events go to all its parts.
pub struct StoredLog {
    log: store::EventLog,
    /// Called with events that concern no account in memory.
    others: Box<dyn Fn(OtherEvent) + Send>,
}

/// An event of another node that does not concern the accounts in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherEvent {
    /// Slots have other owners or heirs.
    SlotsChanged,
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
                StoredEvent::Slots => {
                    (self.others)(OtherEvent::SlotsChanged);
                    continue;
                }
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
                    (self.others)(OtherEvent::SlotsChanged);
                    (self.others)(OtherEvent::SharedChanged);
                    NodeEvent::Rewound
                }
            });
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::ownership::Ownership;
    use crate::store::change;
    use crate::store::postgres_testing::{Database, Version};

    async fn store(database: &Database, node: i64) -> Store {
        let settings = database.settings("seal.key");
        Version::Present.open(&settings, Ownership::of_node(), node, drop).await.unwrap()
    }

    #[tokio::test]
    async fn each_event_reaches_all_parts_of_the_node_that_need_it() {
        let database = Database::new();
        let (one, two) = (store(&database, 1).await, store(&database, 2).await);
        let others = Arc::<Mutex<Vec<OtherEvent>>>::default();
        let heard = Arc::clone(&others);
        let mut log = StoredLog::new(&two, move |event| heard.lock().unwrap().push(event)).unwrap();
        let others = || std::mem::take(&mut *others.lock().unwrap());
        assert_eq!(log.read().await.unwrap(), []);
        let account = AccountId::new("alice", "imap.example.org:993");
        for event in [
            StoredEvent::Slots,
            StoredEvent::Account(account.clone()),
            StoredEvent::Shared,
            StoredEvent::Answer(vec![1]),
        ] {
            one.commit(change::tell(event)).await.unwrap();
        }
        assert_eq!(log.read().await.unwrap(), [NodeEvent::Account(account)]);
        let expected =
            [OtherEvent::SlotsChanged, OtherEvent::SharedChanged, OtherEvent::Answered(vec![1])];
        assert_eq!(others(), expected);
        // The database loses what was read last.
        database.sql("DELETE FROM events");
        assert_eq!(log.read().await.unwrap(), [NodeEvent::Rewound]);
        assert_eq!(others(), [OtherEvent::SlotsChanged, OtherEvent::SharedChanged]);
    }
}
