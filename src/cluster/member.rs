//! Membership of this node in the state that several nodes share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::SlotKeeper;
use super::changes::NodeChange;
use super::lease::{LeaseFacts, LeaseRequest, LeaseSettings};
use super::membership::{LeaseDatabase, Membership};
use super::view::ClusterView;
use crate::ownership::Ownership;
use crate::store::lease_rows::NodeIdentity;
use crate::store::{EventLog, NodeId, Store, StoreError, StoredEvent};

/// Pause after the event log could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// A node, as people and the database call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName {
    /// The number that [`Store::open_postgres`] has; another one at each start.
    pub id: NodeId,
    /// Its `node.name`.
    pub name: String,
}

/// Makes the node of `view` a member of those that share the state, until it has left: it begins to leave when `leave` is
/// cancelled, and that takes half a minute at most. The view follows.
///
/// # Errors
/// [`StoreError`] if the state is not shared.
pub async fn serve<K: SlotKeeper>(
    store: Store,
    view: ClusterView,
    ownership: Ownership,
    keeper: Arc<K>,
    leave: CancellationToken,
) -> Result<(), StoreError> {
    let settings = LeaseSettings::default();
    let changed = Arc::new(Notify::new());
    let follow = follow(store.event_log()?, Arc::clone(&changed));
    let NodeName { id, name } = view.me().clone();
    let identity = NodeIdentity { id, name, lease: settings.lease };
    let rows = SharedRows { store, identity, limit: settings.limit, view: view.clone() };
    let database = Arc::new(rows);
    let member = Membership::serve((view, settings), database, ownership, keeper, changed, leave);
    tokio::select! {
        () = member => {}
        () = follow => {}
    }
    Ok(())
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

/// Tells of each change of the rows by another node. One that is lost is seen at the next renewal.
async fn follow(mut log: EventLog, changed: Arc<Notify>) {
    loop {
        match log.read().await {
            Ok(events) => {
                let are_news =
                    |event: &_| matches!(event, StoredEvent::Slots | StoredEvent::Rewound);
                if events.iter().any(are_news) {
                    changed.notify_one();
                }
            }
            Err(error) => {
                debug!("the event log cannot be read: {error}");
                sleep(PAUSE).await;
            }
        }
        log.changed().await;
    }
}
