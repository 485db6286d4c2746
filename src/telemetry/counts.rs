//! Counters with one label whose values are all known, so that each series exists from the start.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{LoginResult, PostResult};

/// A kind of thing that counters are told apart by.
pub(super) trait Label: Copy + PartialEq + 'static {
    /// All of them, each with its value of the label.
    const ALL: &'static [(Self, &'static str)];
}

/// A counter for each of `N` values.
#[derive(Debug)]
pub(super) struct CounterArray<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for CounterArray<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> CounterArray<N> {
    /// One more of what has this place.
    pub(super) fn add(&self, place: usize) {
        if let Some(counter) = self.0.get(place) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more of these.
    pub(super) fn add_label<L: Label>(&self, label: L) {
        if let Some(place) = place(label) {
            self.add(place);
        }
    }

    /// How many of these there were.
    pub(super) fn get_label<L: Label>(&self, label: L) -> u64 {
        place(label)
            .and_then(|place| self.0.get(place))
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// All counts, in the order of the places.
    pub(super) fn get(&self) -> [u64; N] {
        std::array::from_fn(|place| {
            self.0.get(place).map_or(0, |counter| counter.load(Ordering::Relaxed))
        })
    }
}

fn place<L: Label>(label: L) -> Option<usize> {
    L::ALL.iter().position(|(known, _)| *known == label)
}

impl Label for LoginResult {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Accepted, "accepted"),
        (Self::Refused, "refused"),
        (Self::Limited, "limited"),
        (Self::NotAllowed, "not_allowed"),
        (Self::Unavailable, "unavailable"),
        (Self::NoMechanism, "no_mechanism"),
    ];
}

/// How a POST ended, without the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostOutcomeKind {
    /// 2xx.
    Accepted,
    /// 410.
    Gone,
    /// Another 4xx.
    Refused,
    /// A status that may heal.
    Failed,
    /// None in time.
    TimedOut,
    /// No connection.
    Unreachable,
}

impl Label for PostOutcomeKind {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Accepted, "accepted"),
        (Self::Gone, "gone"),
        (Self::Refused, "refused"),
        (Self::Failed, "failed"),
        (Self::TimedOut, "timed_out"),
        (Self::Unreachable, "unreachable"),
    ];
}

impl From<PostResult> for PostOutcomeKind {
    fn from(result: PostResult) -> Self {
        match result {
            PostResult::Accepted => Self::Accepted,
            PostResult::Gone => Self::Gone,
            PostResult::Refused(_) => Self::Refused,
            PostResult::Failed(_) => Self::Failed,
            PostResult::TimedOut => Self::TimedOut,
            PostResult::Unreachable => Self::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_a_place_of_its_own() {
        let counts = CounterArray::<6>::default();
        for (times, (label, _)) in LoginResult::ALL.iter().enumerate() {
            (0..times).for_each(|_| counts.add_label(*label));
        }
        assert_eq!(counts.get(), [0, 1, 2, 3, 4, 5]);
        counts.add(6);
        assert_eq!(counts.get(), [0, 1, 2, 3, 4, 5]);
    }
}
