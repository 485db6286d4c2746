//! The log lines about a state that cannot be written: once, then now and then, and at the end. Sans-IO.

use std::time::{Duration, Instant};

/// Time from a warning to the next one, if writing still fails.
const REPEAT: Duration = Duration::from_secs(15 * 60);

/// The state of writing.
#[derive(Debug, Default)]
pub(super) struct WriteTrouble {
    failing: Option<WriteFailures>,
}

#[derive(Debug)]
struct WriteFailures {
    /// When the operator was last told.
    told: Instant,
    /// Number of batches of changes that were not written since it began.
    failures: u64,
}

impl WriteTrouble {
    /// Writing failed. If the operator is to be told now: how often it has failed.
    pub(super) fn failed(&mut self, now: Instant) -> Option<u64> {
        let Some(failing) = &mut self.failing else {
            self.failing = Some(WriteFailures { told: now, failures: 1 });
            return Some(1);
        };
        failing.failures += 1;
        if now.saturating_duration_since(failing.told) < REPEAT {
            return None;
        }
        failing.told = now;
        Some(failing.failures)
    }

    /// Something was written. If that is news: how often it had failed.
    pub(super) fn written(&mut self) -> Option<u64> {
        self.failing.take().map(|failing| failing.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_is_told_once_then_now_and_then_and_at_the_end() {
        let mut trouble = WriteTrouble::default();
        let start = Instant::now();
        assert_eq!(trouble.written(), None);
        assert_eq!(trouble.failed(start), Some(1));
        // A day in which every second something is not written.
        let told = (1..86_400)
            .filter(|second| trouble.failed(start + Duration::from_secs(*second)).is_some())
            .count();
        assert_eq!(told, 95);
        assert_eq!(trouble.written(), Some(86_400));
        assert_eq!(trouble.written(), None);
        assert_eq!(trouble.failed(start), Some(1), "the next time it is news again");
    }
}
