//! Driver of the [`schedule`]: posts tokens. One task; its POSTs and writes run concurrently, within limits.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use reqwest::Url;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::RootCertStore;

use super::account::Account;
pub use super::http::ClientError;
use super::http::Poster;
use super::push_test::{PushTestProgress, Tester, Tests};
use super::registry::{News, Registry, TokenNews, token_hash};
use super::schedule::{
    self, PostAnswer, ScheduleAction, ScheduleInput, ScheduleMachine, TransientFailure,
};
use super::settling::{Hold, SettleRequest, Settler, Settling};
use crate::clock::{now, reached};
use crate::config::Contact;
use crate::machine::Machine;
use crate::secret::DeviceToken;
use crate::store::{Generation, StoreError, StoredEvent, UnixTime, change};
use crate::telemetry::{AccountTelemetry, Pause, PostResult, Telemetry, TelemetryEvent};

/// Number of results that may wait to be written before no further one is taken.
const MAX_RECORDING: usize = 256;

/// A wait in quarantine that is longer than this is the long one.
const LONG_QUARANTINE: Duration = Duration::from_secs(2 * 3600);

/// The answer for a POST that panicked.
pub(super) const FAULT: PostAnswer =
    PostAnswer::Failed { failure: TransientFailure::Unreachable, retry_after: None };

/// Settings of the notifier.
#[derive(Debug, Clone)]
pub struct NotifierSettings {
    /// The URL to which tokens are posted.
    pub url: Url,
    /// The authorities of that server's certificate: [`https_roots`](crate::tls::client::https_roots).
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
    news: TokenNews,
    poster: Poster,
    schedule: ScheduleMachine,
    grace: Duration,
    /// Each with how long it took.
    in_flight: JoinSet<(DeviceToken, PostAnswer, Duration)>,
    recording: JoinSet<()>,
    tests: Tests,
    /// Nodes that share the rate of POSTs, as the schedule knows.
    nodes: usize,
    settling: Settling,
    /// Writes under way are waited for by those that hold these.
    holds: Vec<Hold>,
}

