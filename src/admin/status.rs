//! Builds the status report of all accounts: watches, devices, problems and remedies.

use std::sync::Arc;

use jiff::SignedDuration;

use super::clock::DisplayClock;
use super::fetching;
use super::format::{self, short_hash};
use super::latency_report::explain;
use super::remote::AccountQuestions;
use super::report::{
    AccountCounts, AccountProblem, AccountReport, DeviceReport, ErasedReport, GivenUpReport,
    LimitedServer, MailboxReport, Notifications, PushReport, QuarantineReport, StatusReport,
    TokenlessReport, WatchKind,
};
use super::selection::Shown;
use super::timeline::{self, AccountHistory};
use super::{news, watch_report};
use crate::account::AccountId;
use crate::admission::failed_logins::Strain;
use crate::admission::login_limiter::LoginGate;
use crate::cluster::{AccountOwner, ClusterView};
use crate::config::Messages;
use crate::push::account::NewsStatus;
use crate::push::registry::{Registry, TokenlessAccount};
use crate::push::watch_status::WatchEntry;
use crate::push::watcher::WatchSettings;
use crate::reloadable::Reloadable;
use crate::store::{AccountStatus, Erased, StoreError, TokenStatus};
use crate::telemetry::PostResult;
use crate::telemetry::history::{
    DeviceConnection, History, HistorySummary, HistoryTime, LastPush, Timeline,
};
use crate::tls::certs::Certificates;

/// Makes reports.
pub struct Reporter {
    registry: Registry,
    watch_settings: Reloadable<WatchSettings>,
    gate: Option<Arc<LoginGate>>,
    certificates: Option<Arc<Certificates>>,
    cluster: Option<ClusterView>,
    questions: Option<AccountQuestions>,
}

impl Reporter {
    /// Creates a reporter on the accounts of `registry`, with the configured settings of watches.
    #[must_use]
    pub fn new(registry: Registry, watch_settings: Reloadable<WatchSettings>) -> Self {
        Self {
            registry,
            watch_settings,
            gate: None,
            certificates: None,
            cluster: None,
            questions: None,
        }
    }

    /// Adds the mail servers at which logins of unknown accounts are refused.
    #[must_use]
    pub fn with_gate(self, gate: Arc<LoginGate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Adds the certificates that clients see.
    #[must_use]
    pub fn with_certificates(self, certificates: Arc<Certificates>) -> Self {
        Self { certificates: Some(certificates), ..self }
    }

    /// Adds the nodes that share the state, if there are several.
    #[must_use]
    pub fn with_cluster(self, cluster: Option<ClusterView>) -> Self {
        Self { cluster, ..self }
    }

    /// Adds the way to the memory of the other nodes, if there are several.
    #[must_use]
    pub fn with_questions(self, questions: Option<AccountQuestions>) -> Self {
        Self { questions, ..self }
    }

    /// The nodes that share the state, if there are several.
    pub(crate) fn cluster(&self) -> Option<&ClusterView> {
        self.cluster.as_ref()
    }

    fn certificate_troubles(&self, clock: DisplayClock) -> Vec<String> {
        let troubles = |certificates: &Arc<Certificates>| {
            certificates.get().troubles(&certificates.wanted().get().hostname, clock.wall())
        };
        self.certificates.as_ref().map(troubles).unwrap_or_default()
    }

    /// Mail servers at which logins of unknown accounts are refused now, because of failed logins there.
    fn limited(&self, clock: DisplayClock) -> Vec<LimitedServer> {
        let strained = self.gate.as_ref().map(|gate| gate.strained()).unwrap_or_default();
        let limited = |(server, strain): (Arc<str>, Strain)| LimitedServer {
            server: server.escape_debug().to_string(),
            failed: strain.failed,
            limit: strain.limit,
            within_seconds: strain.within.as_secs(),
            until: clock
                .wall()
                .saturating_add(SignedDuration::from_secs(
                    i64::try_from(strain.wait.as_secs()).unwrap_or_default(),
                ))
                .unwrap_or(clock.wall()),
        };
        strained.into_iter().map(limited).collect()
    }

    /// The status report, with the accounts whose name or server contains one of `names`, or with all if there are none. Where
    /// nodes share the state, a bounded number of accounts is shown.
    ///
    /// # Errors
    /// [`StoreError`]: the state cannot be read.
    pub async fn report(&self, names: &[String]) -> Result<StatusReport, StoreError> {
        let Shown { accounts: found, erased, is_cut, unreadable } = self.shown(names).await?;
        let (clock, history, messages) =
            (DisplayClock::now(), self.history(), self.watch_settings.get().messages());
        let describe = |status: &AccountStatus| {
            let account = &status.account;
            describe(status, &self.in_memory(account), messages, clock)
        };
        let mut accounts: Vec<AccountReport> = found.iter().map(describe).collect();
        // Stable: by name among those that are alike.
        accounts.sort_by_key(|account| account.problem.is_none());
        let cluster = self.cluster_report();
        let counts = match &cluster {
            Some(cluster) => self.count_all(cluster, unreadable.is_none()).await,
            None => count(&accounts),
        };
        let report = StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            at: clock.wall(),
            started: clock.time_of(history.began()),
            connections: self.registry.telemetry().metrics().connections(),
            limited: self.limited(clock),
            certificates: self.certificate_troubles(clock),
            counts,
            refused_accounts: self.registry.refused_accounts(),
            notifications: Notifications {
                down_since: history.down_since().map(HistoryTime::time),
            },
            accounts,
            tokenless: self.registry.tokenless_accounts().iter().map(tokenless).collect(),
            erased: erased.iter().map(erased_report).collect(),
            cluster,
            unreadable,
            is_cut,
        };
        Ok(report.narrowed(names))
    }

