//! When to ask for a certificate: at two thirds of its life, and after failures at waits that grow.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::backoff::Doubling;

/// The wait after a first failure. Let's Encrypt accepts five failed proofs of a name in an hour.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

/// The longest wait: an authority that was away for days is asked again within half a day of its return.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// The machine: takes times, says times.
#[derive(Debug)]
pub(super) struct RenewalSchedule {
    /// Between 0 and 1, drawn once: not all that started together ask together.
    jitter: f64,
    failures: u32,
    /// Not before this time, because of the last failure.
    not_before: Timestamp,
}

impl RenewalSchedule {
    pub(super) fn new(jitter: f64) -> Self {
        Self { jitter, failures: 0, not_before: Timestamp::MIN }
    }

    /// When to ask for a certificate, if the one that is there is valid from and until these times; now or earlier if there
    /// is none.
    pub(super) fn due(&self, validity: Option<(Timestamp, Timestamp)>) -> Timestamp {
        let wanted = validity.map_or(Timestamp::MIN, |(from, until)| {
            let life = until.duration_since(from);
            // Up to a thirtieth earlier.
            let into = life.as_secs_f64() * (2.0 / 3.0 - self.jitter / 30.0);
            let into = SignedDuration::try_from_secs_f64(into.max(0.0)).unwrap_or_default();
            from.checked_add(into).unwrap_or(until)
        });
        wanted.max(self.not_before)
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = Timestamp::MIN;
    }

    /// Notes a failure; returns how long to wait.
    pub(super) fn failed(&mut self, now: Timestamp) -> Duration {
        let wait =
            Doubling::new(SHORTEST, LONGEST).after(self.failures).mul_f64(1.0 - self.jitter / 10.0);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn certificate_is_renewed_at_two_thirds_of_its_life() {
        for (life, earliest, latest) in [(90_i64, 57, 60), (6, 3, 4)] {
            let day = 86_400;
            for jitter in [0.0, 0.5, 0.999] {
                let due = RenewalSchedule::new(jitter)
                    .due(Some((at(day), at(day + life * day))))
                    .as_second()
                    / day
                    - 1;
                assert!((earliest..=latest).contains(&due), "{life} {due}");
            }
        }
        assert!(RenewalSchedule::new(0.5).due(None) < at(0));
    }

    #[test]
    fn failures_make_it_wait_longer_but_never_for_ever() {
        let mut schedule = RenewalSchedule::new(0.5);
        let waits: Vec<u64> = (0..50).map(|_| schedule.failed(at(0)).as_secs() / 60).collect();
        assert_eq!(waits[..4], [9, 19, 38, 76]);
        assert_eq!(waits[49], 684);
        assert_eq!(schedule.due(None), at(684 * 60));
        schedule.succeeded();
        assert!(schedule.due(None) < at(0));
        assert_eq!(schedule.failed(at(0)).as_secs() / 60, 9);
    }
}
