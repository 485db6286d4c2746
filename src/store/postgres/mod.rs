//! The state in PostgreSQL, which several nodes share.
//!
//! Three connections: one writes, by the worker thread; one reads; one listens to notifications, and serves the node's lease.
//! A commit that only an account's owner may make carries the epoch of the account's slot ([`owned`], [`writes`]). Changes of
//! which other nodes have to hear are rows of the event log ([`events`]), written with the change itself.

mod backend;
mod check;
mod doubts;
mod events;
mod forwarded;
mod lease;
mod link;
mod loads;
mod log_rows;
mod offline;
mod open;
mod owned;
mod place;
mod posters;
mod premises;
mod reader;
mod rotate;
mod schema;
mod search;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod told;
mod unseen;
mod writes;

use std::sync::Arc;

use tokio::sync::watch;

use super::node_facts::OwnFacts;
use super::{StateChange, Store, StoreError};
pub use check::check_shared;
use doubts::Doubts;
pub use events::{EventLog, StoredEvent, tell};
pub use forwarded::{ForwardOutcome, ForwardedFact, forward, taken_in};
pub(super) use link::Session;
pub(super) use offline::{MissingTables, commit, offline};
pub(super) use owned::OwnedAccount;
pub use posters::TokenPost;
use premises::Premises;
use reader::Reader;
pub(super) use rotate::rotate_shared;
pub(super) use schema::Schema;
pub use search::FoundAccounts;
use told::LastTold;
pub(super) use writes::NodeWrites;

use crate::ownership::Ownership;

/// The parts of a store beside its worker, for several nodes that share the state.
pub(super) struct Shared {
    reader: Reader,
    /// Listens, and serves the lease.
    listener: link::Link,
    /// Counts what may be news.
    news: watch::Receiver<u64>,
    ownership: Ownership,
    node: i64,
    doubts: Arc<Doubts>,
    schema: Schema,
    premises: Arc<Premises>,
    /// This node's report on itself.
    own: OwnFacts,
    told: Arc<LastTold>,
}

impl Shared {
    pub(super) async fn read<T: Send + 'static>(
        &self,
        mut read: impl StateChange<T>,
    ) -> Result<T, StoreError> {
        self.reader.read(move |state| read(state)).await
    }

    /// The same by one statement, which needs no transaction.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        mut look: impl StateChange<T>,
    ) -> Result<T, StoreError> {
        self.reader.look(move |state| look(state)).await
    }
}

impl Store {
    /// Reports if several nodes share the state.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    fn shared(&self) -> Result<&Shared, StoreError> {
        // A bug: there is nothing to read of others' work.
        self.shared.as_deref().ok_or(StoreError::NotOwner)
    }
}
