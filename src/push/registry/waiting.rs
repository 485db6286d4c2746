//! The number of accounts that wait for a device to log in, and the log lines about it.

use std::sync::Mutex;
use std::sync::PoisonError;

/// The number of accounts without credentials.
#[derive(Debug, Default)]
pub(super) struct WaitingAccounts {
    counts: Mutex<WaitingCounts>,
}

#[derive(Debug, Default, Clone, Copy)]
struct WaitingCounts {
    waiting: usize,
    /// The number in the last log line.
    reported: usize,
}

impl WaitingAccounts {
    /// At the start, or in slots that have come, so many wait.
    pub(super) fn begin(&self, waiting: usize) {
        let mut counts = self.lock();
        counts.waiting = counts.waiting.saturating_add(waiting);
        counts.reported = counts.waiting;
        drop(counts);
        if waiting > 0 {
            tracing::info!(
                waiting,
                "accounts are not watched until one of their devices logs in: deltapush pushes once to each of these \
                 devices, so that it does"
            );
        }
    }

    /// One waits no more.
    pub(super) fn ended(&self) {
        let mut counts = self.lock();
        counts.waiting = counts.waiting.saturating_sub(1);
        if counts.is_news() {
            counts.reported = counts.waiting;
            match counts.waiting {
                0 => tracing::info!("no account waits for a device to log in any more"),
                waiting => tracing::info!(
                    waiting,
                    "accounts still wait for one of their devices to log in"
                ),
            }
        }
    }

    /// So many wait at another node from now on.
    pub(super) fn left(&self, waiting: usize) {
        let mut counts = self.lock();
        counts.waiting = counts.waiting.saturating_sub(waiting);
        counts.reported = counts.reported.min(counts.waiting);
    }

    pub(super) fn count(&self) -> usize {
        self.lock().waiting
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, WaitingCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingCounts {
    /// Half of what was last reported is news, and the end is.
    fn is_news(self) -> bool {
        self.waiting <= self.reported.div_euclid(2) && self.waiting < self.reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_half_is_news_and_the_end_is() {
        let waiting = WaitingAccounts::default();
        waiting.begin(100);
        let mut reported = vec![];
        for _ in 0..150 {
            waiting.ended();
            reported.push(waiting.lock().reported);
        }
        reported.dedup();
        assert_eq!(reported, [100, 50, 25, 12, 6, 3, 1, 0]);
        assert_eq!(waiting.count(), 0);
    }
}
