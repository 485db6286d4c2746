//! The last event that this node has told others of, by a change whose commit was acknowledged: one that must be in the log.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::place::{EventKey, Told};

/// The last row of the event log by this node's changes.
#[derive(Default)]
pub(super) struct LastTold(Mutex<Option<Told>>);

impl LastTold {
    /// A commit with the row was acknowledged.
    pub(super) fn set(&self, row: EventKey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((row, Instant::now()));
    }

    pub(super) fn last(&self) -> Option<Told> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
