//! Rate limit of the log, so that peers cannot fill the disk. Each kind of line (each place in the code that writes
//! one) has a burst and a rate; lines beyond are counted, and the count is logged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Burst of lines of one kind: the maximum at a restart of a large server.
const BURST: u64 = 1000;

/// After that, one in this time: 86,400 lines of a kind in a day, some ten megabytes.
const PACE: Duration = Duration::from_secs(1);

/// Drops log lines beyond the limit. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct LogLimit(Arc<LimitShared>);

#[derive(Debug, Default)]
struct LimitShared {
    /// As many as there are places in the code that write a line.
    kinds: DashMap<Identifier, LineKind>,
    left_out: AtomicU64,
}

/// The count of lines of one kind.
#[derive(Debug)]
struct LineKind {
    metadata: &'static Metadata<'static>,
    bucket: Bucket,
    /// Lines left out since the last report.
    left_out: u64,
}

/// Sans-IO: time in, decisions out.
#[derive(Debug)]
struct Bucket {
    tokens: u64,
    /// Up to when they were filled.
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let steps =
            now.saturating_duration_since(self.filled).as_nanos().div_euclid(PACE.as_nanos());
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.tokens = (self.tokens + u64::from(steps)).min(BURST);
        self.filled = self.filled.checked_add(PACE.saturating_mul(steps)).unwrap_or(now);
        let rest = self.tokens.checked_sub(1);
        self.tokens = rest.unwrap_or_default();
        rest.is_some()
    }
}

impl LogLimit {
    /// The number of lines left out since the start.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.0.left_out.load(Ordering::Relaxed)
    }

    /// Logs the number of lines of each kind that were left out since the last call.
    pub fn report(&self) {
        let kinds: Vec<_> = (self.0.kinds.iter_mut())
            .filter_map(|mut kind| {
                Some((kind.metadata, std::mem::take(&mut kind.left_out))).filter(|(_, n)| *n > 0)
            })
            .collect();
        // Outside of the map: logging goes through the map again.
        for (metadata, left_out) in kinds {
            tracing::warn!(
                part = metadata.target(),
                line = metadata.line(),
                left_out,
                "lines of one kind were left out of the log: there were too many"
            );
        }
    }

    fn lets_pass(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        let kind = || LineKind { metadata, bucket: Bucket::new(now), left_out: 0 };
        let mut kind = self.0.kinds.entry(metadata.callsite()).or_insert_with(kind);
        let passes = kind.bucket.take(now);
        if !passes {
            kind.left_out += 1;
            self.0.left_out.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }
}

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Debug lines are never limited: the operator has asked for all of them.
        *event.metadata().level() > Level::INFO || self.lets_pass(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn burst_passes_and_then_one_at_a_time() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now);
        let taken = |bucket: &mut Bucket, now| (0..5000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, now), 1000);
        assert_eq!(taken(&mut bucket, now + PACE * 7 + PACE / 2), 7);
        assert_eq!(taken(&mut bucket, now + PACE * 8), 1, "parts of a step are not lost");
        assert_eq!(taken(&mut bucket, now + PACE * 100_000), 1000);
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn left_out_lines_are_counted_by_kind() {
        let (limit, written) = (LogLimit::default(), Written::default());
        let output = tracing_subscriber::fmt::layer().with_writer(written.clone()).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(limit.clone()).with(output);
        tracing::subscriber::with_default(subscriber, || {
            (0..BURST + 500).for_each(|_| tracing::info!("a peer came"));
            tracing::info!("something else");
            (0..BURST * 2).for_each(|_| tracing::debug!("detail"));
            limit.report();
            limit.report();
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let came = text.matches("a peer came").count();
        assert!((1000..1100).contains(&came), "{came}");
        assert_eq!(limit.left_out(), 1500 - came as u64);
        assert_eq!(text.matches("something else").count(), 1);
        assert_eq!(text.matches("detail").count(), 2000);
        assert_eq!(text.matches("were left out of the log").count(), 1, "said once");
        assert!(text.contains(&format!("left_out={}", limit.left_out())));
    }
}
