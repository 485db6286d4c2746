//! Breaker for POSTs to the notification server: decides, from the answers, whether the server is down and how it is probed
//! meanwhile. Sans-IO; the caller gives the time.
//!
//! One account's tokens say little about the server: the notification server passes on what a token's own endpoint answers.
//! Each account counts once, until any POST is accepted.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;

use crate::account::AccountId;
use crate::backoff::{GrowingWait, around};

/// Sum of blame, with nothing accepted in between, at which the server counts as down.
const DOWN_AT: u32 = 12;
/// Blame for a failure that usually is the server's own: three accounts in a row are enough.
const SERVER_BLAME: u32 = 4;
/// Blame for a failure that may be the token's.
const TOKEN_BLAME: u32 = 1;
/// From so many accounts that failed in a row on, the others are held back as well.
const CONCLUSIVE: usize = 12;

/// Between the failure that opens the breaker and the first probe; doubled with every probe that fails.
const FIRST_PROBE: Duration = Duration::from_secs(8);
/// Longest pause between two probes, before jitter.
pub(super) const LONGEST_PROBE: Duration = Duration::from_secs(128);
const PROBES: GrowingWait = GrowingWait::doubling(FIRST_PROBE, LONGEST_PROBE);
/// Longest `Retry-After` that is honoured.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Likely cause of a failed POST, judged from its answer alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The server, or the token's endpoint.
    Server,
    /// The token, or the server.
    Token,
}

/// A failed POST.
#[derive(Debug, Clone, Copy)]
pub(super) struct BreakerFailure<'a> {
    /// The account to blame. `None` if the failure is known to be the token's own.
    pub(super) account: Option<&'a AccountId>,
    pub(super) blame: Blame,
    /// The pause that the server asked for (`Retry-After`).
    pub(super) pause: Option<Duration>,
    /// The server itself asks everybody to wait: 429 (RFC 6585 section 4) with a pause. It does not pass that status on from a
    /// token's endpoint.
    pub(super) is_for_all: bool,
    /// True if the POST was a probe.
    pub(super) probe: bool,
}

#[derive(Debug)]
pub(super) struct Breaker {
    max_in_flight: usize,
    /// POSTs that may be in flight now: 1 after an outage, one more with every POST accepted.
    in_flight: usize,
    /// Accounts that failed since a POST was last accepted, each with its heaviest blame. At most [`CONCLUSIVE`].
    blamed: HashMap<AccountId, u32>,
    state: BreakerState,
}

#[derive(Debug)]
enum BreakerState {
    Up,
    Down {
        probe_at: Duration,
        /// Probes that failed.
        failures: u32,
        probing: bool,
        /// The server asked everybody to wait.
        is_for_all: bool,
    },
}

impl Breaker {
    pub(super) fn new(max_in_flight: usize) -> Self {
        let max_in_flight = max_in_flight.max(1);
        Self {
            max_in_flight,
            in_flight: max_in_flight,
            blamed: HashMap::new(),
            state: BreakerState::Up,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, BreakerState::Down { .. })
    }

    /// Returns whether one more POST may begin while the server is up.
    pub(super) fn has_room(&self, in_flight: usize) -> bool {
        !self.is_down() && in_flight < self.in_flight
    }

    /// Returns whether fresh news of the account may be posted at once although the server counts as down: the evidence comes
    /// from few accounts, and this one is not among them.
    pub(super) fn lets_pass(&self, account: &AccountId) -> bool {
        matches!(self.state, BreakerState::Down { is_for_all: false, .. })
            && self.blamed.len() < CONCLUSIVE
            && !self.blamed.contains_key(account)
    }

    /// Returns whether an account other than this one failed since a POST was last accepted.
    pub(super) fn blames_others(&self, account: &AccountId) -> bool {
        self.blamed.keys().any(|blamed| blamed != account)
    }

    /// When the next probe may begin, if the server is down and no probe is in flight.
    pub(super) fn probe_at(&self) -> Option<Duration> {
        match self.state {
            BreakerState::Down { probe_at, probing: false, .. } => Some(probe_at),
            BreakerState::Down { .. } | BreakerState::Up => None,
        }
    }

    /// A probe begins.
    pub(super) fn probed(&mut self) {
        if let BreakerState::Down { probing, .. } = &mut self.state {
            *probing = true;
        }
    }

    /// A POST was accepted. Returns whether the server counted as down until now.
    pub(super) fn succeeded(&mut self) -> bool {
        self.blamed.clear();
        let recovered = self.is_down();
        self.in_flight = if recovered { 1 } else { (self.in_flight + 1).min(self.max_in_flight) };
        self.state = BreakerState::Up;
        recovered
    }

