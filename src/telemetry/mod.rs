//! Telemetry: events, counted for metrics and kept for a while as the history of each account.
//!
//! Those who do something say so once, as an [`TelemetryEvent`]; what becomes of it is decided here. Telling costs a few atomic
//! operations, never waits for anybody and never fails.

mod counts;
pub mod delays;
mod event;
pub mod histogram;
pub mod history;
pub mod metrics;
pub mod series;

use std::sync::Arc;

pub use event::{Direction, LoginResult, Pause, PostResult, TelemetryEvent, WatchEvent};
use history::History;
use metrics::Metrics;

/// Where events are told. Clones lead to the same place.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    metrics: Metrics,
    history: History,
}

impl Telemetry {
    /// Something has just happened.
    pub fn tell(&self, event: &TelemetryEvent<'_>) {
        self.0.metrics.count(event);
        self.0.history.note(event);
    }

    /// The counts since the start.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What happened to each account lately.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }
}
