//! When each token is posted: a machine of tokens, answers and time. Sans-IO; `now` is a monotonic clock of the caller's
//! that begins anywhere and never goes back.
//!
//! A token has something to announce or it has not. First news is posted at once. What comes within the coalescing window
//! after an accepted POST, or while one is in flight, is announced by one POST at the window's end, and never dropped. A POST
//! that fails is tried again after 8¹, 8², 8³, 8⁴, 8⁴ … seconds (as the chatmail relay does, with jitter) until five
//! hours after the news; what cannot heal is not tried again. A token that was given up so while others were accepted is
//! hopeless: until it is accepted once, each of its announcements gets one attempt. Over all tokens the breaker decides.

mod entry;
mod post;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use entry::{Entry, Place, Wanted};
use fastrand::Rng;
pub use post::{Answer, Failure, GivenUp, Outcome};

use super::breaker::{Admission, Blame, Breaker, LONGEST_PAUSE, jittered};
use crate::secret::DeviceToken;
use crate::store::Generation;

/// For how long after the news a POST is tried.
pub const PATIENCE: Duration = Duration::from_secs(5 * 3600);
/// The longest wait between two attempts is 8 to this power, in seconds.
const HIGHEST_POWER: u32 = 4;
/// News of a token whose POST failed waits no longer than this after that attempt.
const NEWS_PAUSE: Duration = Duration::from_secs(64);
/// That a token failed is remembered for this long.
const FAILURE_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// How often a token must have failed by itself before it can be hopeless.
const CHANCES: u32 = 3;

/// The schedule's limits.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The time after an accepted POST in which its token is not posted again.
    pub coalesce: Duration,
    /// How many POSTs may be in flight at once.
    pub max_in_flight: usize,
    /// How many POSTs may begin in a second, on average.
    pub per_second: u32,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Post the token, and say the answer with [`Schedule::answered`].
    Post {
        /// The token.
        token: DeviceToken,
        /// What an accepted POST will have announced.
        generation: Generation,
    },
    /// The token's announcement is too old: it is given up without another attempt.
    GiveUp {
        /// The token.
        token: DeviceToken,
        /// Up to where it is given up.
        generation: Generation,
        /// Why.
        reason: GivenUp,
    },
    /// Nothing before this time, unless there is news or an answer.
    Wait(Duration),
    /// Nothing until there is news or an answer.
    Idle,
}

/// The schedule of all tokens. Every step costs a logarithm of their number.
#[derive(Debug)]
pub struct Schedule {
    coalesce: Duration,
    tokens: HashMap<DeviceToken, Entry>,
    /// What is posted at its time, not earlier.
    due: Queue,
    /// What is posted at its time, or earlier as a probe, or when the server has come back.
    retries: Queue,
    /// What has nothing to announce, until it need not be remembered any more.
    quiet: Queue,
    in_flight: usize,
    breaker: Breaker,
    /// When some token was last accepted.
    accepted: Option<Duration>,
    rng: Rng,
    /// Tells apart what is due at the same time, in the order in which it was put there.
    sequence: u64,
}

/// A time, and a number that makes it unique.
type Key = (Duration, u64);
type Queue = BTreeMap<Key, DeviceToken>;