    /// Describes the account of this name that deltapush erased without a command lately; `None` if there is none.
    pub(super) async fn erased(&self, name: &str) -> Option<String> {
        let erased = self.registry.erased().await.ok()?;
        let found = erased
            .iter()
            .find(|erased| *erased.account.user == *name || erased.account.to_string() == name)?;
        Some(format!(
            "{} was erased {}, because {}. It is registered again when its app connects through deltapush",
            found.account,
            format::moment(format::timestamp(found.at)),
            found.reason
        ))
    }

    /// The recent history of an account, as the node has it that watches the account; `None` if it has no device. If that node does
    /// not answer, the account is described without what is in its memory.
    ///
    /// # Errors
    /// [`StoreError`]: the state cannot be read.
    pub async fn account(&self, account: &AccountId) -> Result<Option<AccountHistory>, StoreError> {
        if let (Some(questions), Some(AccountOwner::Node(name))) =
            (&self.questions, self.elsewhere(account))
            && let Some(mut history) = questions.ask(account).await
        {
            history.account.watch.node = Some(name);
            return Ok(Some(history));
        }
        self.own_account(account).await
    }

    /// The recent history of an account, as this node knows it.
    pub(super) async fn own_account(
        &self,
        account: &AccountId,
    ) -> Result<Option<AccountHistory>, StoreError> {
        let found = self.status_of(account).await?;
        let Some(status) = found.as_ref() else { return Ok(None) };
        let (clock, history, messages) =
            (DisplayClock::now(), self.history(), self.watch_settings.get().messages());
        let timeline = self.timeline(account).unwrap_or_default();
        Ok(Some(AccountHistory {
            account: describe(status, &self.in_memory(account), messages, clock),
            at: clock.wall(),
            started: clock.time_of(history.began()),
            dropped: timeline.full,
            down_since: history.down_since().map(HistoryTime::time),
            happened: timeline::events(&timeline),
            explanation: explain(&timeline, status.tokens.len(), history.now()),
        }))
    }

