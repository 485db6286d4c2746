//! Driver of the [`schedule`]: posts tokens. One task; its POSTs and writes run concurrently, within limits.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use reqwest::Url;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::rustls::RootCertStore;

pub use super::http::ClientError;
use super::http::Poster;
use super::push_test::{PushTestProgress, Tester, Tests};
use super::registry::{News, Registry, TokenNews};
use super::schedule::{
    self, PostAnswer, PostConclusion, PushSchedule, ScheduleStep, TransientFailure,
};
use crate::account::AccountId;
use crate::config::Contact;
use crate::secret::DeviceToken;
use crate::store::{Generation, StoreError};
use crate::telemetry::{self, Pause, PostResult, Telemetry};

/// How many results may wait to be written before no further one is taken.
const MAX_RECORDING: usize = 256;

/// A wait in quarantine that is longer than this is the long one.
const LONG_QUARANTINE: Duration = Duration::from_secs(2 * 3600);

/// What a POST that panicked counts as.
pub(super) const FAULT: PostAnswer =
    PostAnswer::Failed { failure: TransientFailure::Unreachable, retry_after: None };

/// How to push.
#[derive(Debug, Clone)]
pub struct NotifierSettings {
    /// Where tokens are posted.
    pub url: Url,
    /// Whom that server's certificate must come from: [`https_roots`](crate::tls::client::https_roots).
    pub roots: RootCertStore,
    /// Named in the User-Agent field.
    pub contact: Option<Contact>,
    /// Coalescing and limits.
    pub schedule: schedule::ScheduleSettings,
    /// At the end, what is in flight gets this long.
    pub grace: Duration,
}

/// The task that posts tokens.
#[derive(Debug)]
pub struct Notifier {
    registry: Registry,
    telemetry: Telemetry,
    news: TokenNews,
    poster: Poster,
    schedule: PushSchedule,
    grace: Duration,
    /// The schedule's time zero.
    start: Instant,
    /// Each with how long it took.
    in_flight: JoinSet<(DeviceToken, PostAnswer, Duration)>,
    recording: JoinSet<()>,
    tests: Tests,
}

enum NotifierEvent {
    News(DeviceToken, News),
    Test(PushTestProgress),
    Answered(DeviceToken, PostAnswer, Duration),
    Due,
    Shutdown,
}

