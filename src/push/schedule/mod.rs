//! Schedule: when each token is posted. A machine of tokens, answers and time.
//!
//! First news of a token is posted at once. News within the coalescing window after an accepted POST, or while one is in
//! flight, is announced by one POST at the window's end, and never dropped. A POST that fails is tried again after 8¹, 8², 8³,
//! 8⁴, 8⁴ … seconds (as the chatmail relay does, with jitter) until five hours after the news. A token that fails by itself
//! while others are accepted is hopeless in the end: until it is accepted once, each of its announcements gets one attempt. A
//! token of which the server says that it is gone is in quarantine, and tried after an hour and after a day.
//!
//! Accounts take turns (`turns.rs`). Fresh news goes before retries. Tokens that were never accepted have a share of their own, and a
//! breaker of their own: nothing that they do holds the others back. The last quarter of the slots, and of that share, is for news of
//! tokens without failures, and each POST there has a short time limit: tokens whose POSTs hang cannot hold all slots.

mod answers;
mod choice;
mod entry;
mod machine;
mod post;
mod turns;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

pub use answers::QUARANTINE;
use choice::Flying;
use entry::{PendingPush, QueuePlace, Retries, RetryQueue, ScheduledToken, TokenQuarantine};
use fastrand::Rng;
pub use machine::{ScheduleAction, ScheduleInput, ScheduleMachine};
pub use post::{GiveUpReason, PostAnswer, PostConclusion, TransientFailure};
use turns::AccountTurns;

use super::breaker::{Breaker, PostPace};
use crate::account::AccountId;
use crate::secret::DeviceToken;
use crate::store::Generation;

/// For how long after the news a POST is tried.
pub const PATIENCE: Duration = Duration::from_secs(5 * 3600);
/// Time limit of a first POST: longer than the 60 s that the notification server gives a token's endpoint.
pub const FIRST_LIMIT: Duration = Duration::from_secs(75);
/// Time limit of each further POST until one is accepted.
pub const RETRY_LIMIT: Duration = Duration::from_secs(15);
/// Time limit of a first POST while most slots are taken: the next one waits no longer.
pub const SHORT_LIMIT: Duration = Duration::from_millis(1_500);

/// That a token failed is remembered for this long.
const FAILURE_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// News of a token whose POST failed waits no longer than this after that attempt.
const NEWS_PAUSE: Duration = Duration::from_secs(64);

/// The schedule's limits.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleSettings {
    /// The time after an accepted POST in which its token is not posted again.
    pub coalesce: Duration,
    /// POSTs that may be in flight at once.
    pub max_in_flight: usize,
    /// POSTs that may begin in a second, on average: of all nodes together, where several share one state.
    pub per_second: u32,
}

/// State of a token outside of the schedule, for one that the schedule does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenState {
    /// The account that takes turns for it.
    pub account: AccountId,
    /// True if a POST of it was ever accepted.
    pub accepted: bool,
    /// Time since another node's last POST of it, in whole seconds, rounded down.
    pub since_post: Option<Duration>,
    /// Its quarantine, if the notification server called it gone.
    pub quarantine: Option<Quarantined>,
}

/// Quarantine of a token, before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantined {
    /// Number of answers by which the notification server called the token gone.
    pub answers: u32,
    /// Time without a POST of it.
    pub wait: Duration,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleStep {
    /// Post the token, and give the answer to [`PushSchedule::answered`].
    Post {
        /// The token.
        token: DeviceToken,
        /// The generation that an accepted POST will have announced.
        generation: Generation,
        /// For how long the answer is waited for.
        limit: Duration,
    },
    /// The token's announcement is too old: it is given up without another attempt.
    GiveUp {
        /// The token.
        token: DeviceToken,
        /// Up to where it is given up.
        generation: Generation,
        /// Why.
        reason: GiveUpReason,
    },
    /// Nothing before this time, unless there is news or an answer.
    Wait(Duration),
    /// Nothing until there is news or an answer.
    Idle,
}

/// The schedule of all tokens. Every step costs a logarithm of their number.
#[derive(Debug)]
pub struct PushSchedule {
    coalesce: Duration,
    max_in_flight: usize,
    tokens: HashMap<DeviceToken, ScheduledToken>,
    /// Tokens that are posted at their time, not earlier.
    due: Queue,
    /// Tokens that are posted at their time, or earlier: as a probe, or when the server is back.
    retries: Retries,
    /// Tokens that may be posted now.
    turns: AccountTurns,
    /// Tokens with nothing to announce, until they need not be remembered any more.
    quiet: Queue,
    flying: Flying,
    /// Number of POSTs of new mail since the last retry.
    fresh_in_a_row: u32,
    pace: PostPace,
    /// For tokens that were accepted before.
    breaker: Breaker,
    /// For tokens that were never accepted. It holds up none of the others.
    newcomers: Breaker,
    /// When POSTs of two different accounts were last accepted, the latest first.
    accepted: [Option<(AccountId, Duration)>; 2],
    rng: Rng,
    /// Tells apart what is due at the same time, in the order in which it was put there.
    sequence: u64,
}

