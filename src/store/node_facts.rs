//! The report of a node on itself, which it writes into its row with each renewal of its lease: small, whatever the number of its
//! accounts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Time over which the worst value is shown.
const LATELY: Duration = Duration::from_secs(60);

/// The report. Values that an older or newer version does not tell are absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// Duration of the last renewal of the lease, in microseconds.
    pub latency_us: Option<u64>,
    /// The longest of the last minute.
    pub worst_latency_us: Option<u64>,
    /// The longest time from a change of the event log to the moment at which this node read it, within the last minute, in
    /// microseconds. Absent if nothing has changed.
    pub log_lag_us: Option<u64>,
    /// Its accounts.
    pub counts: Option<NodeCounts>,
}

/// Accounts of a node, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeCounts {
    /// Accounts of its slots.
    pub accounts: usize,
    /// Accounts whose mailbox is watched now.
    pub watched: usize,
    /// Accounts without a watch, of whose new mail the mail server tells.
    pub told: usize,
    /// Accounts whose watch was interrupted, or has ended.
    pub troubled: usize,
    /// Accounts that wait for their phone to log in, because the password is not known.
    pub waiting: usize,
    /// Accounts that cannot be watched because of how their clients log in.
    pub unusable: usize,
    /// Tokens of these accounts.
    pub devices: usize,
    /// Tokens in quarantine.
    pub quarantined: usize,
    /// Clients that are connected.
    pub clients: u64,
}

/// The report of this node, as its parts fill it in. Clones are handles of the same.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnFacts(Arc<Mutex<Measured>>);

#[derive(Debug, Default)]
struct Measured {
    latency: Lately,
    log_lag: Lately,
    counts: Option<NodeCounts>,
}

impl OwnFacts {
    /// A renewal took so long, or failed after so long.
    pub(super) fn renewed(&self, took: Duration) {
        self.lock().latency.add(took, Instant::now());
    }

    /// A change was read from the event log so late.
    pub(super) fn read_log(&self, lag: Duration) {
        self.lock().log_lag.add(lag, Instant::now());
    }

    pub(super) fn count(&self, counts: NodeCounts) {
        self.lock().counts = Some(counts);
    }

    pub(super) fn report(&self) -> NodeFacts {
        let (measured, now) = (self.lock(), Instant::now());
        NodeFacts {
            latency_us: measured.latency.last.map(microseconds),
            worst_latency_us: measured.latency.worst(now).map(microseconds),
            log_lag_us: measured.log_lag.worst(now).map(microseconds),
            counts: measured.counts,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The last value, and the worst of the last minute.
#[derive(Debug, Default)]
struct Lately {
    last: Option<Duration>,
    /// Values of the last minute of which no later one is as bad: the worst first.
    worst: VecDeque<(Instant, Duration)>,
}

impl Lately {
    fn add(&mut self, value: Duration, now: Instant) {
        self.last = Some(value);
        while self.worst.back().is_some_and(|(_, earlier)| *earlier <= value) {
            self.worst.pop_back();
        }
        self.worst.push_back((now, value));
        // Bounds the queue: requests and reads have a shortest interval.
        while self.worst.front().is_some_and(|(at, _)| is_old(*at, now)) {
            self.worst.pop_front();
        }
    }

    fn worst(&self, now: Instant) -> Option<Duration> {
        self.worst.iter().find(|(at, _)| !is_old(*at, now)).map(|(_, value)| *value)
    }
}

fn is_old(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) > LATELY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_value_is_that_of_the_last_minute() {
        let (mut lately, start) = (Lately::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let value = Duration::from_millis;
        assert_eq!((lately.last, lately.worst(start)), (None, None));
        for (seconds, milliseconds) in [(0, 5), (10, 90), (20, 7), (30, 3)] {
            lately.add(value(milliseconds), at(seconds));
        }
        assert_eq!((lately.last, lately.worst(at(30))), (Some(value(3)), Some(value(90))));
        assert_eq!(lately.worst(at(71)), Some(value(7)), "it is over");
        assert_eq!(lately.worst(at(200)), None);
        lately.add(value(1), at(200));
        assert_eq!(lately.worst.len(), 1);
    }

    #[test]
    fn reports_of_other_versions_are_read() {
        let report = |text| serde_json::from_str::<NodeFacts>(text).unwrap();
        assert_eq!(report("{}"), NodeFacts::default());
        let older = report(r#"{"latency_us":1200,"later":[1],"counts":{"accounts":3,"x":1}}"#);
        assert_eq!(older.latency_us, Some(1200));
        assert_eq!(older.counts, Some(NodeCounts { accounts: 3, ..NodeCounts::default() }));
        let own = OwnFacts::default();
        own.renewed(Duration::from_millis(3));
        own.read_log(Duration::from_millis(20));
        own.count(NodeCounts { accounts: 10_000_000, ..NodeCounts::default() });
        let text = serde_json::to_string(&own.report()).unwrap();
        assert_eq!(report(&text), own.report());
        assert!(text.len() < 300, "{text}");
    }
}
