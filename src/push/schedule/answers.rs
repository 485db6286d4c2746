//! Conclusions from the answers: who is to blame, and when the token is tried again.

use std::time::Duration;

use super::entry::{PostInFlight, QueuePlace, TokenQuarantine};
use super::turns::Class;
use super::{
    GiveUpReason, NEWS_PAUSE, PATIENCE, PostAnswer, PostConclusion, PushSchedule, RetryQueue,
    TransientFailure, enqueue,
};
use crate::account::AccountId;
use crate::backoff::{GrowingWait, around};
use crate::push::breaker::{Blame, BreakerFailure, LONGEST_PAUSE, LONGEST_PROBE};
use crate::secret::DeviceToken;
use crate::store::Generation;

/// The waits between two attempts: 1, 8, 8², 8³, 8⁴ seconds, and no longer.
const WAITS: GrowingWait =
    GrowingWait::by_factor(8, Duration::from_secs(1), Duration::from_secs(8_u64.pow(4)));
/// So many 410 in a row are believed although no other account's POST was accepted in between.
const GONE_UNCONFIRMED: u32 = 3;
/// Wait in quarantine after the first answer.
const FIRST_QUARANTINE: Duration = Duration::from_secs(3600);
/// Wait in quarantine after each further answer.
pub const QUARANTINE: Duration = Duration::from_secs(24 * 3600);
/// After so many answers the announcement is given up: the next attempt is for other news.
const LAST_ANSWER: u32 = 3;

/// A POST that was not accepted.
#[derive(Clone, Copy)]
struct FailedPost {
    posted: Generation,
    class: Class,
    failure: TransientFailure,
    retry_after: Option<Duration>,
}

impl PushSchedule {
    /// The POST of `token` ended with `answer`.
    pub fn answered(
        &mut self,
        token: &DeviceToken,
        answer: PostAnswer,
        now: Duration,
    ) -> PostConclusion {
        let Some(entry) = self.tokens.get_mut(token) else { return PostConclusion::Dropped };
        let QueuePlace::InFlight(flight) = entry.place else { return PostConclusion::Dropped };
        let PostInFlight { generation, class, .. } = flight;
        let account = entry.account.clone();
        self.flying.ended(class);
        self.turns.ended(&account, flight.began, now);
        let (failure, retry_after) = match answer {
            PostAnswer::Accepted => {
                entry.clear_failures();
                entry.proven = true;
                entry.announced = generation;
                self.turns.accepted(&account, now);
                self.settle(token, generation, now);
                self.succeeded(account, now);
                return PostConclusion::Accepted(generation);
            }
            PostAnswer::Gone => (TransientFailure::Status(410), None),
            PostAnswer::Refused(status) => (TransientFailure::Status(status), None),
            PostAnswer::Failed { failure, retry_after } => (failure, retry_after),
        };
        if failure == TransientFailure::TimedOut {
            self.turns.timed_out(&account, now);
        }
        let attempt = FailedPost { posted: generation, class, failure, retry_after };
        self.failed(token, &account, attempt, flight, now);
        match answer {
            _ if self.tokens.get(token).is_none_or(|entry| entry.wanted.is_none()) => {
                self.tokens.remove(token);
                PostConclusion::Dropped
            }
            PostAnswer::Gone => self.gone(token, attempt, now),
            _ => self.give_up_or_retry(token, &account, attempt, answer, now),
        }
    }