enum NotifierEvent {
    News(DeviceToken, News),
    Test(PushTestProgress),
    Settle(SettleRequest),
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
    ) -> Result<Self, ClientError> {
        Ok(Self {
            registry,
            news,
            poster: Poster::new(settings.url, settings.roots, settings.contact.as_ref())?,
            schedule: ScheduleMachine::new(settings.schedule, fastrand::u64(..), now()),
            grace: settings.grace,
            in_flight: JoinSet::new(),
            recording: JoinSet::new(),
            tests: Tests::default(),
            nodes: 1,
            settling: Settling::default(),
            holds: Vec::new(),
        })
    }

    /// The sender of test pushes, which belong to no message.
    #[must_use]
    pub fn tester(&self) -> Tester {
        self.tests.tester()
    }

    /// The handle for POSTs that are to come to rest.
    #[must_use]
    pub fn settler(&self) -> Settler {
        self.settling.settler()
    }

    /// Posts until `shutdown` is ready; then waits for what is in flight, up to the grace, and for what is to be written.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        self.handle(ScheduleInput::Tick);
        loop {
            self.share();
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
                request = self.settling.next() => NotifierEvent::Settle(request),
                () = reached(self.schedule.deadline()) => NotifierEvent::Due,
            };
            match event {
                NotifierEvent::News(token, news) => self.on_news(&token, news),
                NotifierEvent::Test(PushTestProgress::Asked(test)) => {
                    self.tests.begin(test, self.poster.clone())
                }
                NotifierEvent::Test(PushTestProgress::Ended(token, answer, took)) => {
                    self.tested(token, answer, took)
                }
                NotifierEvent::Settle(request) => self.settle(request),
                NotifierEvent::Answered(token, answer, took) => self.answered(&token, answer, took),
                NotifierEvent::Due => self.handle(ScheduleInput::Tick),
                NotifierEvent::Shutdown => break,
            }
        }
        self.finish().await;
    }

    /// Tells the schedule if another number of nodes shares the rate. Nothing is to be paced between two events.
    fn share(&mut self) {
        let nodes = self.registry.ownership().nodes();
        if std::mem::replace(&mut self.nodes, nodes) != nodes {
            self.handle(ScheduleInput::Share(nodes));
        }
    }

    /// Gives the machine an input, and does what it asks for.
    fn handle(&mut self, input: ScheduleInput<'_>) {
        let mut actions = Vec::new();
        self.schedule.handle(input, now(), &mut actions);
        for action in actions {
            match action {
                ScheduleAction::Post { token, limit } => self.post(token, limit),
                ScheduleAction::Waits { token, wait, has_failed, is_down } => {
                    self.record_waiting(&token, wait, has_failed, is_down)
                }
                ScheduleAction::Outage { is_down, waiting } => self.record_outage(is_down, waiting),
                ScheduleAction::Accepted { token, generation } => {
                    tracing::info!(account = %names(&self.registry.owners(&token)), %token, "push accepted");
                    self.record(&token.clone(), move |registry| async move {
                        registry.announced(&token, generation).await
                    });
                }
                ScheduleAction::Quarantined { token, answers, wait } => {
                    self.quarantine(token, answers, wait)
                }
                ScheduleAction::Retry { token, answer, wait } => {
                    tracing::debug!(%token, ?answer, "push failed; next attempt in {wait:?}");
                }
                ScheduleAction::GiveUp { token, generation, reason } => {
                    self.gave_up(token, generation, reason)
                }
            }
        }
    }

    fn post(&mut self, token: DeviceToken, limit: Duration) {
        let (poster, began) = (self.poster.clone(), Instant::now());
        self.in_flight.spawn(async move {
            // A bug in there must not leave the token in flight permanently.
            let answer = AssertUnwindSafe(poster.post(&token, limit)).catch_unwind().await;
            (token, answer.unwrap_or(FAULT), began.elapsed())
        });
    }

    fn on_news(&mut self, token: &DeviceToken, news: News) {
        match news {
            News::Pending { generation, age } => {
                // Removed meanwhile: the word of that is on its way.
                let Some(state) = self.registry.standing(token) else { return };
                self.handle(ScheduleInput::News { token, state: &state, generation, age });
            }
            News::Gone => self.handle(ScheduleInput::Forget(token)),
            News::Moved => self.leave(token),
        }
    }

    /// Another node posts the token. It looks once more, at what this one has left: it may have looked too early. A POST in flight
    /// comes to its end here.
    fn leave(&mut self, token: &DeviceToken) {
        if !self.schedule.is_waiting(token) {
            return;
        }
        self.handle(ScheduleInput::Forget(token));
        let event = StoredEvent::Pending(token_hash(token));
        self.record(token, move |registry| async move { registry.tell(event).await });
    }

    /// No POST of these tokens begins any more.
    fn settle(&mut self, request: SettleRequest) {
        request.tokens.iter().for_each(|token| self.handle(ScheduleInput::Forget(token)));
        let Self { settling, schedule, .. } = self;
        settling.begin(request, |token| schedule.is_in_flight(token));
    }

    /// Records what a push waits for.
    fn record_waiting(&self, token: &DeviceToken, next: Duration, has_failed: bool, is_down: bool) {
        let pause = match has_failed {
            _ if is_down => Pause::Outage,
            true => Pause::Failed,
            false => Pause::Coalescing,
        };
        let owners = self.registry.owners(token);
        self.telemetry().record(&TelemetryEvent::Waits {
            accounts: &notes(&owners),
            token,
            pause,
            next,
        });
    }

    fn record_posted(&self, token: &DeviceToken, answer: PostAnswer, took: Duration) {
        let (owners, result) = (self.registry.owners(token), post_result(answer));
        self.telemetry().record(&TelemetryEvent::Posted {
            accounts: &notes(&owners),
            token,
            result,
            took,
        });
    }

    fn telemetry(&self) -> &Telemetry {
        self.registry.telemetry()
    }

    /// A push that an operator asked for has ended. A refusal changes nothing; an acceptance proves that the token is good.
    fn tested(&mut self, token: DeviceToken, answer: PostAnswer, took: Duration) {
        self.record_posted(&token, answer, took);
        if answer == PostAnswer::Accepted {
            self.handle(ScheduleInput::Proved(&token));
            self.record(
                &token.clone(),
                move |registry| async move { registry.proved(&token).await },
            );
        }
    }

    /// The notification server says that the token is gone.
    fn quarantine(&mut self, token: DeviceToken, answers: u32, wait: Duration) {
        let account = names(&self.registry.owners(&token));
        let next = if wait > LONG_QUARANTINE { "a day" } else { "an hour" };
        tracing::warn!(
            %account,
            %token,
            answers,
            "the notification server says that the token is gone (410); deltapush keeps it and tries it again with \
             the first new mail after {next}. If the app is still installed, open it once on that device"
        );
        self.record(&token.clone(), move |registry| async move {
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

    fn answered(&mut self, token: &DeviceToken, answer: PostAnswer, took: Duration) {
        self.record_posted(token, answer, took);
        self.holds = self.settling.answered(token);
        self.handle(ScheduleInput::Answered(token, answer));
        self.holds.clear();
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
        self.telemetry().record(&TelemetryEvent::GaveUp {
            accounts: &notes(&accounts),
            token: &token,
            reason: &reason,
        });
        self.record(&token.clone(), move |registry| async move {
            registry.commit(change::gave_up(&token, generation, &reason, UnixTime::now())).await
        });
    }

    fn record_outage(&self, down: bool, waiting: usize) {
        self.telemetry().record(&TelemetryEvent::Outage { down });
        if down {
            tracing::warn!(
                waiting,
                "the notification server is down; deltapush probes it from time to time"
            );
        } else {
            tracing::info!(waiting, "the notification server is back");
        }
    }

    /// Writes a result of the token without waiting for the disk.
    fn record<F, R>(&mut self, token: &DeviceToken, write: F)
    where
        F: FnOnce(Registry) -> R,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let under_way = self.settling.writes(token, self.holds.clone());
        let written = write(self.registry.clone());
        self.recording.spawn(async move {
            let _until_written = under_way;
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
        self.handle(ScheduleInput::Leave);
        let end = Instant::now().checked_add(self.grace).unwrap_or_else(Instant::now);
        while let Ok(Some(answer)) = timeout_at(end, self.in_flight.join_next()).await {
            if let Ok((token, answer, took)) = answer {
                self.answered(&token, answer, took);
            }
        }
        while self.recording.join_next().await.is_some() {}
    }
}

/// The accounts of a token, in a log: as a rule it is one.
fn names(accounts: &[Arc<Account>]) -> String {
    accounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The part of the accounts that telemetry notes in.
fn notes(accounts: &[Arc<Account>]) -> Vec<&AccountTelemetry> {
    accounts.iter().map(|account| &account.telemetry).collect()
}

/// The answer as telemetry records it.
pub(super) fn post_result(answer: PostAnswer) -> PostResult {
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

#[cfg(test)]
#[path = "notifier_tests.rs"]
mod tests;
