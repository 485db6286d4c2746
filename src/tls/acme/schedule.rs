//! When to ask for a certificate, as a machine: at two thirds of its life, at half of a short one, and after failures at waits
//! that grow.
//!
//! Certificates have dates, so the wall clock is part of the inputs. Machines sleep, and their clocks are set: the deadline is
//! never far away, and at it the driver looks at the certificate and the clock again.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::backoff::{GrowingWait, shortened};
use crate::machine::{Actions, Machine};

/// The wait after a first failure. Let's Encrypt accepts five failed proofs of a name in an hour.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

/// The longest wait: an authority that was away for days is asked again within half a day of its return.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// The longest wait for a certificate that is near its end: never more than a tenth of the time that is left, but not less than
/// this. With it, a name fails less often than authorities accept.
const LONGEST_AT_THE_END: Duration = Duration::from_secs(60 * 60);

/// A certificate that is valid for less is renewed at half of its life: two thirds of six days would leave two days to correct
/// what is wrong. Let's Encrypt advises the same.
const SHORT_LIFE: SignedDuration = SignedDuration::from_hours(10 * 24);

const WAITS: GrowingWait = GrowingWait::doubling(SHORTEST, LONGEST);

/// The longest wait before the wall clock is looked at again.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// From when until when a certificate is valid.
pub(super) type Validity = (Timestamp, Timestamp);

/// The input of the machine. `wall` is the time of the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) enum RenewalInput {
    /// The certificate that is there, if there is one: at the beginning, at the deadline, and after each attempt.
    Certificate { validity: Option<Validity>, wall: Timestamp },
    /// The same where no authority is configured.
    NoAuthority,
    /// The attempt succeeded, and this certificate is used now.
    Succeeded { validity: Option<Validity>, wall: Timestamp },
    /// The attempt failed. The certificate that is there ends at `until`, if there is one.
    Failed { until: Option<Timestamp>, wall: Timestamp },
}

/// The driver's next step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RenewalAction {
    /// Ask for a certificate.
    Renew,
    /// For the log: the new certificate is good, and its renewal is due then.
    Renewed { until: Timestamp, due: Timestamp },
    /// For the log: the new certificate is of no use, or its renewal is due already. The next attempt is after this wait.
    Useless(Duration),
    /// For the log: the next attempt is after this wait.
    Retry(Duration),
}

/// The machine.
#[derive(Debug)]
pub(super) struct RenewalSchedule {
    /// Between 0 and 1, drawn once: not all that started together ask together.
    jitter: f64,
    failures: u32,
    /// Not before this time of the wall clock, because of the last failure.
    not_before: Timestamp,
    deadline: Option<Instant>,
}

impl Machine for RenewalSchedule {
    type Input<'a> = RenewalInput;
    type Action<'a> = RenewalAction;

