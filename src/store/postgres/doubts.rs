//! Commits whose outcome is unknown, because the connection was lost before the answer: their changes may be in the database,
//! and not in this node's memory.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// The number of such commits.
pub(super) struct Doubts {
    count: AtomicU64,
    /// Wakes the reader of the event log, which clears them up.
    news: watch::Sender<u64>,
}

impl Doubts {
    pub(super) fn new(news: watch::Sender<u64>) -> Self {
        Self { count: AtomicU64::new(0), news }
    }

    /// A commit was not answered.
    pub(super) fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Their number up to now.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}