impl Notifier {
    /// A notifier that has posted nothing yet.
    ///
    /// # Errors
    /// [`ClientError`] if there can be no HTTP client.
    pub fn new(
        settings: NotifierSettings,
        registry: Registry,
        news: TokenNews,
        telemetry: Telemetry,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            registry,
            telemetry,
            news,
            poster: Poster::new(settings.url, settings.roots, settings.contact.as_ref())?,
            schedule: PushSchedule::new(settings.schedule, fastrand::u64(..)),
            grace: settings.grace,
            start: Instant::now(),
            in_flight: JoinSet::new(),
            recording: JoinSet::new(),
            tests: Tests::default(),
        })
    }

    /// What asks for a push that has nothing to do with any message.
    #[must_use]
    pub fn tester(&self) -> Tester {
        self.tests.tester()
    }

    /// Posts until `shutdown` is ready; then waits for what is in flight, up to the grace, and for what is to be written.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let due = self.post_what_is_due();
            self.bound_recording().await;
            let event = tokio::select! {
                biased;
                () = &mut shutdown => NotifierEvent::Shutdown,
                Some(answer) = self.in_flight.join_next() => match answer {
                    Ok((token, answer, took)) => NotifierEvent::Answered(token, answer, took),
                    Err(_) => continue,
                },
                (token, news) = self.news.recv() => NotifierEvent::News(token, news),
                progress = self.tests.next() => NotifierEvent::Test(progress),
                () = sleep_until_some(due) => NotifierEvent::Due,
            };
            match event {
                NotifierEvent::News(token, news) => self.heed(token, news),
                NotifierEvent::Test(PushTestProgress::Asked(test)) => {
                    self.tests.begin(test, self.poster.clone())
                }
                NotifierEvent::Test(PushTestProgress::Ended(token, answer, took)) => {
                    self.tested(token, answer, took)
                }
                NotifierEvent::Answered(token, answer, took) => self.answered(token, answer, took),
                NotifierEvent::Due => {}
                NotifierEvent::Shutdown => break,
            }
        }
        self.finish().await;
    }

    /// Begins every POST that may begin now. Returns when to look again.
    fn post_what_is_due(&mut self) -> Option<Instant> {
        loop {
            match self.schedule.next(self.now()) {
                ScheduleStep::Post { token, generation: _, limit } => {
                    let (poster, began) = (self.poster.clone(), Instant::now());
                    self.in_flight.spawn(async move {
                        // A bug in there must not leave the token in flight for ever.
                        let answer =
                            AssertUnwindSafe(poster.post(&token, limit)).catch_unwind().await;
                        (token, answer.unwrap_or(FAULT), began.elapsed())
                    });
                }
                ScheduleStep::GiveUp { token, generation, reason } => {
                    self.gave_up(token, generation, reason)
                }
                ScheduleStep::Wait(until) => return self.start.checked_add(until),
                ScheduleStep::Idle => return None,
            }
        }
    }

    fn heed(&mut self, token: DeviceToken, news: News) {
        match news {
            News::Pending { generation, age } => {
                // Removed meanwhile: the word of that is on its way.
                let Some(standing) = self.registry.standing(&token) else { return };
                let before = self.schedule.next_post(&token);
                self.schedule.notice(token.clone(), &standing, generation, age, self.now());
                if self.schedule.next_post(&token) != before {
                    self.tell_of_waiting(&token);
                }
            }
            News::Gone => self.schedule.forget(&token, self.now()),
        }
    }

    /// Says what a push waits for, if it waits.
    fn tell_of_waiting(&self, token: &DeviceToken) {
        let Some((at, has_failed)) = self.schedule.next_post(token) else { return };
        let next = at.saturating_sub(self.now());
        let pause = match has_failed {
            _ if self.schedule.is_down() => Pause::Outage,
            true => Pause::Failed,
            false => Pause::Coalescing,
        };
        if pause == Pause::Outage || !next.is_zero() {
            let accounts = self.registry.owners(token);
            self.telemetry.tell(&telemetry::TelemetryEvent::Waits {
                accounts: &accounts,
                token,
                pause,
                next,
            });
        }
    }

    fn tell_posted(&self, token: &DeviceToken, answer: PostAnswer, took: Duration) {
        let (accounts, result) = (self.registry.owners(token), told(answer));
        self.telemetry.tell(&telemetry::TelemetryEvent::Posted {
            accounts: &accounts,
            token,
            result,
            took,
        });
    }

    /// A push that an operator asked for has ended. A refusal changes nothing; an acceptance proves that the token is good.
    fn tested(&mut self, token: DeviceToken, answer: PostAnswer, took: Duration) {
        self.tell_posted(&token, answer, took);
        if answer == PostAnswer::Accepted {
            self.schedule.proved(&token, self.now());
            self.record(move |registry| async move {
                registry.announced(&token, Generation::default()).await
            });
        }
    }

    /// The notification server says that the token is gone.
    fn quarantine(&mut self, token: DeviceToken, answers: u32, until: Duration) {
        let wait = until.saturating_sub(self.now());
        let account = names(&self.registry.owners(&token));
        let next = if wait > LONG_QUARANTINE { "a day" } else { "an hour" };
        tracing::warn!(
            %account,
            %token,
            answers,
            "the notification server says that the token is gone (410); deltapush keeps it and tries it again with \
             the first new mail after {next}. If the app is still installed, open it once on that device"
        );
        self.record(move |registry| async move {
            if registry.quarantined(&token, answers, wait).await? {
                tracing::warn!(
                    %account,
                    %token,
                    answers,
                    "token removed: the notification server has said for at least a day that it is gone (410)"
                );
            }
            Ok(())
        });
    }

    fn answered(&mut self, token: DeviceToken, answer: PostAnswer, took: Duration) {
        self.tell_posted(&token, answer, took);
        let was_down = self.schedule.is_down();
        let outcome = self.schedule.answered(&token, answer, self.now());
        self.tell_of_outages(was_down);
        self.tell_of_waiting(&token);
        match outcome {
            PostConclusion::Accepted(generation) => {
                tracing::info!(account = %names(&self.registry.owners(&token)), %token, "push accepted");
                self.record(
                    move |registry| async move { registry.announced(&token, generation).await },
                );
            }
            PostConclusion::Quarantined { answers, until, gave_up } => {
                if let Some(generation) = gave_up {
                    self.gave_up(token.clone(), generation, schedule::GiveUpReason::Gone);
                }
                self.quarantine(token, answers, until);
            }
            PostConclusion::Retry(at) => {
                tracing::debug!(%token, ?answer, "push failed; next attempt in {:?}", at.saturating_sub(self.now()));
            }
            PostConclusion::GaveUp(generation, reason) => self.gave_up(token, generation, reason),
            PostConclusion::Dropped => {}
        }
    }

    fn gave_up(
        &mut self,
        token: DeviceToken,
        generation: Generation,
        reason: schedule::GiveUpReason,
    ) {
        let accounts = self.registry.owners(&token);
        tracing::info!(account = %names(&accounts), %token, "push given up: {reason}");
        let reason = reason.to_string();
        self.telemetry.tell(&telemetry::TelemetryEvent::GaveUp {
            accounts: &accounts,
            token: &token,
            reason: &reason,
        });
        self.record(
            move |registry| async move { registry.gave_up(&token, generation, &reason).await },
        );
    }

    fn tell_of_outages(&self, was_down: bool) {
        let (waiting, down) = (self.schedule.pending(), self.schedule.is_down());
        if down != was_down {
            self.telemetry.tell(&telemetry::TelemetryEvent::Outage { down });
        }
        match (was_down, down) {
            (false, true) => {
                tracing::warn!(
                    waiting,
                    "the notification server is down; deltapush probes it from time to time"
                )
            }
            (true, false) => tracing::info!(waiting, "the notification server is back"),
            _ => {}
        }
    }

    /// Writes a result without waiting for the disk.
    fn record<F, R>(&mut self, write: F)
    where
        F: FnOnce(Registry) -> R,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let written = write(self.registry.clone());
        self.recording.spawn(async move {
            if let Err(error) = written.await {
                tracing::debug!(
                    "cannot store the result of a push, so it may be posted once more: {error}"
                );
            }
        });
    }

    async fn bound_recording(&mut self) {
        while self.recording.try_join_next().is_some() {}
        while self.recording.len() >= MAX_RECORDING {
            self.recording.join_next().await;
        }
    }

    async fn finish(mut self) {
        let end = Instant::now().checked_add(self.grace).unwrap_or_else(Instant::now);
        while let Ok(Some(answer)) = timeout_at(end, self.in_flight.join_next()).await {
            if let Ok((token, answer, took)) = answer {
                self.answered(token, answer, took);
            }
        }
        while self.recording.join_next().await.is_some() {}
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The accounts of a token, in a log: as a rule it is one.
fn names(accounts: &[AccountId]) -> String {
    accounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The answer as it is told to whoever looks on.
pub(super) fn told(answer: PostAnswer) -> PostResult {
    match answer {
        PostAnswer::Accepted => PostResult::Accepted,
        PostAnswer::Gone => PostResult::Gone,
        PostAnswer::Refused(status) => PostResult::Refused(status),
        PostAnswer::Failed { failure: TransientFailure::Status(status), .. } => {
            PostResult::Failed(status)
        }
        PostAnswer::Failed { failure: TransientFailure::TimedOut, .. } => PostResult::TimedOut,
        PostAnswer::Failed { failure: TransientFailure::Unreachable, .. } => {
            PostResult::Unreachable
        }
    }
}

async fn sleep_until_some(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "notifier_tests.rs"]
mod tests;
