//! Failures in a sliding window of time, compared with a limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Times of failures, the latest last; never longer than the largest limit that it is compared with.
#[derive(Debug, Default)]
pub(super) struct FailureWindow(VecDeque<Instant>);

/// A limit that refuses a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginLimit {
    /// Failures from the address of the client.
    Address,
    /// Failures for the account.
    Account,
    /// Failures at the mail server.
    Upstream,
    /// Different mail servers tried from the address of the client.
    Servers,
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// The limit.
    pub limit: LoginLimit,
    /// Until it is not any more, if nothing else fails.
    pub wait: Duration,
}

/// The answer to the question if one more login may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Some,
    /// If what is under way does not fail.
    Later,
    /// Too many have failed.
    None(Blocked),
}

impl Room {
    /// Combines both: of two limits that are reached, the one that lasts longer.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None(one), Self::None(two)) => {
                Self::None(if one.wait >= two.wait { one } else { two })
            }
            (Self::None(blocked), _) | (_, Self::None(blocked)) => Self::None(blocked),
            (Self::Later, _) | (_, Self::Later) => Self::Later,
            (Self::Some, Self::Some) => Self::Some,
        }
    }
}

impl FailureWindow {
    pub(super) fn note(&mut self, now: Instant, limit: usize) {
        while self.0.len() >= limit.max(1) {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    pub(super) fn count(&self, within: Duration, now: Instant) -> usize {
        self.0
            .iter()
            .rev()
            .take_while(|then| now.saturating_duration_since(**then) < within)
            .count()
    }

    /// Time until fewer than `limit` count; zero if this is so already.
    pub(super) fn wait(&self, limit: usize, within: Duration, now: Instant) -> Duration {
        let decisive = self.0.len().checked_sub(limit.max(1)).and_then(|index| self.0.get(index));
        decisive.map_or(Duration::ZERO, |then| {
            within.saturating_sub(now.saturating_duration_since(*then))
        })
    }
}

/// Compares what failed, and what is under way and may fail yet, with a limit.
pub(super) fn room(
    failed: Option<&FailureWindow>,
    under_way: usize,
    (limit, number): (LoginLimit, usize),
    within: Duration,
    now: Instant,
) -> Room {
    let count = failed.map_or(0, |window| window.count(within, now));
    if count >= number {
        let wait = failed.map_or(within, |window| window.wait(number, within, now));
        Room::None(Blocked { limit, wait })
    } else if count + under_way >= number {
        Room::Later
    } else {
        Room::Some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_time_ends_when_the_decisive_failure_is_old_enough() {
        let (start, within) = (Instant::now(), Duration::from_secs(600));
        let at = |second| start + Duration::from_secs(second);
        let mut window = FailureWindow::default();
        [0, 10, 200].into_iter().for_each(|second| window.note(at(second), 4));
        assert_eq!(window.wait(3, within, at(300)), Duration::from_secs(300));
        assert_eq!(window.wait(2, within, at(300)), Duration::from_secs(310));
        assert_eq!(window.wait(4, within, at(300)), Duration::ZERO);
        assert_eq!(window.count(within, at(609)), 2);
        let full = |number| room(Some(&window), 0, (LoginLimit::Account, number), within, at(300));
        assert_eq!(
            full(3),
            Room::None(Blocked { limit: LoginLimit::Account, wait: Duration::from_secs(300) })
        );
        assert_eq!(
            (full(4), room(Some(&window), 1, (LoginLimit::Account, 4), within, at(300))),
            (Room::Some, Room::Later)
        );
    }
}
