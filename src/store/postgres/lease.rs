//! Rows of nodes and slots: the requests of a node's lease, and what any node shows of all.
//!
//! A row that another transaction has locked is passed over: its change is tried again soon. So no request waits for the commits
//! of others, nor for a node that was stopped in the midst of a transaction.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};

use super::super::lease_rows::{
    LeaseFacts, LeaseRequest, LeaseStamp, NodeFact, NodeId, NodeIdentity, NodeStatus, Renewal,
    SlotFact,
};
use super::super::{Store, StoreError};
use super::Shared;
use super::premises::{self, Premises};
use super::schema::Schema;
use crate::ownership::{Epoch, Slot};

/// Time limit for the status of all nodes.
const LIMIT: Duration = Duration::from_secs(2);

/// A piece of SQL for slots that are named by their numbers and epochs, `$2` and `$3`.
struct SlotChange {
    condition: &'static str,
    change: &'static str,
}

const CLAIM: SlotChange = SlotChange {
    condition: "s.owner IS NULL OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = s.owner)",
    change: "owner = $1, epoch = slots.epoch + 1, heir = NULL, ready = FALSE",
};
const MARK: SlotChange = SlotChange {
    condition: "s.heir IS NULL
        OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = s.heir AND NOT n.leaving)",
    change: "heir = $1, ready = FALSE",
};
const READY: SlotChange = SlotChange { condition: "s.heir = $1", change: "ready = TRUE" };
const GIVE: SlotChange = SlotChange { condition: "s.owner = $1", change: "owner = NULL" };

impl Store {
    /// Does a request of this node's lease as a whole, in at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database is away or late; then it may have been done all the same.
    pub(crate) async fn lease_request(
        &self,
        node: &NodeIdentity,
        request: &LeaseRequest,
        limit: Duration,
    ) -> Result<LeaseFacts, StoreError> {
        let shared = self.shared()?;
        self.lease_session(limit, async |client| run(client, shared, node, request).await).await
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, StoreError> {
        let rows = self.lease_session(LIMIT, async |client| {
            client
                .query(
                    "SELECT n.id, n.name, n.program, n.leaving, n.facts,
                         (SELECT count(*) FROM slots s WHERE s.owner = n.id),
                         CAST(extract(epoch FROM n.lease_until - clock_timestamp()) * 1000000 AS BIGINT)
                     FROM nodes n ORDER BY n.name, n.id",
                    &[],
                )
                .await
                .map_err(StoreError::from)
        });
        rows.await?.iter().map(|row| Ok(status(row)?)).collect()
    }

    /// Uses the connection of the lease. One that is late is given up: the next one may be better.
    async fn lease_session<T>(
        &self,
        limit: Duration,
        run: impl AsyncFnOnce(&mut Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let session = self.shared()?.listener.session().await?;
        let query = async { run(&mut *session.client.lock().await).await };
        match timeout(limit, query).await {
            Ok(found) => found,
            Err(_) => {
                session.discard();
                Err(StoreError::Unavailable("no answer in time".into()))
            }
        }
    }
}

async fn run(
    client: &mut Client,
    shared: &Shared,
    node: &NodeIdentity,
    request: &LeaseRequest,
) -> Result<LeaseFacts, StoreError> {
    let transaction = client.transaction().await?;
    let is_news = match request {
        LeaseRequest::Renew(renewal) => renew(&transaction, shared, node, renewal).await?,
        LeaseRequest::Release => release(&transaction, node.id).await?,
    };
    if is_news {
        let event = "INSERT INTO events (node, kind) VALUES ($1, 'slots')";
        transaction.execute(event, &[&node.id.0]).await?;
        transaction.batch_execute("NOTIFY deltapush").await?;
    }
    let facts = facts(&transaction).await?;
    transaction.commit().await?;
    Ok(facts)
}

/// Reports if it changed anything that other nodes wait for.
async fn renew(
    transaction: &Transaction<'_>,
    shared: &Shared,
    node: &NodeIdentity,
    renewal: &Renewal,
) -> Result<bool, StoreError> {
    let known = if renewal.join {
        join(transaction, shared.schema, node).await?;
        None
    } else {
        match extend(transaction, node, renewal.leaving).await? {
            // Other nodes took this one for dead.
            None => return Ok(false),
            known => known,
        }
    };
    hold(transaction, &shared.premises).await?;
    let buried = bury(transaction, &renewal.bury).await?;
    let claimed = change(transaction, node.id, &CLAIM, &renewal.claim).await?;
    change(transaction, node.id, &MARK, &renewal.mark).await?;
    let ready = change(transaction, node.id, &READY, &renewal.ready).await?;
    let given = change(transaction, node.id, &GIVE, &renewal.give).await?;
    Ok(known != Some(renewal.leaving) || buried + claimed + ready + given > 0)
}

async fn join(
    transaction: &Transaction<'_>,
    schema: Schema,
    node: &NodeIdentity,
) -> Result<(), Error> {
    let (oldest, newest) = schema.range();
    transaction
        .execute(
            "INSERT INTO nodes (id, name, program, schema_min, schema_max, lease_until)
             VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6))
             ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until, leaving = FALSE",
            &[
                &node.id.0,
                &node.name,
                &env!("CARGO_PKG_VERSION"),
                &oldest,
                &newest,
                &node.lease.as_secs_f64(),
            ],
        )
        .await?;
    Ok(())
}

/// Makes sure that the node works with the state as it is.
async fn hold(transaction: &Transaction<'_>, premises: &Premises) -> Result<(), StoreError> {
    let statement = premises::CHANGED.replace('?', "$");
    let row = transaction.query_opt(&statement, &[&premises.key_check, &premises.known]).await?;
    premises::outdated(row.map(|row| row.try_get(0)).transpose()?)
}

