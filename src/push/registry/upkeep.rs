//! Expiry of tokens that no device has handed over for long.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Registry;

/// A token that no client has handed over for so long goes, and a mailbox that no client has idled in is forgotten. It is
/// deltapush's running time: neither a stepped wall clock nor an outage makes anything older.
pub const MAX_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Interval between writes of the running time and removals of old entries. A kill loses less than this of the count.
const EVERY: Duration = Duration::from_secs(3600);

/// Interval between attempts to write the state, while it cannot be written.
const CHECK: Duration = Duration::from_secs(5);

/// Keeps the registry free of what nobody uses any more, and finds out when the state can be written again, until `stop` is cancelled.
pub async fn upkeep(registry: Registry, stop: CancellationToken) {
    let mut hours = interval(EVERY);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = interval(CHECK);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hours.tick() => {}
            _ = checks.tick() => {
                if !registry.is_writable() {
                    registry.try_writing().await;
                }
                continue;
            }
        }
        let expired = tokio::select! {
            () = stop.cancelled() => return,
            expired = registry.expire(MAX_AGE) => expired,
        };
        match expired {
            Ok(0) => {}
            Ok(tokens) => {
                tracing::info!(tokens, "removed tokens that no device has handed over for 90 days")
            }
            Err(error) => tracing::debug!("cannot remove old tokens yet: {error}"),
        }
    }
}
