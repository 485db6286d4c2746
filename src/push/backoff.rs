//! How long to wait before the next attempt.

use std::time::Duration;

/// Grows from attempt to attempt, with chance in it, so that all who were cut off together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

const FIRST: Duration = Duration::from_secs(2);
const LAST: Duration = Duration::from_secs(300);

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The time to wait now: between half of what is due and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let due = self.next;
        self.next = due.saturating_mul(2).min(LAST);
        due.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// At least the longest wait, for what will not change soon.
    pub(super) fn longest(&mut self) -> Duration {
        self.next = LAST;
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds() {
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= LAST));
        assert!(waits[11] >= LAST / 2);
        assert!(Backoff::new().longest() >= LAST / 2);
    }
}
