//! How hard the notification server may be asked, by what it answered: one probe at a time while it is down, a few at once
//! after it has come back, a bounded rate always. Sans-IO; time is given by the caller.

use std::time::Duration;

use fastrand::Rng;

/// From so much blame in a row, with nothing accepted between, the server counts as down.
const DOWN_AT: u32 = 12;
/// A failure that is the server's own: three in a row are enough.
const SERVER_BLAME: u32 = 4;
/// A failure that may be the token's: a dozen different tokens in a row are too many for that.
const TOKEN_BLAME: u32 = 1;

/// Between the server's failure and the first probe; doubled with every probe that fails.
const FIRST_PROBE: Duration = Duration::from_secs(8);
const LONGEST_PROBE: Duration = Duration::from_secs(128);
/// The longest `Retry-After` that is believed.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Whether a POST may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Yes.
    Now,
    /// Not before this time.
    At(Duration),
    /// Not before one that is under way has been answered.
    AfterAnswer,
}

/// Whose fault a failed POST is, as far as can be told from it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    Server,
    /// The token's, or the server's.
    Token,
    /// The token's: it has failed before.
    KnownToken,
}

#[derive(Debug)]
pub(super) struct Breaker {
    max_in_flight: usize,
    /// How many may be in flight now: 1 after an outage, one more with every POST accepted.
    in_flight: usize,
    /// Between two POSTs, on average.
    interval: Duration,
    /// When the next POST would begin if they all kept the interval.
    slot: Duration,
    /// The blame since something was last accepted.
    blame: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Up,
    Down { probe_at: Duration, pause: Duration, probing: bool },
}

impl Breaker {
    pub(super) fn new(max_in_flight: usize, per_second: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second.max(1)).unwrap_or_default();
        let max_in_flight = max_in_flight.max(1);
        Self { max_in_flight, in_flight: max_in_flight, interval, slot: Duration::ZERO, blame: 0, state: State::Up }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    pub(super) fn admission(&self, in_flight: usize, now: Duration) -> Admission {
        let (limit, not_before) = match self.state {
            State::Up => (self.in_flight, Duration::ZERO),
            State::Down { probe_at, .. } => (1, probe_at),
        };
        if in_flight >= limit {
            return Admission::AfterAnswer;
        }
        // As many as may be in flight may also begin at once.
        let burst =
            self.interval.saturating_mul(u32::try_from(self.max_in_flight.saturating_sub(1)).unwrap_or(u32::MAX));
        match not_before.max(self.slot.saturating_sub(burst)) {
            at if at > now => Admission::At(at),
            _ => Admission::Now,
        }
    }

    /// A POST begins.
    pub(super) fn posted(&mut self, now: Duration) {
        self.slot = self.slot.max(now).saturating_add(self.interval);
        if let State::Down { probing, .. } = &mut self.state {
            *probing = true;
        }
    }

    /// The server did its work. Returns whether it had been down until now.
    pub(super) fn succeeded(&mut self) -> bool {
        self.blame = 0;
        let recovered = self.is_down();
        self.in_flight = if recovered { 1 } else { self.in_flight.saturating_add(1).min(self.max_in_flight) };
        self.state = State::Up;
        recovered
    }

    /// A POST failed; `pause` is what the server asked for, if the failure was its own.
    pub(super) fn failed(&mut self, blame: Blame, pause: Option<Duration>, now: Duration, rng: &mut Rng) {
        let asked = pause.map(|pause| now.saturating_add(pause.min(LONGEST_PAUSE)));
        match &mut self.state {
            State::Up => {
                self.blame = self.blame.saturating_add(match blame {
                    Blame::Server => SERVER_BLAME,
                    Blame::Token => TOKEN_BLAME,
                    Blame::KnownToken => 0,
                });
                if self.blame >= DOWN_AT || asked.is_some() {
                    let probe_at = now.saturating_add(jittered(FIRST_PROBE, rng));
                    let probe_at = asked.map_or(probe_at, |asked| asked.max(probe_at));
                    self.state = State::Down { probe_at, pause: FIRST_PROBE, probing: false };
                }
            }
            State::Down { probe_at, pause, probing } => {
                // What was in flight when the server went down says nothing new.
                if *probing {
                    *probing = false;
                    *pause = pause.saturating_mul(2).min(LONGEST_PROBE);
                    *probe_at = now.saturating_add(jittered(*pause, rng));
                }
                *probe_at = asked.map_or(*probe_at, |asked| asked.max(*probe_at));
            }
        }
    }
}

