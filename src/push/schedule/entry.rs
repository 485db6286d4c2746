//! What is known of one token.

use std::time::Duration;

use super::Key;
use crate::store::Generation;

#[derive(Debug)]
pub(super) struct Entry {
    /// What there is to announce.
    pub(super) wanted: Option<Wanted>,
    /// Before this time there is no POST: an accepted one is too recent.
    pub(super) quiet_until: Duration,
    /// How many POSTs have failed since one was accepted.
    pub(super) failures: u32,
    /// When the first of these came that may be the token's own.
    pub(super) failing_since: Option<Duration>,
    /// How many of these came after another token had been accepted since.
    pub(super) alone: u32,
    /// It was given up while others were accepted.
    pub(super) hopeless: bool,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) generation: Generation,
    /// After this time it is given up.
    pub(super) deadline: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    InFlight {
        generation: Generation,
    },
    Due(Key),
    /// `earliest` is when news may bring it forward to.
    Retry {
        key: Key,
        earliest: Duration,
    },
    Quiet(Key),
}

impl Entry {
    pub(super) fn new(wanted: Wanted, place: Place) -> Self {
        let quiet_until = Duration::ZERO;
        Self { wanted: Some(wanted), quiet_until, failures: 0, failing_since: None, alone: 0, hopeless: false, place }
    }

    /// The failure is not the server's own; some other token was last accepted at `accepted`.
    pub(super) fn failed_by_itself(&mut self, accepted: Option<Duration>, now: Duration) {
        let since = *self.failing_since.get_or_insert(now);
        if accepted.is_some_and(|accepted| accepted > since) {
            self.alone = self.alone.saturating_add(1);
        }
    }

    pub(super) fn clear_failures(&mut self) {
        self.failures = 0;
        (self.failing_since, self.alone) = (None, 0);
        self.hopeless = false;
    }
}

impl Wanted {
    pub(super) fn merge(self, newer: Self) -> Self {
        Self { generation: self.generation.max(newer.generation), deadline: self.deadline.max(newer.deadline) }
    }
}
