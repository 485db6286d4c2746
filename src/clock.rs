//! The clock of the drivers of [machines](crate::machine): the runtime's, which tests may stop.

use std::time::Instant;

use tokio::time::sleep_until;

/// The time now.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits for a machine's deadline; without one forever.
pub(crate) async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