    /// Notes the failure, with the token and with the breaker.
    fn failed(
        &mut self,
        token: &DeviceToken,
        account: &AccountId,
        attempt: FailedPost,
        flight: PostInFlight,
        now: Duration,
    ) {
        let others = self.accepted_of_others(account);
        let Some(entry) = self.tokens.get_mut(token) else { return };
        let was_known = entry.is_known_to_fail();
        entry.failed(attempt.failure != TransientFailure::Unreachable, others, now);
        // A token that was waited for only briefly, or while others were accepted, has hung by itself.
        let hung = attempt.failure == TransientFailure::TimedOut
            && (flight.is_short || others.is_some_and(|accepted| accepted > flight.began));
        let is_evidence = !was_known && !entry.is_known_to_fail() && !hung;
        let is_the_servers = attempt.failure.is_the_servers();
        let failed = BreakerFailure {
            account: is_evidence.then_some(account),
            blame: if is_the_servers { Blame::Server } else { Blame::Token },
            pause: attempt.retry_after.filter(|_| is_the_servers),
            is_for_all: attempt.failure == TransientFailure::Status(429)
                && attempt.retry_after.is_some(),
            probe: flight.probe,
        };
        let breaker =
            if attempt.class.is_proven() { &mut self.breaker } else { &mut self.newcomers };
        breaker.failed(failed, now, &mut self.rng);
    }

    fn give_up_or_retry(
        &mut self,
        token: &DeviceToken,
        account: &AccountId,
        attempt: FailedPost,
        answer: PostAnswer,
        now: Duration,
    ) -> PostConclusion {
        let is_own = self.is_own_failure(account, attempt.failure);
        let Some(entry) = self.tokens.get_mut(token) else { return PostConclusion::Dropped };
        let reason = match answer {
            PostAnswer::Refused(status) if is_own && (entry.hopeless || entry.is_the_cause()) => {
                GiveUpReason::Refused(status)
            }
            PostAnswer::Failed { failure, .. } if is_own && entry.hopeless => {
                GiveUpReason::Hopeless(failure)
            }
            _ => return self.retry(token, attempt, now),
        };
        entry.hopeless = true;
        self.settle(token, attempt.posted, now);
        PostConclusion::GaveUp(attempt.posted, reason)
    }

    /// Reports if a failure is the token's own: others are accepted, and no other account has failed since.
    fn is_own_failure(&self, account: &AccountId, failure: TransientFailure) -> bool {
        failure != TransientFailure::Unreachable
            && self.accepted_of_others(account).is_some()
            && ![true, false].iter().any(|proven| self.breaker(*proven).blames_others(account))
    }

    /// The server says that the token is gone. One such answer is no proof, and none is while the server is down.
    fn gone(&mut self, token: &DeviceToken, attempt: FailedPost, now: Duration) -> PostConclusion {
        let is_down = self.breaker(attempt.class.is_proven()).is_down();
        let Some(entry) = self.tokens.get_mut(token) else { return PostConclusion::Dropped };
        let before = entry.quarantine.map_or(0, |quarantine| quarantine.answers);
        if before == 0 && (is_down || entry.alone == 0 && entry.failures < GONE_UNCONFIRMED) {
            return self.retry(token, attempt, now);
        }
        let answers = before.saturating_add(u32::from(!is_down)); // from the disk at first
        let wait = if answers <= 1 || is_down { FIRST_QUARANTINE } else { QUARANTINE };
        let until = now + wait;
        entry.quarantine = Some(TokenQuarantine { answers, until });
        let gives_up = answers >= LAST_ANSWER && !is_down;
        entry.wanted =
            entry.wanted.filter(|wanted| !gives_up || wanted.generation > attempt.posted);
        if let Some(wanted) = &mut entry.wanted {
            wanted.deadline = wanted.deadline.max(until.saturating_add(PATIENCE));
            entry.place =
                QueuePlace::Due(enqueue(&mut self.due, &mut self.sequence, until, token.clone()));
        } else {
            self.rest(token, now);
        }
        match is_down {
            true => PostConclusion::Retry(until),
            false => PostConclusion::Quarantined {
                answers,
                until,
                gave_up: gives_up.then_some(attempt.posted),
            },
        }
    }

    /// After a POST that is not to be repeated: what came meanwhile waits for the window's end.
    fn settle(&mut self, token: &DeviceToken, posted: Generation, now: Duration) {
        let Some(entry) = self.tokens.get_mut(token) else { return };
        entry.quiet_until = now.saturating_add(self.coalesce);
        entry.wanted = entry.wanted.filter(|wanted| wanted.generation > posted);
        if entry.wanted.is_some() {
            let key = enqueue(&mut self.due, &mut self.sequence, entry.quiet_until, token.clone());
            entry.place = QueuePlace::Due(key);
        } else {
            self.rest(token, now);
        }
    }

