//! The schedule as a machine: its inputs, its actions, and its time.
//!
//! Inside, times are distances from the machine's beginning: *never* is the longest of them, and sums stop there.

use std::time::{Duration, Instant};

use super::{
    GiveUpReason, PostAnswer, PostConclusion, PushSchedule, ScheduleSettings, ScheduleStep,
    TokenState,
};
use crate::machine::{Actions, Machine};
use crate::secret::DeviceToken;
use crate::store::Generation;

/// The input of the machine.
#[derive(Debug, Clone, Copy)]
pub enum ScheduleInput<'a> {
    /// The token has something to announce.
    News {
        /// The token.
        token: &'a DeviceToken,
        /// Its state outside of the schedule.
        state: &'a TokenState,
        /// Up to where there is something to announce.
        generation: Generation,
        /// For how long; more than nothing only after a restart.
        age: Duration,
    },
    /// The token is to be posted no more, unless there is news of it again.
    Forget(&'a DeviceToken),
    /// An operator's test push of the token was accepted, outside of the schedule.
    Proved(&'a DeviceToken),
    /// The answer to a [`ScheduleAction::Post`].
    Answered(&'a DeviceToken, PostAnswer),
    /// So many nodes share the rate of POSTs from now on.
    Share(usize),
    /// deltapush shuts down: no further POST begins.
    Leave,
    /// Nothing but time.
    Tick,
}

/// The driver's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleAction {
    /// Post the token, and give back the answer.
    Post {
        /// The token.
        token: DeviceToken,
        /// For how long the answer is waited for.
        limit: Duration,
    },
    /// For the log and the statistics: the token's POST waits.
    Waits {
        /// The token.
        token: DeviceToken,
        /// For how long, as far as is known.
        wait: Duration,
        /// It waits because it failed.
        has_failed: bool,
        /// The notification server counts as down.
        is_down: bool,
    },
    /// The notification server counts as down from now on, or not any more.
    Outage {
        /// True if it does.
        is_down: bool,
        /// Number of tokens with something to announce.
        waiting: usize,
    },
    /// The token's POST was accepted: write down up to where it is announced.
    Accepted {
        /// The token.
        token: DeviceToken,
        /// Up to where.
        generation: Generation,
    },
    /// The token is in quarantine, because the notification server says that it is gone: write that down.
    Quarantined {
        /// The token.
        token: DeviceToken,
        /// The number of such answers.
        answers: u32,
        /// Time without a POST of it.
        wait: Duration,
    },
    /// For the log: the token's POST failed, and is tried again.
    Retry {
        /// The token.
        token: DeviceToken,
        /// The answer.
        answer: PostAnswer,
        /// When, unless the server is down or there is news.
        wait: Duration,
    },
    /// The token's announcement is given up: write that down.
    GiveUp {
        /// The token.
        token: DeviceToken,
        /// Up to where.
        generation: Generation,
        /// Why.
        reason: GiveUpReason,
    },
}

/// The machine.
#[derive(Debug)]
pub struct ScheduleMachine {
    schedule: PushSchedule,
    /// Time zero inside.
    start: Instant,
    deadline: Option<Instant>,
    is_leaving: bool,
}

impl Machine for ScheduleMachine {
    type Input<'a> = ScheduleInput<'a>;
    type Action<'a> = ScheduleAction;

    fn handle(&mut self, input: ScheduleInput<'_>, now: Instant, actions: &mut impl Actions<Self>) {
        let inside = now.saturating_duration_since(self.start);
        match input {
            ScheduleInput::News { token, state, generation, age } => {
                let before = self.schedule.next_post(token);
                self.schedule.notice(token.clone(), state, generation, age, inside);
                if self.schedule.next_post(token) != before {
                    self.report_wait(token, inside, actions);
                }
            }
            ScheduleInput::Forget(token) => self.schedule.forget(token, inside),
            ScheduleInput::Proved(token) => self.schedule.proved(token, inside),
            ScheduleInput::Answered(token, answer) => self.answered(token, answer, inside, actions),
            ScheduleInput::Share(nodes) => self.schedule.share(nodes),
            ScheduleInput::Leave => self.is_leaving = true,
            ScheduleInput::Tick => {}
        }
        if self.is_leaving {
            self.deadline = None;
        } else {
            self.go_on(inside, actions);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl ScheduleMachine {
    /// A machine that has nothing to announce. The seed is for jitter.
    #[must_use]
    pub fn new(settings: ScheduleSettings, seed: u64, now: Instant) -> Self {
        let schedule = PushSchedule::new(settings, seed);
        Self { schedule, start: now, deadline: None, is_leaving: false }
    }

    /// Reports if a POST of the token is in flight.
    #[must_use]
    pub fn is_in_flight(&self, token: &DeviceToken) -> bool {
        self.schedule.is_in_flight(token)
    }

    /// Reports if the token has something to announce, and no POST of it is in flight.
    #[must_use]
    pub fn is_waiting(&self, token: &DeviceToken) -> bool {
        self.schedule.next_post(token).is_some()
    }

    /// Begins every POST that may begin now.
    fn go_on(&mut self, now: Duration, actions: &mut impl Actions<Self>) {
        self.deadline = loop {
            match self.schedule.next(now) {
                ScheduleStep::Post { token, limit, .. } => {
                    actions.push(ScheduleAction::Post { token, limit })
                }
                ScheduleStep::GiveUp { token, generation, reason } => {
                    actions.push(ScheduleAction::GiveUp { token, generation, reason })
                }
                ScheduleStep::Wait(until) => break self.start.checked_add(until),
                ScheduleStep::Idle => break None,
            }
        };
    }

    fn answered(
        &mut self,
        token: &DeviceToken,
        answer: PostAnswer,
        now: Duration,
        actions: &mut impl Actions<Self>,
    ) {
        let was_down = self.schedule.is_down();
        let conclusion = self.schedule.answered(token, answer, now);
        let is_down = self.schedule.is_down();
        if is_down != was_down {
            actions.push(ScheduleAction::Outage { is_down, waiting: self.schedule.pending() });
        }
        self.report_wait(token, now, actions);
        let token = token.clone();
        match conclusion {
            PostConclusion::Accepted(generation) => {
                actions.push(ScheduleAction::Accepted { token, generation })
            }
            PostConclusion::Quarantined { answers, until, gave_up } => {
                if let Some(generation) = gave_up {
                    let (token, reason) = (token.clone(), GiveUpReason::Gone);
                    actions.push(ScheduleAction::GiveUp { token, generation, reason });
                }
                let wait = until.saturating_sub(now);
                actions.push(ScheduleAction::Quarantined { token, answers, wait });
            }
            PostConclusion::Retry(at) => {
                let wait = at.saturating_sub(now);
                actions.push(ScheduleAction::Retry { token, answer, wait });
            }
            PostConclusion::GaveUp(generation, reason) => {
                actions.push(ScheduleAction::GiveUp { token, generation, reason })
            }
            PostConclusion::Dropped => {}
        }
    }

    /// Says that the token's POST waits, if it does.
    fn report_wait(&self, token: &DeviceToken, now: Duration, actions: &mut impl Actions<Self>) {
        let Some((at, has_failed)) = self.schedule.next_post(token) else { return };
        let (wait, is_down) = (at.saturating_sub(now), self.schedule.is_down());
        if is_down || !wait.is_zero() {
            let token = token.clone();
            actions.push(ScheduleAction::Waits { token, wait, has_failed, is_down });
        }
    }
}
