//! Membership of this node in the state that several nodes share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::SlotKeeper;
use super::lease::{LeaseFacts, LeaseRequest, LeaseSettings};
use super::membership::{LeaseDatabase, Membership};
use crate::ownership::Ownership;
use crate::store::lease_rows::NodeIdentity;
use crate::store::{EventLog, NodeId, Store, StoreError, StoredEvent};

/// Pause after the event log could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// A node, as people and the database call it.
#[derive(Debug, Clone)]
pub struct NodeName {
    /// The number that [`Store::open_postgres`] has; another one at each start.
    pub id: NodeId,
    /// Its `node.name`.
    pub name: String,
}

/// Makes this node a member of those that share the state, until it has left: it begins to leave when `leave` is cancelled, and
/// that takes half a minute at most.
///
/// # Errors
/// [`StoreError`] if the state is not shared.
pub async fn serve<K: SlotKeeper>(
    store: Store,
    node: NodeName,
    ownership: Ownership,
    keeper: Arc<K>,
    leave: CancellationToken,
) -> Result<(), StoreError> {
    let settings = LeaseSettings::default();
    let changed = Arc::new(Notify::new());
    let follow = follow(store.event_log()?, Arc::clone(&changed));
    let identity = NodeIdentity::new(node.id, node.name, settings.lease);
    let database = Arc::new(SharedRows { store, identity, limit: settings.limit });
    let member =
        Membership::serve((node.id, settings), database, ownership, keeper, changed, leave);
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
}

impl LeaseDatabase for SharedRows {
    async fn request(&self, _: NodeId, request: &LeaseRequest) -> Result<LeaseFacts, StoreError> {
        let begun = Instant::now();
        let facts = self.store.lease_request(&self.identity, request, self.limit).await?;
        self.identity.took(begun.elapsed());
        Ok(facts)
    }
}

/// Tells of each change of the rows by another node. One that is lost is seen at the next renewal.
async fn follow(mut log: EventLog, changed: Arc<Notify>) {
    loop {
        match log.read().await {
            Ok(events) => {
                if events.contains(&StoredEvent::Slots) {
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