/// Renews the row. Returns if the node was leaving before, or nothing if it has no row.
async fn extend(
    transaction: &Transaction<'_>,
    node: &NodeIdentity,
    leaving: bool,
) -> Result<Option<bool>, Error> {
    let facts = serde_json::json!({ "latency_us": node.latency() }).to_string();
    let row = transaction
        .query_opt(
            "UPDATE nodes SET lease_until = clock_timestamp() + make_interval(secs => $2),
                 leaving = $3, facts = $4
             FROM nodes before WHERE nodes.id = $1 AND before.id = nodes.id
             RETURNING before.leaving",
            &[&node.id.0, &node.lease.as_secs_f64(), &leaving, &facts],
        )
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Deletes the rows of dead nodes that have not been renewed since they were seen.
async fn bury(transaction: &Transaction<'_>, dead: &[(NodeId, LeaseStamp)]) -> Result<u64, Error> {
    if dead.is_empty() {
        return Ok(0);
    }
    let (ids, stamps): (Vec<i64>, Vec<i64>) =
        dead.iter().map(|(node, stamp)| (node.0, stamp.0)).unzip();
    let statement = "DELETE FROM nodes WHERE id IN (
             SELECT n.id FROM nodes n
             JOIN unnest($1::BIGINT[], $2::BIGINT[]) AS dead (id, stamp) ON dead.id = n.id
             WHERE CAST(extract(epoch FROM n.lease_until) * 1000000 AS BIGINT) = dead.stamp
             FOR UPDATE OF n SKIP LOCKED)";
    transaction.execute(statement, &[&ids, &stamps]).await
}

/// Changes those of the slots that are still in their epochs. Returns their number.
async fn change(
    transaction: &Transaction<'_>,
    me: NodeId,
    change: &SlotChange,
    slots: &[(Slot, Epoch)],
) -> Result<u64, Error> {
    if slots.is_empty() {
        return Ok(0);
    }
    let (numbers, epochs): (Vec<i64>, Vec<i64>) =
        slots.iter().map(|(slot, epoch)| (i64::from(slot.number()), epoch.0)).unzip();
    let SlotChange { condition, change } = change;
    let statement = format!(
        "WITH free AS (
             SELECT s.slot FROM slots s
             JOIN unnest($2::BIGINT[], $3::BIGINT[]) AS wanted (slot, epoch)
                 ON wanted.slot = s.slot AND wanted.epoch = s.epoch
             WHERE ({condition}) AND $1::BIGINT IS NOT NULL
             FOR UPDATE OF s SKIP LOCKED)
         UPDATE slots SET {change} FROM free WHERE slots.slot = free.slot"
    );
    let values: [&(dyn ToSql + Sync); 3] = [&me.0, &numbers, &epochs];
    transaction.execute(&statement, &values).await
}

async fn release(transaction: &Transaction<'_>, me: NodeId) -> Result<bool, Error> {
    transaction.execute("UPDATE slots SET owner = NULL WHERE owner = $1", &[&me.0]).await?;
    Ok(transaction.execute("DELETE FROM nodes WHERE id = $1", &[&me.0]).await? > 0)
}

async fn facts(transaction: &Transaction<'_>) -> Result<LeaseFacts, Error> {
    let nodes = transaction
        .query(
            "SELECT id, CAST(extract(epoch FROM lease_until) * 1000000 AS BIGINT),
                 CAST(extract(epoch FROM lease_until - clock_timestamp()) * 1000000 AS BIGINT),
                 leaving
             FROM nodes",
            &[],
        )
        .await?;
    let slots = "SELECT slot, owner, epoch, heir, ready FROM slots ORDER BY slot";
    let slots = transaction.query(slots, &[]).await?;
    let slots = slots.iter().filter_map(|row| slot(row).transpose());
    Ok(LeaseFacts {
        nodes: nodes.iter().map(node).collect::<Result<_, _>>()?,
        slots: slots.collect::<Result<_, _>>()?,
    })
}

fn node(row: &Row) -> Result<NodeFact, Error> {
    Ok(NodeFact {
        id: NodeId(row.try_get(0)?),
        stamp: LeaseStamp(row.try_get(1)?),
        left: microseconds(row.try_get(2)?),
        leaving: row.try_get(3)?,
    })
}

/// Nothing for a slot that this version does not know.
fn slot(row: &Row) -> Result<Option<SlotFact>, Error> {
    let Some(slot) = Slot::new(row.try_get(0)?) else { return Ok(None) };
    let node = |column| Ok::<_, Error>(row.try_get::<_, Option<i64>>(column)?.map(NodeId));
    let (owner, heir) = (node(1)?, node(3)?);
    Ok(Some(SlotFact { slot, owner, epoch: Epoch(row.try_get(2)?), heir, ready: row.try_get(4)? }))
}

fn status(row: &Row) -> Result<NodeStatus, Error> {
    let facts: serde_json::Value = serde_json::from_str(row.try_get(4)?).unwrap_or_default();
    let latency = facts.get("latency_us").and_then(serde_json::Value::as_u64);
    Ok(NodeStatus {
        id: NodeId(row.try_get(0)?),
        name: row.try_get(1)?,
        program: row.try_get(2)?,
        is_leaving: row.try_get(3)?,
        slots: usize::try_from(row.try_get::<_, i64>(5)?).unwrap_or_default(),
        lease_left: microseconds(row.try_get(6)?),
        database_latency: latency.map(Duration::from_micros),
    })
}

/// Zero for a time in the past.
fn microseconds(number: i64) -> Duration {
    Duration::from_micros(u64::try_from(number).unwrap_or_default())
}