    fn retry(&mut self, token: &DeviceToken, attempt: FailedPost, now: Duration) -> PostConclusion {
        let FailedPost { posted, failure, .. } = attempt;
        let Some(account) = self.tokens.get(token).map(|entry| entry.account.clone()) else {
            return PostConclusion::Dropped;
        };
        let others = self.accepted_of_others(&account);
        let Some(entry) = self.tokens.get_mut(token) else { return PostConclusion::Dropped };
        let Some(wanted) = entry.wanted else { return PostConclusion::Dropped };
        let since = entry.failing.map_or(now, |failing| failing.since);
        let earliest = now + NEWS_PAUSE;
        // After a 410, at least as long as an outage of a minute.
        let failures = if failure == TransientFailure::Status(410) {
            entry.failures + 1
        } else {
            entry.failures
        };
        let mut wait = around(WAITS.after(failures), &mut self.rng);
        // Perhaps the server is down and nobody else shows it: the token is the probe.
        let may_be_an_outage = others.is_none_or(|accepted| accepted < since);
        if may_be_an_outage && (entry.proven || failure.is_the_servers()) {
            wait = wait.min(around(LONGEST_PROBE, &mut self.rng));
        }
        let mut at = now + wait;
        if wanted.generation > posted {
            at = at.min(earliest);
        }
        let after = attempt.retry_after.map(|after| after.min(LONGEST_PAUSE));
        let at = after.map_or(at, |after| at.max(now + after));
        // News puts the deadline off. A token that alone has failed for as long is no better for it.
        let is_alone = failure != TransientFailure::Unreachable && entry.is_the_cause();
        let limit = match is_alone {
            true => wanted.deadline.min(since + PATIENCE),
            false => wanted.deadline,
        };
        if at > limit {
            entry.hopeless |= is_alone;
            // The next announcement has its own five hours.
            (entry.failing, entry.alone) = (None, 0);
            self.rest(token, now);
            return PostConclusion::GaveUp(wanted.generation, GiveUpReason::TooLate);
        }
        entry.place = match after {
            // The time that the server asked for is kept in any case.
            Some(_) => {
                QueuePlace::Due(enqueue(&mut self.due, &mut self.sequence, at, token.clone()))
            }
            None => {
                let queue = entry.retry_queue();
                let key =
                    enqueue(self.retries.get_mut(queue), &mut self.sequence, at, token.clone());
                QueuePlace::Retry { queue, key, earliest }
            }
        };
        PostConclusion::Retry(at)
    }

    /// A POST of the account was accepted. If the server had been down, its tokens need not wait for their retries any more:
    /// the breaker paces.
    fn succeeded(&mut self, account: AccountId, now: Duration) {
        let [latest, other] = &mut self.accepted;
        if latest.as_ref().is_some_and(|(known, _)| *known != account) {
            *other = latest.take();
        }
        *latest = Some((account, now));
        for (proven, queue) in [(true, RetryQueue::Proven), (false, RetryQueue::Unproven)] {
            if self.breaker_of(proven).succeeded() {
                self.release(queue, now);
            }
        }
    }

    fn release(&mut self, queue: RetryQueue, now: Duration) {
        for (_, token) in std::mem::take(self.retries.get_mut(queue)) {
            if let Some(entry) = self.tokens.get_mut(&token) {
                entry.place =
                    QueuePlace::Due(enqueue(&mut self.due, &mut self.sequence, now, token));
            }
        }
    }

    /// When a POST of another account was last accepted.
    fn accepted_of_others(&self, account: &AccountId) -> Option<Duration> {
        let others = self.accepted.iter().flatten();
        others.filter(|(accepted, _)| accepted != account).map(|(_, at)| *at).max()
    }
}