    /// A POST failed.
    pub(super) fn failed(&mut self, failed: BreakerFailure<'_>, now: Duration, rng: &mut Rng) {
        if let Some(account) = failed.account {
            self.blame(account, failed.blame);
        }
        let asked = failed.pause.map(|pause| now + pause.min(LONGEST_PAUSE));
        let asked = asked.filter(|_| failed.account.is_some());
        match &mut self.state {
            BreakerState::Up => {
                let is_for_all = failed.is_for_all && asked.is_some();
                if is_for_all || self.blamed.values().sum::<u32>() >= DOWN_AT {
                    let probe_at = now + around(PROBES.after(0), rng);
                    let probe_at = asked.map_or(probe_at, |asked| asked.max(probe_at));
                    self.state =
                        BreakerState::Down { probe_at, failures: 0, probing: false, is_for_all };
                }
            }
            BreakerState::Down { probe_at, failures, probing, is_for_all } => {
                *is_for_all |= failed.is_for_all && asked.is_some();
                // POSTs that were in flight when the server went down say nothing new.
                if failed.probe {
                    *probing = false;
                    *failures += 1;
                    *probe_at = now + around(PROBES.after(*failures), rng);
                }
                *probe_at = asked.map_or(*probe_at, |asked| asked.max(*probe_at));
            }
        }
    }

    fn blame(&mut self, account: &AccountId, blame: Blame) {
        let weight = match blame {
            Blame::Server => SERVER_BLAME,
            Blame::Token => TOKEN_BLAME,
        };
        if let Some(known) = self.blamed.get_mut(account) {
            *known = weight.max(*known);
        } else if self.blamed.len() < CONCLUSIVE {
            self.blamed.insert(account.clone(), weight);
        }
    }
}

/// Paces POSTs to an average rate, with short bursts.
#[derive(Debug)]
pub(super) struct PostPace {
    max_in_flight: usize,
    per_second: u32,
    /// Between two POSTs, on average.
    interval: Duration,
    burst: Duration,
    /// When the next POST would begin if all kept the interval.
    slot: Duration,
}

impl PostPace {
    /// As many POSTs as may be in flight may also begin at once.
    pub(super) fn new(max_in_flight: usize, per_second: u32) -> Self {
        let (interval, burst, slot) = Default::default();
        let mut pace = Self { max_in_flight, per_second, interval, burst, slot };
        pace.share(1);
        pace
    }

    /// So many nodes share the rate and the burst from now on.
    pub(super) fn share(&mut self, nodes: usize) {
        let nodes = u32::try_from(nodes.max(1)).unwrap_or(u32::MAX);
        let second = Duration::from_secs(1).saturating_mul(nodes);
        self.interval = second.checked_div(self.per_second.max(1)).unwrap_or_default();
        let at_once = u32::try_from(self.max_in_flight).unwrap_or(u32::MAX) / nodes;
        self.burst = self.interval.saturating_mul(at_once.saturating_sub(1));
    }

    /// The earliest time for the next POST.
    pub(super) fn at(&self) -> Duration {
        self.slot.saturating_sub(self.burst)
    }

