//! Writes known logins to the state in batches: no login waits for the disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::fair_map::EntryOrigin;
use super::key::AdmissionKey;
use super::known::{KnownChanges, KnownEntry, KnownKind};
use super::login_limiter::LoginGate;
use crate::push::registry::Registry;
use crate::store::{KnownLogin, UnixTime, change};

/// Interval of the writes. A kill loses what was learned since.
const EVERY: Duration = Duration::from_secs(10);

/// Interval at which known logins of other nodes are read.
const OTHERS: Duration = Duration::from_secs(30);

/// Rows of other nodes may be written so late, by clocks that differ.
const LATE: Duration = Duration::from_secs(300);

/// Converts the rows of the state into entries.
#[must_use]
pub fn from_state(rows: &[KnownLogin], now: UnixTime) -> Vec<KnownEntry> {
    let entry = |row: &KnownLogin| KnownEntry {
        key: AdmissionKey(row.key),
        kind: if row.is_place { KnownKind::Place } else { KnownKind::Name },
        origin: EntryOrigin { network: row.network, upstream: row.upstream, is_open: row.is_open },
        age: row.seen.age(now),
    };
    rows.iter().map(entry).collect()
}

/// Keeps the state up to date until `stop` is cancelled.
pub async fn keep_known_logins(gate: Arc<LoginGate>, registry: Registry, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unwritten = KnownChanges::default();
    let mut learned = Instant::now();
    loop {
        let is_last = stop.run_until_cancelled(ticks.tick()).await.is_none();
        // A failed write is tried again alone, so that no more than one batch waits here.
        if unwritten.is_empty() {
            unwritten = gate.take_changes();
        }
        if !unwritten.is_empty() {
            match write(&registry, &unwritten).await {
                Ok(()) => unwritten = KnownChanges::default(),
                Err(error) => {
                    debug!("cannot store the known login names, tries again later: {error}")
                }
            }
        }
        if is_last {
            return;
        }
        if !registry.ownership().is_sole() && learned.elapsed() >= OTHERS {
            learned = Instant::now();
            learn(&gate, &registry).await;
        }
    }
}

/// Takes in the known logins of other nodes: a person who has logged in at one is known at all.
async fn learn(gate: &LoginGate, registry: &Registry) {
    let now = UnixTime::now();
    let since = now.before(OTHERS.saturating_add(LATE));
    match registry.store().known_logins_since(since).await {
        Ok(rows) => gate.learn(&from_state(&rows, now)),
        Err(error) => debug!("cannot read the login names that other nodes know: {error}"),
    }
}

async fn write(
    registry: &Registry,
    changes: &KnownChanges,
) -> Result<(), crate::store::StoreError> {
    let now = UnixTime::now();
    let row = |entry: &KnownEntry| KnownLogin {
        key: entry.key.0,
        is_place: entry.kind == KnownKind::Place,
        network: entry.origin.network,
        upstream: entry.origin.upstream,
        is_open: entry.origin.is_open,
        seen: UnixTime(
            now.0.saturating_sub(i64::try_from(entry.age.as_secs()).unwrap_or_default()),
        ),
    };
    let used = changes.used.iter().map(row).collect();
    let forgotten = changes.forgotten.iter().map(|key| key.0).collect();
    registry.commit(change::know_logins(used, forgotten, now)).await
}