/// From three quarters of `pause` to five.
pub(super) fn jittered(pause: Duration, rng: &mut Rng) -> Duration {
    let milliseconds = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    let shift = rng.u64(0..=milliseconds / 2);
    Duration::from_millis(milliseconds.saturating_sub(milliseconds / 4).saturating_add(shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_failures_of_the_server_open_it_and_one_success_closes_it() {
        let (mut breaker, mut rng) = (Breaker::new(4, 1000), Rng::with_seed(1));
        for _ in 0..3 {
            assert!(!breaker.is_down());
            breaker.failed(Blame::Server, None, s(10), &mut rng);
        }
        assert!(breaker.is_down());
        let Admission::At(probe) = breaker.admission(0, s(10)) else { panic!("open") };
        assert!((s(16)..=s(20)).contains(&probe), "{probe:?}");
        assert_eq!(breaker.admission(0, s(20)), Admission::Now);
        breaker.posted(s(20));
        assert_eq!(breaker.admission(1, s(20)), Admission::AfterAnswer, "one probe at a time");
        assert!(breaker.succeeded());
        assert_eq!(breaker.admission(1, s(21)), Admission::AfterAnswer, "slowly at first");
        assert!(!breaker.succeeded());
        assert_eq!(breaker.admission(1, s(21)), Admission::Now);
    }

    #[test]
    fn probes_become_rarer_but_not_for_ever() {
        let (mut breaker, mut rng) = (Breaker::new(4, 1000), Rng::with_seed(1));
        (0..3).for_each(|_| breaker.failed(Blame::Server, None, s(0), &mut rng));
        let mut now = s(0);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let Admission::At(probe) = breaker.admission(0, now) else { panic!("open") };
            pauses.push(probe.saturating_sub(now));
            now = probe;
            breaker.posted(now);
            breaker.failed(Blame::Server, None, now, &mut rng);
        }
        assert!(pauses[0] <= s(10) && pauses[9] >= s(96) && pauses[9] <= s(160), "{pauses:?}");
    }

    #[test]
    fn what_was_in_flight_when_it_opened_does_not_delay_the_probe() {
        let (mut breaker, mut rng) = (Breaker::new(16, 1000), Rng::with_seed(1));
        (0..3).for_each(|_| breaker.failed(Blame::Server, None, s(0), &mut rng));
        let before = breaker.admission(0, s(0));
        (0..13).for_each(|_| breaker.failed(Blame::Server, None, s(0), &mut rng));
        assert_eq!(breaker.admission(0, s(0)), before);
    }

    #[test]
    fn a_few_bad_tokens_are_not_the_servers_fault() {
        let (mut breaker, mut rng) = (Breaker::new(16, 1000), Rng::with_seed(1));
        for _ in 0..1000 {
            breaker.failed(Blame::KnownToken, None, s(0), &mut rng);
        }
        (0..11).for_each(|_| breaker.failed(Blame::Token, None, s(0), &mut rng));
        assert!(!breaker.is_down());
        breaker.failed(Blame::Token, None, s(0), &mut rng);
        assert!(breaker.is_down());
    }

    #[test]
    fn retry_after_of_the_server_is_honoured_up_to_an_hour() {
        for (asked, kept) in [(s(100), s(100)), (s(1_000_000), s(3600))] {
            let (mut breaker, mut rng) = (Breaker::new(4, 1000), Rng::with_seed(1));
            breaker.failed(Blame::Server, Some(asked), s(5), &mut rng);
            assert_eq!(breaker.admission(0, s(5)), Admission::At(s(5) + kept));
        }
    }

    #[test]
    fn the_rate_is_capped() {
        let mut breaker = Breaker::new(4, 10);
        let (mut now, mut posted) = (s(100), 0);
        while now < s(110) {
            match breaker.admission(0, now) {
                Admission::Now => {
                    breaker.posted(now);
                    posted += 1;
                }
                Admission::At(at) => now = at,
                Admission::AfterAnswer => panic!("nothing is in flight"),
            }
        }
        assert!((100..=104).contains(&posted), "{posted}");
    }
}
