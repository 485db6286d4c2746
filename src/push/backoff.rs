//! The wait before the next connection of a watch.

use std::time::Duration;

use crate::backoff::{GrowingWait, shortened};

const FIRST: Duration = Duration::from_secs(2);
const LAST: Duration = Duration::from_secs(300);
const WAITS: GrowingWait = GrowingWait::doubling(FIRST, LAST);

/// Grows from attempt to attempt, with chance in it, so that watches that lost their server together do not return together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The time to wait now: between half of what is due and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let due = WAITS.after(self.failures);
        self.failures = self.failures.saturating_add(1);
        shortened(due, 0.5, fastrand::f64())
    }

    /// At least the longest wait, for what will not change soon.
    pub(super) fn longest(&mut self) -> Duration {
        self.failures = u32::MAX;
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= LAST));
        assert!(waits[11] >= LAST / 2);
        assert!(Backoff::default().longest() >= LAST / 2);
    }
}
