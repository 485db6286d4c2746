//! The clock of the drivers of [machines](crate::machine): the runtime's, which tests may stop.

use std::time::Instant;

use tokio::time::sleep_until;

/// The time now.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A day, for log lines: `2030-02-25`.
pub(crate) fn day(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Waits for a machine's deadline; without one forever.
pub(crate) async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