    pub(super) fn history(&self) -> &History {
        self.registry.telemetry().history()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The summary of an account's history.
    pub(super) fn summary(&self, account: &AccountId) -> HistorySummary {
        self.registry.get(account).map(|account| account.telemetry.summary()).unwrap_or_default()
    }

    /// The recent history of an account; `None` if nothing is known of it.
    pub(super) fn timeline(&self, account: &AccountId) -> Option<Timeline> {
        self.registry.get(account)?.telemetry.timeline()
    }

    fn in_memory(&self, account: &AccountId) -> InMemory {
        let elsewhere = self.elsewhere(account);
        let is_standby = self.cluster.is_some() && !self.registry.ownership().has(account);
        let Some(account) = self.registry.get(account) else {
            return InMemory { elsewhere, ..InMemory::default() };
        };
        InMemory {
            elsewhere,
            is_standby,
            watch: account.watch.status(),
            news: account.news_status(),
            summary: account.telemetry.summary(),
        }
    }
}

/// The facts of an account that are in memory only.
#[derive(Default)]
struct InMemory {
    /// The account's owner, if that is not this node.
    elsewhere: Option<AccountOwner>,
    /// The watch may write and push nothing: this node has no lease.
    is_standby: bool,
    watch: Option<WatchEntry>,
    news: NewsStatus,
    summary: HistorySummary,
}

fn count(accounts: &[AccountReport]) -> AccountCounts {
    let devices = || accounts.iter().flat_map(|account| &account.devices);
    let in_state = |state| accounts.iter().filter(|account| account.watch.state == state).count();
    AccountCounts {
        accounts: accounts.len(),
        watched: in_state(WatchKind::Watching) + in_state(WatchKind::WithClient),
        elsewhere: in_state(WatchKind::AtAnotherNode),
        told: in_state(WatchKind::ServerTells),
        problems: accounts.iter().filter(|account| account.problem.is_some()).count(),
        waiting: in_state(WatchKind::WaitingForLogin) + in_state(WatchKind::WaitingForDevice),
        unusable: in_state(WatchKind::Unusable),
        devices: devices().count(),
        pending: devices().filter(|device| device.pending).count(),
        quarantined: devices().filter(|device| device.quarantine.is_some()).count(),
    }
}

/// One account.
fn describe(
    status: &AccountStatus,
    InMemory { elsewhere, is_standby, watch, news, summary }: &InMemory,
    messages: Messages,
    clock: DisplayClock,
) -> AccountReport {
    let (mut watch, watch_problem) = match elsewhere {
        Some(owner) => watch_report::elsewhere(owner),
        None => watch_report::describe(status, watch.as_ref(), clock),
    };
    if elsewhere.is_none() && *is_standby {
        watch.notes.push(watch_report::STANDBY.into());
    }
    let (news, news_problem) = news::describe(*news, watch.state, clock);
    let is_only = status.tokens.len() == 1;
    let devices: Vec<DeviceReport> =
        status.tokens.iter().map(|token| device(token, is_only, summary)).collect();
    let problem = watch_problem.or(news_problem).or_else(|| devices.iter().find_map(push_problem));
    AccountReport {
        name: status.account.user.to_string(),
        server: status.account.upstream.to_string(),
        watch,
        devices,
        messages: fetching::messages(messages, &status.tokens).into(),
        background_fetch: summary.background.map(|at| at.time()),
        mailboxes: status
            .mailboxes
            .iter()
            .map(|(name, position)| MailboxReport {
                name: name.to_string(),
                uid_next: position.uid_next,
            })
            .collect(),
        news,
        last_message: summary.last_message.map(|at| at.time()),
        last_push: summary.last_push.map(push),
        problem,
    }
}

fn device(token: &TokenStatus, is_only: bool, summary: &HistorySummary) -> DeviceReport {
    let is_it = |connection: &&DeviceConnection| short_hash(connection.device) == token.fingerprint;
    let connection = summary.connected.iter().find(is_it);
    DeviceReport {
        token: token.fingerprint.clone(),
        first_seen: format::timestamp(token.first_seen),
        last_seen: format::timestamp(token.last_seen),
        // In a background fetch an app does not tell which device it is: the account's only one, if it has one.
        connected: [
            connection.map(|connection| connection.at),
            summary.background.filter(|_| is_only),
        ]
        .into_iter()
        .flatten()
        .max_by_key(|at| at.since_start)
        .map(HistoryTime::time),
        fetches: fetching::evidence(&token.habit),
        online: connection.is_some_and(|connection| connection.online),
        pending: token.pending,
        accepted: token.accepted.map(format::timestamp),
        given_up: token.given_up.as_ref().map(|(at, reason)| GivenUpReport {
            at: format::timestamp(*at),
            reason: reason.clone(),
        }),
        quarantine: token.quarantine.map(|found| QuarantineReport {
            answers: found.answers,
            since: format::timestamp(found.since),
            until: format::timestamp(found.until),
        }),
    }
}

fn tokenless(found: &TokenlessAccount) -> TokenlessReport {
    TokenlessReport {
        name: found.account.user.to_string(),
        server: found.account.upstream.to_string(),
        clients: found.clients,
        last_login: format::timestamp(found.last_login),
    }
}

fn erased_report(erased: &Erased) -> ErasedReport {
    ErasedReport {
        name: erased.account.user.to_string(),
        server: erased.account.upstream.to_string(),
        at: format::timestamp(erased.at),
        reason: erased.reason.clone(),
    }
}

fn push_problem(device: &DeviceReport) -> Option<AccountProblem> {
    if device.quarantine.is_some() {
        let words = format!(
            "the notification server rejected the token of device {} as gone (410)",
            device.token
        );
        let cure = "if the app is still installed there, open it once; otherwise deltapush removes the device after some days";
        return Some(AccountProblem { words, cure: cure.into() });
    }
    let given_up = device.given_up.as_ref()?;
    let words =
        format!("deltapush gave up the last push of device {}: {}", device.token, given_up.reason);
    let cure = "the next message causes a new push; if that fails too, open the app on that device, which renews its \
                token, and check that push.notify_url is correct and reachable";
    Some(AccountProblem { words, cure: cure.into() })
}

fn push(last: LastPush) -> PushReport {
    PushReport {
        at: last.at.time(),
        token: short_hash(last.device),
        accepted: last.result == PostResult::Accepted,
        answer: format::answer(last.result),
        delay_milliseconds: last.delay,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
