//! Rows of nodes and slots: the requests of a node's lease, whose answers have what any node shows of all.
//!
//! A row that another transaction has locked is passed over: its change is tried again soon. So no request waits for the commits
//! of others, nor for a node that was stopped in the midst of a transaction.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};

use super::super::lease_rows::{
    EndedNode, LeaseAnswer, LeaseFacts, LeaseRequest, LeaseStamp, NodeFact, NodeId, NodeIdentity,
    NodeStatus, Renewal, SlotFact,
};
use super::super::node_facts::NodeCounts;
use super::super::{Store, StoreError, UnixTime};
use super::Shared;
use super::link::Session;
use super::premises::{self, Premises, changed};
use super::schema::Schema;
use crate::ownership::{Epoch, Slot};

/// A piece of SQL for slots that are named by their numbers and epochs, `$2` and `$3`.
struct SlotChange {
    condition: &'static str,
    change: &'static str,
}

const CLAIM: SlotChange = SlotChange {
    condition: "s.owner IS NULL OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = s.owner)",
    change: "owner = $1, epoch = slots.epoch + 1, heir = NULL, ready = FALSE,
        previous = coalesce(slots.owner, slots.previous), moved = clock_timestamp()",
};
const MARK: SlotChange = SlotChange {
    condition: "s.heir IS NULL
        OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = s.heir AND NOT n.leaving)",
    change: "heir = $1, ready = FALSE",
};
const READY: SlotChange = SlotChange { condition: "s.heir = $1", change: "ready = TRUE" };
const GIVE: SlotChange =
    SlotChange { condition: "s.owner = $1", change: "owner = NULL, previous = $1" };

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
    ) -> Result<LeaseAnswer, StoreError> {
        let shared = self.shared()?;
        let begun = Instant::now();
        let run = async |client: &mut Client, session: &Session| {
            let inner = client.transaction().await?;
            run(LeaseTransaction { inner, session }, shared, node, request).await
        };
        let answer = self.lease_session(limit, run).await;
        shared.own.renewed(begun.elapsed());
        answer
    }

    /// The accounts of this node, for its next reports to the others. Nothing where the state is not shared.
    pub fn report_counts(&self, counts: NodeCounts) {
        if let Some(shared) = &self.shared {
            shared.own.count(counts);
        }
    }

    /// Uses the connection of the lease. One that is late is given up: the next one may be better.
    async fn lease_session<T>(
        &self,
        limit: Duration,
        run: impl AsyncFnOnce(&mut Client, &Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let session = self.shared()?.listener.session().await?;
        let query = async { run(&mut *session.client.lock().await, &session).await };
        match timeout(limit, query).await {
            Ok(found) => found,
            Err(_) => {
                session.discard();
                Err(StoreError::Unavailable("no answer in time".into()))
            }
        }
    }
}

/// The transaction of a request. The statements of each renewal are prepared once.
struct LeaseTransaction<'a> {
    inner: Transaction<'a>,
    session: &'a Session,
}

impl LeaseTransaction<'_> {
    async fn query(
        &self,
        text: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = match self.session.prepared(text) {
            Some(known) => known,
            None => {
                let statement = self.inner.prepare(text).await?;
                self.session.keep_prepared(text, &statement);
                statement
            }
        };
        self.inner.query(&statement, values).await
    }
}

async fn run(
    transaction: LeaseTransaction<'_>,
    shared: &Shared,
    node: &NodeIdentity,
    request: &LeaseRequest,
) -> Result<LeaseAnswer, StoreError> {
    let is_news = match request {
        LeaseRequest::Renew(renewal) => renew(&transaction, shared, node, renewal).await?,
        LeaseRequest::Release => release(&transaction.inner, node.id).await?,
    };
    if is_news {
        let event = "INSERT INTO events (node, kind) VALUES ($1, 'slots')";
        transaction.inner.execute(event, &[&node.id.0]).await?;
        transaction.inner.batch_execute("NOTIFY deltapush").await?;
    }
    let answer = answer(&transaction).await?;
    transaction.inner.commit().await?;
    Ok(answer)
}

