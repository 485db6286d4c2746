//! Histograms of durations.

use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the buckets of all histograms, in seconds.
const BOUNDS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// A histogram of durations, in seconds.
pub(super) fn duration_histogram() -> Histogram {
    Histogram::new(BOUNDS)
}