    fn handle(&mut self, input: RenewalInput, now: Instant, actions: &mut impl Actions<Self>) {
        match input {
            RenewalInput::Certificate { validity, wall } => {
                let wait = self.due(validity).duration_since(wall);
                let wait = Duration::try_from(wait).unwrap_or_default();
                self.deadline = now.checked_add(wait.min(LOOK));
                if wait.is_zero() {
                    actions.push(RenewalAction::Renew);
                }
            }
            RenewalInput::NoAuthority => self.deadline = now.checked_add(LOOK),
            RenewalInput::Succeeded { validity, wall } => self.succeeded(validity, wall, actions),
            RenewalInput::Failed { until, wall } => {
                actions.push(RenewalAction::Retry(self.failed(until, wall)));
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl RenewalSchedule {
    pub(super) fn new(jitter: f64) -> Self {
        Self { jitter, failures: 0, not_before: Timestamp::MIN, deadline: None }
    }

    /// When to ask for a certificate, if the one that is there is valid from and until these times; now or earlier if there
    /// is none.
    pub(super) fn due(&self, validity: Option<Validity>) -> Timestamp {
        let wanted = validity.map_or(Timestamp::MIN, |(from, until)| {
            let life = until.duration_since(from);
            let part = if life < SHORT_LIFE { 1.0 / 2.0 } else { 2.0 / 3.0 };
            // Up to a thirtieth earlier.
            let into = life.as_secs_f64() * (part - self.jitter / 30.0);
            let into = SignedDuration::try_from_secs_f64(into.max(0.0)).unwrap_or_default();
            from.checked_add(into).unwrap_or(until)
        });
        wanted.max(self.not_before)
    }

    fn succeeded(
        &mut self,
        validity: Option<Validity>,
        wall: Timestamp,
        actions: &mut impl Actions<Self>,
    ) {
        self.failures = 0;
        self.not_before = Timestamp::MIN;
        let due = self.due(validity);
        match validity {
            Some((_, until)) if due > wall => actions.push(RenewalAction::Renewed { until, due }),
            _ => {
                let until = validity.map(|(_, until)| until);
                actions.push(RenewalAction::Useless(self.failed(until, wall)));
            }
        }
    }

    /// Notes a failure; returns how long to wait.
    fn failed(&mut self, until: Option<Timestamp>, wall: Timestamp) -> Duration {
        let longest = until.map_or(LONGEST, |until| longest_wait(until.duration_since(wall)));
        let wait = shortened(WAITS.after(self.failures).min(longest), 0.1, self.jitter);
        self.failures += 1;
        self.not_before = wall.checked_add(wait).unwrap_or(Timestamp::MAX);
        wait
    }
}

/// The longest wait while the certificate is valid for `left`.
fn longest_wait(left: SignedDuration) -> Duration {
    let left = Duration::try_from(left).unwrap_or_default();
    (left / 10).clamp(LONGEST_AT_THE_END, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn handle(schedule: &mut RenewalSchedule, input: RenewalInput) -> Vec<RenewalAction> {
        let mut actions = vec![];
        schedule.handle(input, Instant::now(), &mut actions);
        actions
    }

    #[test]
    fn certificate_is_renewed_at_two_thirds_of_its_life_and_a_short_one_at_half() {
        for (life, earliest, latest) in [(90_i64, 57, 60), (45, 28, 30), (6, 2, 3)] {
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
        let fails = |schedule: &mut RenewalSchedule| match handle(
            schedule,
            RenewalInput::Failed { until: None, wall: at(0) },
        )
        .as_slice()
        {
            [RenewalAction::Retry(wait)] => wait.as_secs() / 60,
            other => panic!("{other:?}"),
        };
        let waits: Vec<u64> = (0..50).map(|_| fails(&mut schedule)).collect();
        assert_eq!(waits[..4], [9, 19, 38, 76]);
        assert_eq!(waits[49], 684);
        assert_eq!(schedule.due(None), at(684 * 60));
        let validity = Some((at(0), at(90 * 86_400)));
        handle(&mut schedule, RenewalInput::Succeeded { validity, wall: at(0) });
        assert!(schedule.due(None) < at(0));
        assert_eq!(fails(&mut schedule), 9);
    }

    #[test]
    fn certificate_near_its_end_is_asked_for_more_often() {
        let hours = 3600;
        let mut schedule = RenewalSchedule::new(0.0);
        let mut fails = |left: i64| {
            let failed = RenewalInput::Failed { until: Some(at(left)), wall: at(0) };
            match handle(&mut schedule, failed).as_slice() {
                [RenewalAction::Retry(wait)] => wait.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        for _ in 0..10 {
            fails(30 * 24 * hours);
        }
        let waits = [30 * 24, 72, 24, 8, -8].map(|left| fails(left * hours));
        assert_eq!(waits, [12 * 3600, 7 * 3600 + 720, 2 * 3600 + 1440, 3600, 3600]);
    }

    #[test]
    fn failing_renewal_of_a_six_day_certificate_is_tried_often_enough_and_not_too_often() {
        let hours = 3600;
        let (from, until) = (at(0), at(160 * hours));
        let mut schedule = RenewalSchedule::new(0.0);
        let mut attempts = Vec::new();
        let mut wall = schedule.due(Some((from, until)));
        while wall < until {
            attempts.push(wall);
            handle(&mut schedule, RenewalInput::Failed { until: Some(until), wall });
            wall = schedule.due(Some((from, until)));
        }
        assert!((20..40).contains(&attempts.len()), "{}", attempts.len());
        let most = attempts.windows(6).map(|some| some[5].duration_since(some[0])).min();
        assert!(most.unwrap() > SignedDuration::from_hours(1), "five failures in an hour");
    }

    #[test]
    fn clock_is_looked_at_every_hour_and_renewal_asked_for_when_due() {
        let mut schedule = RenewalSchedule::new(0.0);
        let now = Instant::now();
        let validity = Some((at(0), at(90 * 86_400)));
        let mut look = |days: i64| {
            let mut actions = vec![];
            let wall = at(days * 86_400);
            schedule.handle(RenewalInput::Certificate { validity, wall }, now, &mut actions);
            (actions, schedule.deadline().unwrap() - now)
        };
        assert_eq!(look(1), (vec![], LOOK));
        assert_eq!(look(60), (vec![RenewalAction::Renew], Duration::ZERO));
    }

    #[test]
    fn new_certificate_that_is_due_already_counts_as_a_failure() {
        let mut schedule = RenewalSchedule::new(0.0);
        for validity in [None, Some((at(-90), at(-1)))] {
            let actions = handle(&mut schedule, RenewalInput::Succeeded { validity, wall: at(0) });
            assert!(matches!(actions.as_slice(), [RenewalAction::Useless(_)]), "{actions:?}");
        }
        let validity = Some((at(0), at(90)));
        let actions = handle(&mut schedule, RenewalInput::Succeeded { validity, wall: at(0) });
        assert_eq!(actions, [RenewalAction::Renewed { until: at(90), due: at(45) }]);
    }
}
