//! Telemetry: events, counted for metrics and kept for a while as the history of each account.
//!
//! Each part reports an event once, as a [`TelemetryEvent`], and does not know its uses. Reporting takes a few atomic
//! operations and short locks, never waits for I/O and never fails.

mod account;
mod delays;
mod event;
mod histogram;
pub mod history;
pub mod metrics;
pub mod series;

use std::sync::Arc;

pub use account::AccountTelemetry;
pub use event::{
    Direction, LoginResult, NewsRefusal, Pause, PostResult, TelemetryEvent, WatchEvent,
};
use history::History;
use metrics::Metrics;

/// Receiver of events. Clones share their counts and histories.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    metrics: Metrics,
    history: History,
}

impl Telemetry {
    /// Records an event of this moment.
    pub fn record(&self, event: &TelemetryEvent<'_>) {
        self.0.metrics.count(event);
        self.0.history.note(event);
    }

    /// The counts since the start.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The history of all accounts together. Each account's own is in its [`AccountTelemetry`].
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }
}
