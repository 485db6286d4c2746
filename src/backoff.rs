//! Waits that double with each failure.

use std::time::Duration;

/// A wait that doubles with each failure, up to a longest one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubling {
    first: Duration,
    longest: Duration,
}

impl Doubling {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The wait after a failure, if so many went before it.
    pub(crate) fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(failures)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits = Doubling::new(Duration::from_secs(2), Duration::from_secs(300));
        let seconds = |failures| waits.after(failures).as_secs();
        assert_eq!([0, 1, 2, 7, 8, 31, u32::MAX].map(seconds), [2, 4, 8, 256, 300, 300, 300]);
    }
}
