//! Membership of this node in the state that several nodes share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::SlotKeeper;
use super::changes::NodeChange;
use super::lease::{LeaseFacts, LeaseRequest, LeaseSettings};
use super::membership::{LeaseDatabase, Membership};
use super::view::ClusterView;
use crate::ownership::Ownership;
use crate::store::lease_rows::NodeIdentity;
use crate::store::{NodeId, Store, StoreError};

/// A node, as people and the database call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName {
    /// The number that [`Store::open_postgres`] has; another one at each start.
    pub id: NodeId,
    /// Its `node.name`.
    pub name: String,
}

/// Makes the node of `view` a member of those that share the state, until it has left: it begins to leave when `leave` is
/// cancelled, and that takes half a minute at most. The view follows. The node's reader of the event log notifies `changed` when
/// another node has changed rows of slots; a change that it misses is seen at the next renewal.
pub async fn serve<K: SlotKeeper>(
    store: Store,
    view: ClusterView,
    ownership: Ownership,
    keeper: Arc<K>,
    changed: Arc<Notify>,
    leave: CancellationToken,
) {
    let settings = LeaseSettings::default();
    let NodeName { id, name } = view.me().clone();
    let identity = NodeIdentity { id, name, lease: settings.lease };
    let rows = SharedRows { store, identity, limit: settings.limit, view: view.clone() };
    let database = Arc::new(rows);
    Membership::serve((view, settings), database, ownership, keeper, changed, leave).await;
}

/// The rows in PostgreSQL.
struct SharedRows {
    store: Store,
    identity: NodeIdentity,
    limit: Duration,
    view: ClusterView,
}

impl LeaseDatabase for SharedRows {
    async fn request(&self, _: NodeId, request: &LeaseRequest) -> Result<LeaseFacts, StoreError> {
        let answer = self.store.lease_request(&self.identity, request, self.limit).await?;
        let facts = answer.facts.clone();
        self.view.saw(answer).iter().for_each(NodeChange::log);
        Ok(facts)
    }
}