impl Schedule {
    /// An empty schedule. The seed is for jitter.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            coalesce: settings.coalesce,
            tokens: HashMap::new(),
            due: Queue::new(),
            retries: Queue::new(),
            quiet: Queue::new(),
            in_flight: 0,
            breaker: Breaker::new(settings.max_in_flight, settings.per_second),
            accepted: None,
            rng: Rng::with_seed(seed),
            sequence: 0,
        }
    }

    /// How many tokens have something to announce.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.due.len().saturating_add(self.retries.len()).saturating_add(self.in_flight)
    }

    /// Whether the notification server counts as down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.breaker.is_down()
    }

    /// When the token is posted next, if it has something to announce and that is known, and whether it waits because it failed.
    #[must_use]
    pub fn next_post(&self, token: &DeviceToken) -> Option<(Duration, bool)> {
        let entry = self.tokens.get(token)?;
        match entry.place {
            Place::Due(key) | Place::Retry { key, .. } => Some((key.0, entry.failures > 0)),
            Place::InFlight { .. } | Place::Quiet(_) => None,
        }
    }

    /// The token has something to announce up to `generation`, noticed `age` ago (more than nothing only after a restart).
    pub fn notice(&mut self, token: DeviceToken, generation: Generation, age: Duration, now: Duration) {
        let wanted = Wanted { generation, deadline: now.saturating_add(PATIENCE.saturating_sub(age)) };
        let Some(entry) = self.tokens.get_mut(&token) else {
            let key = enqueue(&mut self.due, &mut self.sequence, now, token.clone());
            self.tokens.insert(token, Entry::new(wanted, Place::Due(key)));
            return;
        };
        entry.wanted = Some(entry.wanted.map_or(wanted, |older| older.merge(wanted)));
        match entry.place {
            Place::InFlight { .. } | Place::Due(_) => {}
            Place::Quiet(key) => {
                self.quiet.remove(&key);
                let at = entry.quiet_until.max(now);
                entry.place = Place::Due(enqueue(&mut self.due, &mut self.sequence, at, token));
            }
            Place::Retry { key, earliest } => {
                let at = earliest.max(now);
                if at < key.0 {
                    self.retries.remove(&key);
                    let key = enqueue(&mut self.retries, &mut self.sequence, at, token);
                    entry.place = Place::Retry { key, earliest };
                }
            }
        }
    }

    /// The token is to be posted no more, unless there is news of it again.
    pub fn forget(&mut self, token: &DeviceToken) {
        let Some(entry) = self.tokens.get_mut(token) else { return };
        entry.wanted = None;
        entry.clear_failures();
        match entry.place {
            // Its answer is still to come.
            Place::InFlight { .. } => return,
            Place::Due(key) => self.due.remove(&key),
            Place::Retry { key, .. } => self.retries.remove(&key),
            Place::Quiet(key) => self.quiet.remove(&key),
        };
        // It may come back within its window.
        let until = entry.quiet_until;
        entry.place = Place::Quiet(enqueue(&mut self.quiet, &mut self.sequence, until, token.clone()));
    }

    /// What is to be done at `now`. To be asked until the answer is to wait.
    pub fn next(&mut self, now: Duration) -> Step {
        self.clear_quiet(now);
        match self.breaker.admission(self.in_flight, now) {
            Admission::AfterAnswer => Step::Idle,
            Admission::At(at) => self.first_due().map_or(Step::Idle, |due| Step::Wait(due.max(at))),
            Admission::Now => self.take(now),
        }
    }

    /// The POST of `token` ended with `answer`.
    pub fn answered(&mut self, token: &DeviceToken, answer: Answer, now: Duration) -> Outcome {
        let Some(entry) = self.tokens.get_mut(token) else { return Outcome::Dropped };
        let Place::InFlight { generation } = entry.place else { return Outcome::Dropped };
        self.in_flight = self.in_flight.saturating_sub(1);
        match answer {
            Answer::Accepted => {
                entry.clear_failures();
                self.accepted = Some(now);
                self.settle(token, generation, now);
                self.succeeded(now);
                Outcome::Accepted(generation)
            }
            Answer::Gone => {
                self.tokens.remove(token);
                self.succeeded(now);
                Outcome::Forget
            }
            Answer::Refused(status) => {
                entry.failures = entry.failures.saturating_add(1);
                self.settle(token, generation, now);
                self.succeeded(now);
                Outcome::GaveUp(generation, GivenUp::Refused(status))
            }
            Answer::Failed { failure, retry_after } => {
                let blame = match entry.failures {
                    _ if failure.is_the_servers() => Blame::Server,
                    0 => Blame::Token,
                    _ => Blame::KnownToken,
                };
                let pause = retry_after.filter(|_| failure.is_the_servers());
                self.breaker.failed(blame, pause, now, &mut self.rng);
                if let Some(status) = failure.of_the_token() {
                    if entry.hopeless {
                        entry.failures = entry.failures.saturating_add(1);
                        self.settle(token, generation, now);
                        return Outcome::GaveUp(generation, GivenUp::Hopeless(status));
                    }
                    entry.failed_by_itself(self.accepted, now);
                }
                self.retry(token, generation, failure, retry_after, now)
            }
        }
    }

    /// After a POST that is not to be repeated: what came meanwhile waits for the window's end.
    fn settle(&mut self, token: &DeviceToken, posted: Generation, now: Duration) {
        let Some(entry) = self.tokens.get_mut(token) else { return };
        entry.quiet_until = now.saturating_add(self.coalesce);
        entry.wanted = entry.wanted.filter(|wanted| wanted.generation > posted);
        if entry.wanted.is_some() {
            let key = enqueue(&mut self.due, &mut self.sequence, entry.quiet_until, token.clone());
            entry.place = Place::Due(key);
        } else {
            self.rest(token, now);
        }
    }

    /// A token with nothing to announce is remembered for its window, and for its failures.
    fn rest(&mut self, token: &DeviceToken, now: Duration) {
        let Some(entry) = self.tokens.get_mut(token) else { return };
        entry.wanted = None;
        let until = match entry.failures {
            // Until it is accepted, or forgotten by everybody.
            _ if entry.hopeless => Duration::MAX,
            0 => entry.quiet_until,
            _ => now.saturating_add(FAILURE_MEMORY),
        };
        entry.place = Place::Quiet(enqueue(&mut self.quiet, &mut self.sequence, until, token.clone()));
    }

    fn retry(
        &mut self,
        token: &DeviceToken,
        posted: Generation,
        failure: Failure,
        after: Option<Duration>,
        now: Duration,
    ) -> Outcome {
        let Some(entry) = self.tokens.get_mut(token) else { return Outcome::Dropped };
        let Some(wanted) = entry.wanted else {
            self.tokens.remove(token);
            return Outcome::Dropped;
        };
        entry.failures = entry.failures.saturating_add(1);
        let is_alone = failure.of_the_token().is_some() && entry.alone >= CHANCES;
        let earliest = now.saturating_add(NEWS_PAUSE);
        let mut at = now.saturating_add(back_off(entry.failures, &mut self.rng));
        if wanted.generation > posted {
            at = at.min(earliest);
        }
        let after = after.map(|after| after.min(LONGEST_PAUSE));
        let at = after.map_or(at, |after| at.max(now.saturating_add(after)));
        // News puts the deadline off. A token that alone has failed for as long is no better for it.
        let limit = match entry.failing_since {
            Some(since) if is_alone => wanted.deadline.min(since.saturating_add(PATIENCE)),
            _ => wanted.deadline,
        };
        if at > limit {
            entry.hopeless |= is_alone;
            // The next announcement has its own five hours.
            (entry.failing_since, entry.alone) = (None, 0);
            self.rest(token, now);
            return Outcome::GaveUp(wanted.generation, GivenUp::TooLate);
        }
        entry.place = match after {
            // What the server asked for is kept, whatever comes.
            Some(_) => Place::Due(enqueue(&mut self.due, &mut self.sequence, at, token.clone())),
            None => Place::Retry { key: enqueue(&mut self.retries, &mut self.sequence, at, token.clone()), earliest },
        };
        Outcome::Retry(at)
    }

    /// The server did its work. If it had been down, nothing need wait for its retry any more: the breaker paces.
    fn succeeded(&mut self, now: Duration) {
        if !self.breaker.succeeded() {
            return;
        }
        for (_, token) in std::mem::take(&mut self.retries) {
            if let Some(entry) = self.tokens.get_mut(&token) {
                entry.place = Place::Due(enqueue(&mut self.due, &mut self.sequence, now, token));
            }
        }
    }

    /// When something could be posted for the sake of its token alone.
    fn first_due(&self) -> Option<Duration> {
        let due = self.due.keys().next().map(|key| key.0);
        let retry = self.retries.keys().next().map(|key| if self.breaker.is_down() { Duration::ZERO } else { key.0 });
        due.into_iter().chain(retry).min()
    }

    fn take(&mut self, now: Duration) -> Step {
        let Some((key, token)) = self.candidate(now) else {
            return self.first_due().map_or(Step::Idle, Step::Wait);
        };
        self.due.remove(&key);
        self.retries.remove(&key);
        let Some(entry) = self.tokens.get_mut(&token) else { return Step::Wait(now) };
        let Some(wanted) = entry.wanted else { return Step::Wait(now) };
        if now > wanted.deadline {
            self.rest(&token, now);
            return Step::GiveUp { token, generation: wanted.generation, reason: GivenUp::TooLate };
        }
        entry.place = Place::InFlight { generation: wanted.generation };
        self.in_flight = self.in_flight.saturating_add(1);
        self.breaker.posted(now);
        Step::Post { token, generation: wanted.generation }
    }

    /// What has been due for longest; while the server is down also what is not due yet.
    fn candidate(&self, now: Duration) -> Option<(Key, DeviceToken)> {
        let due = self.due.first_key_value();
        let retry = self.retries.first_key_value();
        let first = due.into_iter().chain(retry).filter(|(key, _)| key.0 <= now).min_by_key(|(key, _)| **key);
        let probe = retry.filter(|_| self.breaker.is_down());
        first.or(probe).map(|(key, token)| (*key, token.clone()))
    }

    fn clear_quiet(&mut self, now: Duration) {
        while let Some(first) = self.quiet.first_entry() {
            if first.key().0 > now {
                return;
            }
            self.tokens.remove(&first.remove());
        }
    }
}

fn enqueue(queue: &mut Queue, sequence: &mut u64, at: Duration, token: DeviceToken) -> Key {
    *sequence = sequence.wrapping_add(1);
    let key = (at, *sequence);
    queue.insert(key, token);
    key
}

fn back_off(failures: u32, rng: &mut Rng) -> Duration {
    jittered(Duration::from_secs(8_u64.saturating_pow(failures.min(HIGHEST_POWER))), rng)
}

#[cfg(test)]
mod tests;
