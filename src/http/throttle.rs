//! Slows down guessing of a password or token: after a wrong one, its address must wait before the next attempt. Sans-IO.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::admission::Prefix;
use crate::backoff::GrowingWait;
use crate::bounded::Bounded;

/// Addresses that are remembered; IPv6 counts by /64.
const ADDRESSES: usize = 10_000;

/// Time after which a wrong one is forgotten.
const WITHIN: Duration = Duration::from_secs(3600);

/// The wait after a wrong one.
const WAITS: GrowingWait = GrowingWait::doubling(Duration::from_secs(1), Duration::from_secs(60));

/// Addresses with wrong passwords or tokens.
#[derive(Debug)]
pub(super) struct Guesses(Bounded<Prefix, Guesser>);

#[derive(Debug, Clone, Copy)]
struct Guesser {
    wrong: u32,
    until: Instant,
}

impl Default for Guesses {
    fn default() -> Self {
        Self(Bounded::new(ADDRESSES, WITHIN))
    }
}

impl Guesses {
    /// The time until another one of this address is checked.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let guesser = self.0.get(&Prefix::of(address), now)?;
        Some(guesser.until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Records a wrong one. Returns whether it is the first in a row.
    pub(super) fn wrong(&mut self, address: IpAddr, now: Instant) -> bool {
        let is_first = self.0.get(&Prefix::of(address), now).is_none();
        let guesser = self.0.entry(Prefix::of(address), now, || Guesser { wrong: 0, until: now });
        let wait = WAITS.after(guesser.wrong);
        *guesser =
            Guesser { wrong: guesser.wrong + 1, until: now.checked_add(wait).unwrap_or(now) };
        is_first
    }

    /// Records the correct one.
    pub(super) fn right(&mut self, address: IpAddr) {
        self.0.remove(&Prefix::of(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_password_doubles_the_wait_of_its_address() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(guesses.wait(one, start).is_none());
        assert!(guesses.wrong(one, start));
        assert_eq!(guesses.wait(one, start), Some(WAITS.after(0)));
        assert!(guesses.wait(one, at(1)).is_none() && guesses.wait(other, start).is_none());
        assert!(!guesses.wrong(one, at(1)));
        assert_eq!(guesses.wait(one, at(1)), Some(WAITS.after(1)));
        // A day of trying at once when it is allowed.
        let mut now = at(1);
        let mut tries = 0;
        while now < at(86_400) {
            now += guesses.wait(one, now).unwrap_or_default();
            guesses.wrong(one, now);
            tries += 1;
        }
        assert!(tries < 1500, "{tries}");
        guesses.right(one);
        assert!(guesses.wait(one, now).is_none());
    }
}
