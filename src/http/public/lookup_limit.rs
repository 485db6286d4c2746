//! Limits look-ups of addresses per client address, so that nobody learns which addresses and domains are served by
//! trying many. Sans-IO.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::admission::Prefix;
use crate::bounded::Bounded;

/// Client addresses that are remembered; IPv6 counts by /64.
const ADDRESSES: usize = 10_000;

/// Look-ups at once: a web server may forward autoconfig for a whole domain.
const BURST: u32 = 100;

/// Interval at which one more look-up is allowed after these.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time after which a client address may again look up [`BURST`] addresses at once.
const WITHIN: Duration = Duration::from_secs(100);

/// For each client address, the time at which its look-ups so far would be paid off at one per [`INTERVAL`].
#[derive(Debug)]
pub(super) struct LookupLimit(Bounded<Prefix, Instant>);

impl Default for LookupLimit {
    fn default() -> Self {
        Self(Bounded::new(ADDRESSES, WITHIN))
    }
}

impl LookupLimit {
    /// Counts a look-up. `Some` if it is refused: the time to wait for the next.
    pub(super) fn wait(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        let paid = self.0.entry(Prefix::of(address), now, || now);
        let after = (*paid).max(now).checked_add(INTERVAL)?;
        let ahead = after.saturating_duration_since(now);
        let wait = ahead.saturating_sub(INTERVAL.saturating_mul(BURST));
        if wait.is_zero() {
            *paid = after;
            return None;
        }
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_followed_by_one_lookup_per_interval() {
        let (mut limit, start) = (LookupLimit::default(), Instant::now());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..BURST {
            assert_eq!(limit.wait(one, start), None);
        }
        assert_eq!(limit.wait(one, start), Some(INTERVAL));
        assert_eq!(limit.wait(other, start), None);
        // A day of trying as often as possible.
        let mut allowed = 0;
        for tenth in 0..864_000 {
            let now = start + Duration::from_millis(100 * tenth);
            allowed += u32::from(limit.wait(one, now).is_none());
        }
        assert!((86_000..=86_400).contains(&allowed), "{allowed}");
        let later = start + Duration::from_secs(86_400) + WITHIN;
        assert!((0..BURST).all(|_| limit.wait(one, later).is_none()));
        assert!(limit.wait(one, later).is_some());
    }
}
