//! Choice of the next POST: fresh news first, a bounded share for retries and for tokens that were never accepted, slots with a
//! short time limit that nobody can hold, and probes while the server is down.

use std::time::Duration;

use super::entry::{PostInFlight, QueuePlace, RetryQueue};
use super::turns::{Class, DueTurn};
use super::{
    FIRST_LIMIT, GiveUpReason, PushSchedule, RETRY_LIMIT, SHORT_LIMIT, ScheduleKey, ScheduleStep,
};
use crate::account::AccountId;
use crate::push::breaker::Breaker;

/// While fresh news waits, one POST in so many is a retry.
const RETRY_EVERY: u32 = 4;

/// So many waiting retries are looked at for a probe: accounts whose POSTs are in flight are passed over.
const PROBE_SEARCH: usize = 16;

/// POSTs in flight.
#[derive(Debug, Default)]
pub(super) struct Flying {
    pub(super) all: usize,
    /// Those of tokens that were never accepted.
    unproven: usize,
    retries: usize,
}

impl Flying {
    fn begun(&mut self, class: Class) {
        self.all += 1;
        self.unproven += usize::from(!class.is_proven());
        self.retries += usize::from(class.is_retry());
    }

    pub(super) fn ended(&mut self, class: Class) {
        self.all -= 1;
        self.unproven -= usize::from(!class.is_proven());
        self.retries -= usize::from(class.is_retry());
    }
}

/// Share of the POSTs in flight for retries, and for tokens that were never accepted.
pub(super) fn share(max_in_flight: usize) -> usize {
    max_in_flight.div_euclid(4).max(1)
}

/// Slots that a POST with a long time limit may not take.
fn kept_free(slots: usize) -> usize {
    slots.div_euclid(4)
}

/// A POST that may begin.
pub(super) struct Choice {
    account: AccountId,
    class: Class,
    probe: bool,
    /// A retry whose time has not come: the server is probed with it.
    early: Option<(RetryQueue, ScheduleKey)>,
}

impl Choice {
    fn first<'a>(
        mut due: impl Iterator<Item = (DueTurn, &'a AccountId)>,
        class: Class,
        probe: bool,
    ) -> Option<(DueTurn, Self)> {
        let (turn, account) = due.next()?;
        Some((turn, Self { account: account.clone(), class, probe, early: None }))
    }
}

impl PushSchedule {
    /// The POST that is next, if one may begin.
    pub(super) fn choose(&self, now: Duration) -> Option<Choice> {
        let fresh = earlier(self.fresh(true, now), self.fresh(false, now));
        let retry = earlier(self.retry_due(true, now), self.retry_due(false, now));
        let is_retrys_turn = self.fresh_in_a_row + 1 >= RETRY_EVERY;
        let choice = if is_retrys_turn { retry.or(fresh) } else { fresh.or(retry) };
        choice.or_else(|| self.early_probe(true, now)).or_else(|| self.early_probe(false, now))
    }

    fn fresh(&self, proven: bool, now: Duration) -> Option<(DueTurn, Choice)> {
        let class = Class::of(proven, false);
        let breaker = self.breaker(proven);
        if !proven && self.flying.unproven >= share(self.max_in_flight) {
            return None;
        }
        let due = || self.turns.due(class);
        if !breaker.is_down() {
            return breaker
                .has_room(self.in_flight(proven))
                .then(|| Choice::first(due(), class, false))?;
        }
        let bystander =
            || due().take(PROBE_SEARCH).filter(|(_, account)| breaker.lets_pass(account));
        let probe = || is_probe_due(breaker, now).then(|| Choice::first(due(), class, true))?;
        Choice::first(bystander(), class, false).or_else(probe)
    }

    fn retry_due(&self, proven: bool, now: Duration) -> Option<(DueTurn, Choice)> {
        let class = Class::of(proven, true);
        let breaker = self.breaker(proven);
        let shares = share(self.max_in_flight);
        if !proven && self.flying.unproven >= shares {
            return None;
        }
        let may = match breaker.is_down() {
            true => is_probe_due(breaker, now),
            false => {
                let is_first = proven && self.flying.retries == 0;
                let has_slot = is_first || self.flying.retries < shares && !self.is_crowded(proven);
                has_slot && breaker.has_room(self.in_flight(proven))
            }
        };
        may.then(|| Choice::first(self.turns.due(class), class, breaker.is_down()))?
    }

