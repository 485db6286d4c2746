//! Waits that grow with each failure up to a longest one, and the chance in them.

use std::time::Duration;

use fastrand::Rng;

/// A wait that grows by a factor with each failure, up to a longest one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GrowingWait {
    first: Duration,
    factor: u32,
    longest: Duration,
}

impl GrowingWait {
    pub(crate) const fn doubling(first: Duration, longest: Duration) -> Self {
        Self::by_factor(2, first, longest)
    }

    pub(crate) const fn by_factor(factor: u32, first: Duration, longest: Duration) -> Self {
        Self { first, factor, longest }
    }

    /// The wait after a failure, if so many went before it.
    pub(crate) fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(self.factor.saturating_pow(failures)).min(self.longest)
    }
}

/// Between three and five quarters of `wait`, in whole milliseconds: on average it stays.
pub(crate) fn around(wait: Duration, rng: &mut Rng) -> Duration {
    let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let shift = rng.u64(0..=milliseconds / 2);
    Duration::from_millis((milliseconds - milliseconds / 4).saturating_add(shift))
}

/// `wait` without up to `share` of it, both from 0 to 1: it never gets longer. `chance`, from 0 to 1, is drawn by the caller.
pub(crate) fn shortened(wait: Duration, share: f64, chance: f64) -> Duration {
    wait.mul_f64(1.0 - share * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let failures = [0, 1, 2, 7, 8, 31, u32::MAX];
        let waits = GrowingWait::doubling(s(2), s(300));
        assert_eq!(
            failures.map(|failures| waits.after(failures).as_secs()),
            [2, 4, 8, 256, 300, 300, 300]
        );
        let waits = GrowingWait::by_factor(8, s(1), s(4096));
        assert_eq!(
            failures.map(|failures| waits.after(failures).as_secs()),
            [1, 8, 64, 4096, 4096, 4096, 4096]
        );
    }

    #[test]
    fn chance_stays_within_its_share() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..1000 {
            let wait = around(s(100), &mut rng);
            assert!(wait >= s(75) && wait <= s(125), "{wait:?}");
        }
        let waits = [0.0, 0.5, 1.0].map(|chance| shortened(s(100), 0.5, chance));
        assert_eq!(waits, [s(100), s(75), s(50)]);
    }
}