/// A time, and a number that makes it unique.
type ScheduleKey = (Duration, u64);
type Queue = BTreeMap<ScheduleKey, DeviceToken>;

impl PushSchedule {
    /// An empty schedule. The seed is for jitter.
    #[must_use]
    pub fn new(settings: ScheduleSettings, seed: u64) -> Self {
        let max_in_flight = settings.max_in_flight.max(1);
        Self {
            coalesce: settings.coalesce,
            max_in_flight,
            tokens: HashMap::new(),
            due: Queue::new(),
            retries: Retries::default(),
            turns: AccountTurns::default(),
            quiet: Queue::new(),
            flying: Flying::default(),
            fresh_in_a_row: 0,
            pace: PostPace::new(max_in_flight, settings.per_second),
            breaker: Breaker::new(max_in_flight),
            newcomers: Breaker::new(choice::share(max_in_flight)),
            accepted: [None, None],
            rng: Rng::with_seed(seed),
            sequence: 0,
        }
    }

    /// So many nodes share the rate of POSTs from now on.
    pub fn share(&mut self, nodes: usize) {
        self.pace.share(nodes);
    }

    /// Number of tokens with something to announce.
    #[must_use]
    pub fn pending(&self) -> usize {
        let waiting = self.due.len() + self.retries.len() + self.turns.len();
        waiting + self.flying.all
    }

    /// Reports if the notification server counts as down. Tokens that were never accepted count only while nothing is
    /// accepted.
    #[must_use]
    pub fn is_down(&self) -> bool {
        let [accepted, _] = &self.accepted;
        self.breaker.is_down() || accepted.is_none() && self.newcomers.is_down()
    }

    /// When the token is posted next, if it has something to announce and that is known, and whether it waits because it failed.
    #[must_use]
    pub fn next_post(&self, token: &DeviceToken) -> Option<(Duration, bool)> {
        let entry = self.tokens.get(token)?;
        let at = match entry.place {
            QueuePlace::Due(key) | QueuePlace::Retry { key, .. } => key.0,
            QueuePlace::Ready { since, .. } => since,
            QueuePlace::InFlight { .. } | QueuePlace::Quiet(_) => return None,
        };
        Some((at, entry.failures > 0 || entry.quarantine.is_some()))
    }

    /// Reports if a POST of the token is in flight.
    #[must_use]
    pub fn is_in_flight(&self, token: &DeviceToken) -> bool {
        let entry = self.tokens.get(token);
        entry.is_some_and(|entry| matches!(entry.place, QueuePlace::InFlight(_)))
    }

    /// The token has something to announce up to `generation`, noticed `age` ago (more than nothing only after a restart).
    pub fn notice(
        &mut self,
        token: DeviceToken,
        standing: &TokenState,
        generation: Generation,
        age: Duration,
        now: Duration,
    ) {
        let Self { tokens, due, retries, quiet, sequence, .. } = self;
        let entry = tokens.entry(token.clone()).or_insert_with(|| {
            let place = QueuePlace::Quiet(enqueue(quiet, sequence, now, token.clone()));
            let mut entry = ScheduledToken::new(standing.account.clone(), standing.accepted, place);
            entry.quarantine = standing.quarantine.map(|found| TokenQuarantine {
                answers: found.answers,
                until: now.saturating_add(found.wait),
            });
            entry
        });
        // Loaded from the state before the POST was accepted, and heard of after it.
        if generation <= entry.announced && now < entry.quiet_until {
            return;
        }
        entry.shorten_quarantine(standing, now);
        entry.await_window(standing, self.coalesce, now);
        entry.proven |= standing.accepted;
        let mut deadline = now + PATIENCE.saturating_sub(age);
        if let Some(quarantine) = entry.quarantine {
            deadline = deadline.max(quarantine.until.max(now).saturating_add(PATIENCE));
        }
        let wanted = PendingPush { generation, deadline };
        entry.wanted = Some(entry.wanted.map_or(wanted, |older| older.merge(wanted)));
        match entry.place {
            QueuePlace::InFlight { .. } | QueuePlace::Ready { .. } => {}
            QueuePlace::Due(key) => {
                if let Some(quarantine) = entry.quarantine
                    && quarantine.until < key.0
                {
                    due.remove(&key);
                    entry.place =
                        QueuePlace::Due(enqueue(due, sequence, quarantine.until.max(now), token));
                }
            }
            QueuePlace::Quiet(key) => {
                quiet.remove(&key);
                entry.account = standing.account.clone();
                let at = entry
                    .quiet_until
                    .max(now)
                    .max(entry.quarantine.map_or(Duration::ZERO, |found| found.until));
                entry.place = QueuePlace::Due(enqueue(due, sequence, at, token));
            }
            QueuePlace::Retry { queue, key, earliest } => {
                let at = earliest.max(now);
                if at < key.0 {
                    let waiting = retries.get_mut(queue);
                    waiting.remove(&key);
                    let key = enqueue(waiting, sequence, at, token);
                    entry.place = QueuePlace::Retry { queue, key, earliest };
                }
            }
        }
    }