    /// Reports if only reserved slots are left, of all or of those for tokens that were never accepted.
    fn is_crowded(&self, proven: bool) -> bool {
        let is_crowded = |taken: usize, slots: usize| taken >= slots - kept_free(slots);
        is_crowded(self.flying.all, self.max_in_flight)
            || !proven && is_crowded(self.flying.unproven, share(self.max_in_flight))
    }

    fn early_probe(&self, proven: bool, now: Duration) -> Option<Choice> {
        let breaker = self.breaker(proven);
        if !is_probe_due(breaker, now)
            || !proven && self.flying.unproven >= share(self.max_in_flight)
        {
            return None;
        }
        let (queue, waiting) = self.early(proven);
        let found = waiting.iter().take(PROBE_SEARCH).find_map(|(key, token)| {
            let entry = self.tokens.get(token)?;
            self.turns.has_room(&entry.account).then(|| (*key, entry.account.clone()))
        });
        found.map(|(key, account)| Choice {
            account,
            class: Class::of(proven, true),
            probe: true,
            early: Some((queue, key)),
        })
    }

    /// The POST begins, unless its time is over.
    pub(super) fn begin(&mut self, choice: Choice, now: Duration) -> ScheduleStep {
        let Choice { account, class, probe, early } = choice;
        let is_crowded = self.is_crowded(class.is_proven());
        let token = match early {
            Some((queue, key)) => {
                let token = self.retries.get_mut(queue).remove(&key);
                self.turns.begin(&account, now);
                token
            }
            None => self.turns.take(&account, class, now),
        };
        let Some(token) = token else { return ScheduleStep::Wait(now) };
        let found = self.tokens.get_mut(&token).and_then(|entry| Some((entry.wanted?, entry)));
        let Some((wanted, entry)) = found else { return self.not_begun(&account, now) };
        let generation = wanted.generation;
        if now > wanted.deadline {
            self.rest(&token, now);
            self.not_begun(&account, now);
            return ScheduleStep::GiveUp { token, generation, reason: GiveUpReason::TooLate };
        }
        let is_short = is_crowded && !class.is_retry() && !probe;
        entry.place =
            QueuePlace::InFlight(PostInFlight { generation, class, probe, began: now, is_short });
        let limit = match class.is_retry() {
            true => RETRY_LIMIT,
            false if is_short => SHORT_LIMIT,
            false => FIRST_LIMIT,
        };
        self.flying.begun(class);
        self.fresh_in_a_row = if class.is_retry() { 0 } else { self.fresh_in_a_row + 1 };
        self.pace.posted(now);
        if probe {
            self.breaker_of(class.is_proven()).probed();
        }
        ScheduleStep::Post { token, generation, limit }
    }

    fn not_begun(&mut self, account: &AccountId, now: Duration) -> ScheduleStep {
        self.turns.ended(account, now, now);
        ScheduleStep::Wait(now)
    }

    /// When something may be posted next for the sake of time alone.
    pub(super) fn wait(&self, now: Duration) -> ScheduleStep {
        let queues = [&self.due, &self.retries.proven, &self.retries.unproven, &self.retries.alone];
        let first = queues.into_iter().filter_map(|queue| queue.keys().next().map(|key| key.0));
        let probes = [true, false].into_iter().filter_map(|proven| self.next_probe(proven));
        first
            .chain(probes)
            .filter(|at| *at > now)
            .min()
            .map_or(ScheduleStep::Idle, ScheduleStep::Wait)
    }

    fn next_probe(&self, proven: bool) -> Option<Duration> {
        let waits =
            [false, true].map(|failed| self.turns.due(Class::of(proven, failed)).next().is_some());
        let has_some = waits.contains(&true) || !self.early(proven).1.is_empty();
        self.breaker(proven).probe_at().filter(|_| has_some)
    }

    fn early(&self, proven: bool) -> (RetryQueue, &super::Queue) {
        if proven {
            (RetryQueue::Proven, &self.retries.proven)
        } else {
            (RetryQueue::Unproven, &self.retries.unproven)
        }
    }

    pub(super) fn breaker(&self, proven: bool) -> &Breaker {
        if proven { &self.breaker } else { &self.newcomers }
    }

    fn in_flight(&self, proven: bool) -> usize {
        let unproven = self.flying.unproven;
        if proven { self.flying.all - unproven } else { unproven }
    }
}

fn is_probe_due(breaker: &Breaker, now: Duration) -> bool {
    breaker.probe_at().is_some_and(|at| at <= now)
}

fn earlier(one: Option<(DueTurn, Choice)>, other: Option<(DueTurn, Choice)>) -> Option<Choice> {
    one.into_iter().chain(other).min_by_key(|(turn, _)| *turn).map(|(_, choice)| choice)
}
