//! How long things took, in buckets, as Prometheus counts them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds: from what nobody notices to what everybody does.
pub const BOUNDS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Durations, counted.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many ended up within each bound and not within the one before.
    within: [AtomicU64; BOUNDS.len()],
    longer: AtomicU64,
    microseconds: AtomicU64,
}

/// What a histogram counted up to a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistogramSnapshot {
    /// How many took at most as long as each of [`BOUNDS`].
    pub within: [u64; BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// What they took together, in seconds.
    pub sum: f64,
}

impl Histogram {
    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS
            .iter()
            .position(|bound| seconds <= *bound)
            .and_then(|place| self.within.get(place));
        bucket.unwrap_or(&self.longer).fetch_add(1, Ordering::Relaxed);
        self.microseconds
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn get(&self) -> HistogramSnapshot {
        let mut count = 0_u64;
        let mut add = |counter: &AtomicU64| {
            count = count.saturating_add(counter.load(Ordering::Relaxed));
            count
        };
        let within = self.within.each_ref().map(&mut add);
        let count = add(&self.longer);
        HistogramSnapshot {
            within,
            count,
            sum: Duration::from_micros(self.microseconds.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_has_all_that_took_no_longer() {
        let histogram = Histogram::default();
        for seconds in [0.05, 0.1, 3.0, 4000.0] {
            histogram.observe(Duration::from_secs_f64(seconds));
        }
        let counted = histogram.get();
        assert_eq!(counted.within, [2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!(counted.count, 4);
        assert!((counted.sum - 4003.15).abs() < 1e-6);
    }
}
