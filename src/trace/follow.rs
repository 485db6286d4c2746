//! One reader of the trace, with a queue of its own.

use std::sync::{Arc, Weak};

use super::hub::Hub;
use super::queue::LineReceiver;
use super::record::Record;
use super::selection::TraceSelection;

/// Lines of the sessions that a reader follows. Dropped, it follows no more.
pub struct Followed {
    pub(super) lines: LineReceiver,
    hub: Weak<Hub>,
    number: u64,
}

impl Followed {
    /// Follows what is wanted from now on; `None` if too many do.
    pub(super) fn new(hub: &Arc<Hub>, wanted: TraceSelection) -> Option<Self> {
        let (number, lines) = hub.follow(wanted)?;
        Some(Self { lines, hub: Arc::downgrade(hub), number })
    }

    /// Waits for the next line; `None` when there is nothing more to follow. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Record> {
        self.lines.next().await
    }

    /// The same, for a thread that may wait.
    pub fn wait(&mut self) -> Option<Record> {
        self.lines.wait()
    }

    /// The next line, if there is one.
    pub fn try_next(&mut self) -> Option<Record> {
        self.lines.try_next()
    }

    /// Its number among those who follow.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.end(self.number);
        }
    }
}
