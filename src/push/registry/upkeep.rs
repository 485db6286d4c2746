//! What becomes of what was not seen for long.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Registry;

/// A token that no client has handed over for so long goes, and a mailbox that no client has idled in is forgotten. It is
/// deltapush's running time: neither a stepped wall clock nor an outage makes anything older.
pub const MAX_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// How often the running time is noted and what is too old goes. A kill loses less than this of the count.
const EVERY: Duration = Duration::from_secs(3600);

/// Keeps the registry free of what nobody uses any more, until `stop` is cancelled.
pub async fn upkeep(registry: Registry, stop: CancellationToken) {
    let mut hours = interval(EVERY);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(hours.tick()).await.is_some() {
        match registry.expire(MAX_AGE).await {
            Ok(0) => {}
            Ok(tokens) => tracing::info!(tokens, "tokens that no device has handed over for 90 days are removed"),
            Err(error) => tracing::debug!("tokens not seen for long are not removed yet: {error}"),
        }
    }
}
