//! State of one token.

use std::time::Duration;

use super::turns::Class;
use super::{Queue, ScheduleKey, TokenState};
use crate::account::AccountId;
use crate::store::Generation;

/// Number of failures by itself after which a token counts as the cause.
pub(super) const CHANCES: u32 = 3;

#[derive(Debug)]
pub(super) struct ScheduledToken {
    /// The account that takes turns for the token: the first that has it.
    pub(super) account: AccountId,
    /// True if a POST of the token was ever accepted.
    pub(super) proven: bool,
    /// The pending announcement.
    pub(super) wanted: Option<PendingPush>,
    /// Announced by the last accepted POST.
    pub(super) announced: Generation,
    /// Before this time there is no POST: an accepted one is too recent.
    pub(super) quiet_until: Duration,
    /// POSTs that failed since one was accepted.
    pub(super) failures: u32,
    /// First and last of these.
    pub(super) failing: Option<FailureCount>,
    /// Failures of which each came after another account's POST had been accepted since the one before.
    pub(super) alone: u32,
    /// Given up while others were accepted: each announcement gets one attempt, until one is accepted.
    pub(super) hopeless: bool,
    /// The server says that the token is gone (410).
    pub(super) quarantine: Option<TokenQuarantine>,
    pub(super) place: QueuePlace,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct FailureCount {
    pub(super) since: Duration,
    pub(super) last: Duration,
}

/// Quarantine of a token that the notification server says is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenQuarantine {
    /// Number of these answers, at times far enough apart.
    pub(super) answers: u32,
    /// No POST before this time.
    pub(super) until: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PendingPush {
    pub(super) generation: Generation,
    /// After this time it is given up.
    pub(super) deadline: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum QueuePlace {
    InFlight(PostInFlight),
    /// In `due`.
    Due(ScheduleKey),
    /// In one of `retries`. `earliest` is when news may bring it forward to.
    Retry {
        queue: RetryQueue,
        key: ScheduleKey,
        earliest: Duration,
    },
    /// In `turns`, since this time.
    Ready {
        class: Class,
        since: Duration,
    },
    /// In `quiet`.
    Quiet(ScheduleKey),
}

/// A POST under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct PostInFlight {
    pub(super) generation: Generation,
    pub(super) class: Class,
    pub(super) probe: bool,
    pub(super) began: Duration,
    /// In the slots that are kept free, with [`SHORT_LIMIT`](super::SHORT_LIMIT).
    pub(super) is_short: bool,
}

/// The queue in which a retry waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryQueue {
    /// Accepted before: may probe a server that is down.
    Proven,
    /// Never accepted.
    Unproven,
    /// Fails while others are accepted: neither a probe, nor brought forward when the server is back.
    Alone,
}

/// The queues of retries, by [`RetryQueue`].
#[derive(Debug, Default)]
pub(super) struct Retries {
    pub(super) proven: Queue,
    pub(super) unproven: Queue,
    pub(super) alone: Queue,
}

impl Retries {
    pub(super) fn get_mut(&mut self, queue: RetryQueue) -> &mut Queue {
        match queue {
            RetryQueue::Proven => &mut self.proven,
            RetryQueue::Unproven => &mut self.unproven,
            RetryQueue::Alone => &mut self.alone,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.proven.len() + self.unproven.len() + self.alone.len()
    }
}

impl ScheduledToken {
    pub(super) fn new(account: AccountId, proven: bool, place: QueuePlace) -> Self {
        Self {
            account,
            proven,
            wanted: None,
            announced: Generation::default(),
            quiet_until: Duration::ZERO,
            failures: 0,
            failing: None,
            alone: 0,
            hopeless: false,
            quarantine: None,
            place,
        }
    }

    /// Takes over a shorter wait in quarantine: a client has handed the token over again. A wait from before the last answer
    /// does not count.
    pub(super) fn shorten_quarantine(&mut self, standing: &TokenState, now: Duration) {
        if let (Some(quarantine), Some(known)) = (&mut self.quarantine, standing.quarantine)
            && quarantine.answers == known.answers
        {
            quarantine.until = quarantine.until.min(now.saturating_add(known.wait));
        }
    }

    /// Waits out the window after another node's POST, which may be a second younger than its age in whole seconds.
    pub(super) fn await_window(&mut self, state: &TokenState, coalesce: Duration, now: Duration) {
        let Some(since) = state.since_post else { return };
        let rest = coalesce.saturating_sub(since.saturating_sub(Duration::from_secs(1)));
        if !rest.is_zero() {
            self.quiet_until = self.quiet_until.max(now.saturating_add(rest));
        }
    }

    pub(super) fn class(&self) -> Class {
        Class::of(self.proven, self.failures > 0 || self.quarantine.is_some())
    }

    pub(super) fn retry_queue(&self) -> RetryQueue {
        match (self.alone, self.proven) {
            (0, true) => RetryQueue::Proven,
            (0, false) => RetryQueue::Unproven,
            _ => RetryQueue::Alone,
        }
    }

    /// Reports if a failure is no evidence about the server, because the token is known to fail by itself.
    pub(super) fn is_known_to_fail(&self) -> bool {
        self.alone > 0 || self.hopeless || self.quarantine.is_some()
    }

    /// Notes a failure that may be the token's own, if `may_be_own`. Another account's POST was last accepted at `others`.
    pub(super) fn failed(&mut self, may_be_own: bool, others: Option<Duration>, now: Duration) {
        self.failures += 1;
        let failing = self.failing.get_or_insert(FailureCount { since: now, last: now });
        let accepted_between = others.is_some_and(|accepted| accepted > failing.last);
        failing.last = now;
        if may_be_own && accepted_between {
            self.alone += 1;
        }
    }

    /// Reports if the token is the cause of its failures.
    pub(super) fn is_the_cause(&self) -> bool {
        self.alone >= CHANCES
    }

    pub(super) fn clear_failures(&mut self) {
        self.failures = 0;
        (self.failing, self.alone) = (None, 0);
        self.hopeless = false;
        self.quarantine = None;
    }
}

impl PendingPush {
    pub(super) fn merge(self, newer: Self) -> Self {
        Self {
            generation: self.generation.max(newer.generation),
            deadline: self.deadline.max(newer.deadline),
        }
    }
}