    pub(super) fn posted(&mut self, now: Duration) {
        self.slot = self.slot.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn account(number: usize) -> AccountId {
        AccountId::new(&format!("user{number}"), "imap.example.org:993")
    }

    /// A breaker with its random numbers.
    struct World(Breaker, Rng);

    impl World {
        fn new() -> Self {
            Self(Breaker::new(4), Rng::with_seed(1))
        }

        fn fails(&mut self, number: usize, blame: Blame, now: Duration) {
            self.0.failed(
                BreakerFailure {
                    account: Some(&account(number)),
                    blame,
                    pause: None,
                    is_for_all: false,
                    probe: false,
                },
                now,
                &mut self.1,
            );
        }

        fn probe_fails(&mut self, now: Duration) {
            self.0.probed();
            let account = account(0);
            let failed = BreakerFailure {
                account: Some(&account),
                blame: Blame::Server,
                pause: None,
                is_for_all: false,
                probe: true,
            };
            self.0.failed(failed, now, &mut self.1);
        }

        fn down_at(now: Duration) -> Self {
            let mut world = Self::new();
            (0..3).for_each(|number| world.fails(number, Blame::Server, now));
            world
        }
    }

    #[test]
    fn three_accounts_that_fail_open_it_and_one_success_closes_it() {
        let mut world = World::new();
        for number in 0..3 {
            assert!(!world.0.is_down() && world.0.has_room(3));
            world.fails(number, Blame::Server, s(10));
        }
        assert!(world.0.is_down() && !world.0.has_room(0));
        let probe = world.0.probe_at().unwrap();
        assert!((s(16)..=s(20)).contains(&probe), "{probe:?}");
        world.0.probed();
        assert_eq!(world.0.probe_at(), None, "one probe at a time");
        assert!(world.0.succeeded());
        assert!(!world.0.has_room(1), "slowly at first");
        assert!(!world.0.succeeded());
        assert!(world.0.has_room(1));
    }

    #[test]
    fn one_account_never_opens_it() {
        let mut world = World::new();
        for _ in 0..1000 {
            world.fails(1, Blame::Token, s(0));
            world.fails(1, Blame::Server, s(0));
        }
        assert!(
            !world.0.is_down()
                && world.0.blames_others(&account(2))
                && !world.0.blames_others(&account(1))
        );
        (2..10).for_each(|number| world.fails(number, Blame::Token, s(0)));
        assert!(world.0.is_down(), "but with eight others it does");
    }

    #[test]
    fn accounts_that_did_not_fail_pass_until_many_have() {
        let mut world = World::down_at(s(0));
        for number in 3..CONCLUSIVE {
            assert!(world.0.lets_pass(&account(number)) && !world.0.lets_pass(&account(0)));
            world.fails(number, Blame::Server, s(0));
        }
        assert!(!world.0.lets_pass(&account(CONCLUSIVE)));
        (0..10_000).for_each(|number| world.fails(number, Blame::Server, s(0)));
        assert_eq!(world.0.blamed.len(), CONCLUSIVE);
    }

    #[test]
    fn probes_become_rarer_but_not_for_ever() {
        let mut world = World::down_at(s(0));
        let mut now = s(0);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let probe = world.0.probe_at().unwrap();
            pauses.push(probe.saturating_sub(now));
            now = probe;
            world.probe_fails(now);
        }
        assert!(pauses[0] <= s(10) && pauses[9] >= s(96) && pauses[9] <= s(160), "{pauses:?}");
    }

    #[test]
    fn posts_in_flight_when_it_opened_do_not_delay_the_probe() {
        let mut world = World::down_at(s(0));
        let before = world.0.probe_at();
        (3..16).for_each(|number| world.fails(number, Blame::Server, s(1)));
        assert_eq!(world.0.probe_at(), before);
    }

    #[test]
    fn retry_after_of_the_server_is_honoured_up_to_an_hour() {
        for (asked, kept) in [(s(100), s(100)), (s(1_000_000), s(3600))] {
            let mut world = World::down_at(s(5));
            let account = account(3);
            let (pause, is_for_all) = (Some(asked), false);
            let failed = BreakerFailure {
                account: Some(&account),
                blame: Blame::Server,
                pause,
                is_for_all,
                probe: false,
            };
            world.0.failed(failed, s(5), &mut world.1);
            assert_eq!(world.0.probe_at(), Some(s(5) + kept));
        }
    }

    #[test]
    fn one_answer_that_asks_everybody_to_wait_is_enough() {
        let mut world = World::new();
        let (one, other) = (account(1), account(2));
        let pause = Some(s(100));
        let mut failed = BreakerFailure {
            account: Some(&one),
            blame: Blame::Server,
            pause,
            is_for_all: false,
            probe: false,
        };
        world.0.failed(failed, s(5), &mut world.1);
        assert!(!world.0.is_down(), "a 503 may be that of the token's endpoint");
        failed.is_for_all = true;
        world.0.failed(failed, s(5), &mut world.1);
        assert!(world.0.is_down() && !world.0.lets_pass(&other));
        assert_eq!(world.0.probe_at(), Some(s(105)));
        assert!(world.0.succeeded() && !world.0.is_down());
        failed.account = None;
        world.0.failed(failed, s(200), &mut world.1);
        assert!(!world.0.is_down(), "the token is known to fail by itself");
    }

    #[test]
    fn rate_is_capped_and_shared_by_nodes() {
        for (nodes, expected) in [(1, 100..=104), (2, 50..=52), (3, 33..=34), (50, 2..=3)] {
            let mut pace = PostPace::new(4, 10);
            pace.share(nodes);
            let (mut now, mut posted) = (s(100), 0);
            while now < s(110) {
                if pace.at() > now {
                    now = pace.at();
                } else {
                    pace.posted(now);
                    posted += 1;
                }
            }
            assert!(expected.contains(&posted), "{nodes} nodes: {posted}");
        }
    }
}