    /// The token is to be posted no more, unless there is news of it again.
    pub fn forget(&mut self, token: &DeviceToken, now: Duration) {
        let Some(entry) = self.tokens.get_mut(token) else { return };
        entry.wanted = None;
        entry.clear_failures();
        match entry.place {
            // Its answer is still to come.
            QueuePlace::InFlight { .. } => return,
            QueuePlace::Due(key) => drop(self.due.remove(&key)),
            QueuePlace::Retry { queue, key, .. } => drop(self.retries.get_mut(queue).remove(&key)),
            QueuePlace::Ready { class, .. } => self.turns.remove(&entry.account, class, token, now),
            QueuePlace::Quiet(key) => drop(self.quiet.remove(&key)),
        }
        // It may come back within its window.
        let until = entry.quiet_until;
        entry.place =
            QueuePlace::Quiet(enqueue(&mut self.quiet, &mut self.sequence, until, token.clone()));
    }

    /// An operator's test push of the token was accepted, outside of the schedule: nothing speaks against it any more.
    pub fn proved(&mut self, token: &DeviceToken, now: Duration) {
        let Some(entry) = self.tokens.get_mut(token) else { return };
        let was_quarantined = entry.quarantine.is_some();
        entry.clear_failures();
        entry.proven = true;
        match entry.place {
            QueuePlace::Due(key) if was_quarantined => {
                self.due.remove(&key);
                entry.place =
                    QueuePlace::Due(enqueue(&mut self.due, &mut self.sequence, now, token.clone()));
            }
            QueuePlace::Quiet(key) => {
                self.quiet.remove(&key);
                self.rest(token, now);
            }
            _ => {}
        }
    }

    /// The next thing to do at `now`. To be asked until the answer is to wait.
    pub fn next(&mut self, now: Duration) -> ScheduleStep {
        self.clear_quiet(now);
        self.turns.clean(now);
        self.make_ready(now);
        if self.flying.all >= self.max_in_flight {
            return ScheduleStep::Idle;
        }
        match self.choose(now) {
            None => self.wait(now),
            Some(_) if self.pace.at() > now => ScheduleStep::Wait(self.pace.at()),
            Some(choice) => self.begin(choice, now),
        }
    }

    /// Gives a turn to the tokens whose time has come.
    fn make_ready(&mut self, now: Duration) {
        let Self { due, retries, .. } = self;
        let queues = [due, &mut retries.proven, &mut retries.unproven, &mut retries.alone];
        let ready: Vec<DeviceToken> =
            queues.into_iter().flat_map(|queue| split_due(queue, now)).collect();
        for token in ready {
            if let Some(entry) = self.tokens.get_mut(&token) {
                let class = entry.class();
                self.turns.push(&entry.account, class, token, now);
                entry.place = QueuePlace::Ready { class, since: now };
            }
        }
    }

    /// A token with nothing to announce is remembered for its window, and for its failures.
    fn rest(&mut self, token: &DeviceToken, now: Duration) {
        let Some(entry) = self.tokens.get_mut(token) else { return };
        entry.wanted = None;
        let until = match entry.failures {
            // Until it is accepted, or forgotten by everybody.
            _ if entry.hopeless || entry.quarantine.is_some() => Duration::MAX,
            0 => entry.quiet_until,
            _ => now + FAILURE_MEMORY,
        };
        entry.place =
            QueuePlace::Quiet(enqueue(&mut self.quiet, &mut self.sequence, until, token.clone()));
    }

    fn breaker_of(&mut self, proven: bool) -> &mut Breaker {
        if proven { &mut self.breaker } else { &mut self.newcomers }
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

fn enqueue(queue: &mut Queue, sequence: &mut u64, at: Duration, token: DeviceToken) -> ScheduleKey {
    *sequence = sequence.wrapping_add(1);
    let key = (at, *sequence);
    queue.insert(key, token);
    key
}

/// Takes from the queue all tokens whose time has come.
fn split_due(queue: &mut Queue, now: Duration) -> impl Iterator<Item = DeviceToken> {
    let later = match queue.first_key_value() {
        Some((key, _)) if key.0 <= now => queue.split_off(&(now, u64::MAX)),
        _ => std::mem::take(queue),
    };
    std::mem::replace(queue, later).into_values()
}

#[cfg(test)]
mod evidence_tests;
#[cfg(test)]
mod hanging_tests;
#[cfg(test)]
mod quarantine_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
