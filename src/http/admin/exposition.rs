//! Prometheus text exposition format, version 0.0.4.

use std::fmt::{Display, Write};

use crate::telemetry::histogram::{BOUNDS, HistogramSnapshot};

/// The media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text of metrics that grows. Names, labels and their values are deltapush's own words: nothing to escape.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// A number that only grows. Its name ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "counter");
        self.sample(name, "", value);
    }

    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }

    /// A counter for each value of a label.
    pub(super) fn counters<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        self.head(name, help, "counter");
        self.labelled(name, label, values);
    }

    /// A gauge for each value of a label.
    pub(super) fn gauges<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        self.head(name, help, "gauge");
        self.labelled(name, label, values);
    }

    /// Durations in buckets. Its name ends in `_seconds`.
    pub(super) fn histogram(&mut self, name: &str, help: &str, counted: &HistogramSnapshot) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        for (bound, count) in BOUNDS.iter().zip(counted.within) {
            self.sample(&bucket, &format!("{{le=\"{bound}\"}}"), count);
        }
        self.sample(&bucket, "{le=\"+Inf\"}", counted.count);
        self.sample(&format!("{name}_sum"), "", counted.sum);
        self.sample(&format!("{name}_count"), "", counted.count);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn labelled<V: Display>(
        &mut self,
        name: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        for (word, value) in values {
            self.sample(name, &format!("{{{label}=\"{word}\"}}"), value);
        }
    }

    // Writing to a string does not fail.
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_as_the_format_wants_it() {
        let mut text = Exposition::default();
        text.counter("a_total", "A.", 1);
        text.gauges("b", "B.", "state", [("x", 2), ("y", 0)]);
        let counted = HistogramSnapshot { within: [1; BOUNDS.len()], count: 2, sum: 0.5 };
        text.histogram("c_seconds", "C.", &counted);
        let text = text.into_text();
        assert!(
            text.starts_with(
                "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n\
             # HELP b B.\n# TYPE b gauge\nb{state=\"x\"} 2\nb{state=\"y\"} 0\n\
             # HELP c_seconds C.\n# TYPE c_seconds histogram\nc_seconds_bucket{le=\"0.1\"} 1\n"
            ),
            "{text}"
        );
        assert!(text.contains("c_seconds_bucket{le=\"3600\"} 1\nc_seconds_bucket{le=\"+Inf\"} 2\nc_seconds_sum 0.5\nc_seconds_count 2\n"), "{text}");
    }
}