/// Reports if it changed anything that other nodes wait for.
async fn renew(
    transaction: &LeaseTransaction<'_>,
    shared: &Shared,
    node: &NodeIdentity,
    renewal: &Renewal,
) -> Result<bool, StoreError> {
    let known = if renewal.join {
        join(&transaction.inner, shared.schema, node).await?;
        hold(transaction, &shared.premises).await?;
        None
    } else {
        match extend(transaction, shared, node, renewal.leaving).await? {
            // Other nodes took this one for dead.
            None => return Ok(false),
            known => known,
        }
    };
    let transaction = &transaction.inner;
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
    // It is back.
    let old = "DELETE FROM ended_nodes
         WHERE name = $1 OR ended < clock_timestamp() - INTERVAL '1 day'";
    transaction.execute(old, &[&node.name]).await?;
    Ok(())
}

/// Makes sure that the node works with the state as it is.
async fn hold(transaction: &LeaseTransaction<'_>, premises: &Premises) -> Result<(), StoreError> {
    let rows =
        transaction.query(changed!("$1", "$2"), &[&premises.key_check, &premises.known]).await?;
    premises::outdated(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// Renews the row, and makes sure that the node works with the state as it is. Returns if the node was leaving before, or nothing
/// if it has no row.
async fn extend(
    transaction: &LeaseTransaction<'_>,
    shared: &Shared,
    node: &NodeIdentity,
    leaving: bool,
) -> Result<Option<bool>, StoreError> {
    // Numbers only: that cannot fail.
    let facts = serde_json::to_string(&shared.own.report()).unwrap_or_else(|_| "{}".to_owned());
    let Premises { key_check, known } = &*shared.premises;
    // A change of the premises locks `nodes`, and what the statement sees is from after its own lock.
    let rows = transaction
        .query(
            concat!(
                "UPDATE nodes SET lease_until = clock_timestamp() + make_interval(secs => $2),
                     leaving = $3, facts = $4
                 FROM nodes before WHERE nodes.id = $1 AND before.id = nodes.id
                 RETURNING before.leaving, (",
                changed!("$5", "$6"),
                ")"
            ),
            &[&node.id.0, &node.lease.as_secs_f64(), &leaving, &facts, key_check, known],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    premises::outdated(row.try_get(1)?)?;
    Ok(Some(row.try_get(0)?))
}

/// Deletes the rows of dead nodes that have not been renewed since they were seen. A day's dead are remembered, for people.
async fn bury(transaction: &Transaction<'_>, dead: &[(NodeId, LeaseStamp)]) -> Result<u64, Error> {
    if dead.is_empty() {
        return Ok(0);
    }
    let (ids, stamps): (Vec<i64>, Vec<i64>) =
        dead.iter().map(|(node, stamp)| (node.0, stamp.0)).unzip();
    let statement = "WITH buried AS (DELETE FROM nodes WHERE id IN (
             SELECT n.id FROM nodes n
             JOIN unnest($1::BIGINT[], $2::BIGINT[]) AS dead (id, stamp) ON dead.id = n.id
             WHERE CAST(extract(epoch FROM n.lease_until) * 1000000 AS BIGINT) = dead.stamp
             FOR UPDATE OF n SKIP LOCKED) RETURNING id, name, program, lease_until)
         INSERT INTO ended_nodes (id, name, program, ended, died)
         SELECT id, name, program, lease_until, TRUE FROM buried
         ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, died = TRUE";
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
    let give = "UPDATE slots SET owner = NULL, previous = owner WHERE owner = $1";
    transaction.execute(give, &[&me.0]).await?;
    let leave = "WITH left_now AS (DELETE FROM nodes WHERE id = $1 RETURNING id, name, program)
         INSERT INTO ended_nodes (id, name, program, ended, died)
         SELECT id, name, program, clock_timestamp(), FALSE FROM left_now
         ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, died = FALSE";
    Ok(transaction.execute(leave, &[&me.0]).await? > 0)
}

const NODES: &str = "SELECT id, CAST(extract(epoch FROM lease_until) * 1000000 AS BIGINT),
         CAST(extract(epoch FROM lease_until - clock_timestamp()) * 1000000 AS BIGINT), leaving,
         name, program, CAST(extract(epoch FROM started) AS BIGINT), facts,
         EXISTS (SELECT 1 FROM ended_nodes WHERE ended > clock_timestamp() - INTERVAL '1 day')
     FROM nodes ORDER BY name, id";

const SLOTS: &str = "SELECT slot, owner, epoch, heir, ready FROM slots ORDER BY slot";

/// Nodes that have ended within a day, with the owners of slots that they had until then. One that leaves gives them before.
const ENDED: &str =
    "SELECT e.id, e.name, CAST(extract(epoch FROM e.ended) AS BIGINT), e.died, s.owner, s.number
     FROM (SELECT * FROM ended_nodes e
           WHERE e.ended > clock_timestamp() - INTERVAL '1 day'
               AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.name = e.name)
           ORDER BY e.ended DESC LIMIT 16) e
     LEFT JOIN LATERAL (
         SELECT owner, count(*) AS number FROM slots
         WHERE previous = e.id
             AND moved > e.ended - CASE WHEN e.died THEN INTERVAL '0' ELSE INTERVAL '45 seconds' END
         GROUP BY owner) s ON TRUE
     ORDER BY e.ended DESC, e.id, s.number DESC";

async fn answer(transaction: &LeaseTransaction<'_>) -> Result<LeaseAnswer, Error> {
    // Together: they wait for one round trip, not for two.
    let (nodes, slots) =
        tokio::try_join!(transaction.query(NODES, &[]), transaction.query(SLOTS, &[]))?;
    let has_ended = nodes.first().map_or(Ok(true), |row| row.try_get(8))?;
    let ended = if has_ended { transaction.query(ENDED, &[]).await? } else { Vec::new() };
    let facts = LeaseFacts {
        nodes: nodes.iter().map(node).collect::<Result<_, _>>()?,
        slots: slots.iter().filter_map(|row| slot(row).transpose()).collect::<Result<_, _>>()?,
    };
    let mut answer = LeaseAnswer { facts, ..LeaseAnswer::default() };
    answer.nodes = nodes.iter().map(status).collect::<Result<_, _>>()?;
    ended.iter().try_for_each(|row| add_ended(row, &mut answer.ended))?;
    Ok(answer)
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
    Ok(NodeStatus {
        id: NodeId(row.try_get(0)?),
        lease_left: microseconds(row.try_get(2)?),
        is_leaving: row.try_get(3)?,
        name: row.try_get(4)?,
        program: row.try_get(5)?,
        started: UnixTime(row.try_get(6)?),
        // Those of another version may be of another form.
        facts: serde_json::from_str(row.try_get(7)?).unwrap_or_default(),
    })
}

/// Adds an owner of slots of a node that has ended.
fn add_ended(row: &Row, ended: &mut Vec<EndedNode>) -> Result<(), Error> {
    let id = NodeId(row.try_get(0)?);
    if ended.last().is_none_or(|last| last.id != id) {
        let (name, at, has_died) = (row.try_get(1)?, UnixTime(row.try_get(2)?), row.try_get(3)?);
        ended.push(EndedNode { id, name, ended: at, has_died, successors: Vec::new() });
    }
    let (owner, slots) =
        (row.try_get::<_, Option<i64>>(4)?.map(NodeId), row.try_get::<_, Option<i64>>(5)?);
    if let (Some(last), Some(slots)) = (ended.last_mut(), slots) {
        last.successors.push((owner, usize::try_from(slots).unwrap_or_default()));
    }
    Ok(())
}

/// Zero for a time in the past.
fn microseconds(number: i64) -> Duration {
    Duration::from_micros(u64::try_from(number).unwrap_or_default())
}
