//! The notes of telemetry on one account. They belong to the account and end with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::delays::DelaysInProgress;
use super::history::{HistoryPlace, HistorySummary, Timeline};

/// History and delays of one account. Empty until something happens to it.
#[derive(Debug, Default)]
pub struct AccountTelemetry(Mutex<AccountNotes>);

/// Boxed, because most accounts have neither for most of the time.
#[derive(Debug, Default)]
pub(super) struct AccountNotes {
    pub(super) history: Option<Box<HistoryPlace>>,
    pub(super) delays: Option<Box<DelaysInProgress>>,
}

impl AccountTelemetry {
    /// Summary of the history.
    #[must_use]
    pub fn summary(&self) -> HistorySummary {
        self.lock().history.as_ref().map(|place| place.ring.summary()).unwrap_or_default()
    }

    /// The recent history; `None` if the account has none.
    #[must_use]
    pub fn timeline(&self) -> Option<Timeline> {
        self.lock().history.as_ref().map(|place| place.ring.timeline())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, AccountNotes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
