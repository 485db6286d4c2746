//! Counts the listeners that accept clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts listeners that accept clients. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Listening(Arc<ListenerCounts>);

#[derive(Debug, Default)]
struct ListenerCounts {
    wanted: AtomicUsize,
    at_work: AtomicUsize,
}

/// A listener that accepts clients until this is dropped: also by a panic.
#[derive(Debug)]
pub struct AtWork(Arc<ListenerCounts>);

impl Listening {
    /// Counts one more listener.
    #[must_use]
    pub fn begin(&self) -> AtWork {
        self.0.wanted.fetch_add(1, Ordering::Relaxed);
        self.0.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(Arc::clone(&self.0))
    }

    /// The number of listeners that accept clients.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.at_work.load(Ordering::Relaxed)
    }

    /// The number of configured listeners.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.0.wanted.load(Ordering::Relaxed)
    }
}

impl AtWork {
    /// Counts until `serving` ends.
    pub async fn during(self, serving: impl Future<Output = ()>) {
        serving.await;
        drop(self);
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listener_that_ends_or_panics_is_not_at_work() {
        let listening = Listening::default();
        let going_on = tokio::spawn(listening.begin().during(std::future::pending()));
        tokio::spawn(listening.begin().during(async { panic!("on purpose") })).await.unwrap_err();
        listening.begin().during(async {}).await;
        assert_eq!((listening.count(), listening.wanted()), (1, 3));
        going_on.abort();
    }
}
