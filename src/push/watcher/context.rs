//! The context of all watch sessions: shared parts, settings, and the facts that are configured for an account.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::account::AccountId;
use crate::config::{
    AccountSettings, AccountSettingsByName, LiveConfig, Messages, NewsSource, PushRules,
    StartupConfig,
};
use crate::mailbox_name::MailboxName;
use crate::push::account::Account;
use crate::push::duplicates::Duplicates;
use crate::push::filter::PushFilter;
use crate::push::idle::Oddity;
use crate::push::pacing::WatchPacing;
use crate::push::registry::Registry;
use crate::push::server_news::NewsGuests;
use crate::push::watch_status::WatchState;
use crate::reloadable::Reloadable;
use crate::secret::DeviceToken;
use crate::store::Announce;
use crate::telemetry::{TelemetryEvent, WatchEvent};
use crate::trace::Tracer;
use crate::upstream::Upstreams;

/// A mailbox that could not be opened for so long may be forgotten.
const GONE: Duration = Duration::from_secs(24 * 3600);

/// Time for sessions to log out at shutdown.
const LOGOUT_TIME: Duration = Duration::from_secs(3);

/// Shared by all watch sessions.
pub(in crate::push) struct WatchContext {
    pub(in crate::push) registry: Registry,
    pub(in crate::push) upstreams: Reloadable<Upstreams>,
    pub(in crate::push) pacing: WatchPacing,
    pub(in crate::push) settings: Reloadable<WatchSettings>,
    pub(in crate::push) tracer: Tracer,
    /// Messages that devices with several accounts here are woken for.
    pub(in crate::push) duplicates: Mutex<Duplicates>,
    /// Accounts of other nodes of which a mail server told this one.
    pub(in crate::push) guests: NewsGuests,
    /// Cancelled when deltapush shuts down.
    pub(in crate::push) shutdown: CancellationToken,
    /// Sessions that are logged in.
    pub(in crate::push) sessions: TaskTracker,
}

/// Settings that may change from one session to the next.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    messages: Messages,
    /// The time in which a device that fetches by itself gets no push.
    pub(super) grace: Duration,
    /// For so long a device is not woken again for a message that it was woken for in another account.
    coalesce: Duration,
    accounts: AccountSettingsByName,
}

impl WatchSettings {
    /// The settings of `live`. The time between two pushes needs a restart.
    #[must_use]
    pub fn new(startup: &StartupConfig, live: &LiveConfig) -> Self {
        let PushRules { native: _, messages, grace } = live.push;
        let (coalesce, accounts) = (startup.push.coalesce, live.accounts.clone());
        Self { messages, grace, coalesce, accounts }
    }

    /// Messages that wake a device.
    #[must_use]
    pub fn messages(&self) -> Messages {
        self.messages
    }

    /// The configured settings of accounts, by login name.
    #[must_use]
    pub fn accounts(&self) -> &AccountSettingsByName {
        &self.accounts
    }

    /// The configured settings of an account with these names.
    fn accounts_of(&self, logins: &[String]) -> impl Iterator<Item = &AccountSettings> {
        logins.iter().filter_map(|login| self.accounts.get(login))
    }
}

impl WatchContext {
    pub(super) fn new(
        config: &StartupConfig,
        registry: Registry,
        upstreams: Reloadable<Upstreams>,
        settings: Reloadable<WatchSettings>,
        tracer: Tracer,
    ) -> Self {
        Self {
            registry,
            upstreams,
            pacing: WatchPacing::new(config),
            settings,
            tracer,
            duplicates: Mutex::default(),
            guests: NewsGuests::default(),
            shutdown: CancellationToken::new(),
            sessions: TaskTracker::new(),
        }
    }

    /// Makes all sessions log out, within a time limit. Those that have not done so by then end with their tasks.
    pub(super) async fn log_out_all(&self) {
        self.shutdown.cancel();
        self.sessions.close();
        if timeout(LOGOUT_TIME, self.sessions.wait()).await.is_err() {
            debug!("{} watch sessions did not log out in time", self.sessions.len());
        }
    }

    /// Begins a watch of the account. It finds new mail within `max_delay`.
    pub(in crate::push) fn begin(&self, account: &Account, max_delay: Duration) {
        account.watch.begin(max_delay);
        self.report_state(account, WatchEvent::Connecting);
    }

    /// Reports and shows the new state of the account's watch.
    pub(in crate::push) fn show(&self, account: &Account, state: WatchState) {
        self.report_state(account, state.event());
        account.watch.set(state);
    }

    /// The mail server's news is all that wakes the account's devices.
    pub(super) fn server_tells(&self, account: &Account) {
        account.kept.close_all();
        account.watch.server_tells();
    }

    /// Ends the account's watch: there are no credentials for it.
    pub(in crate::push) fn end(&self, account: &Account) {
        if account.watch.end() {
            self.report_state(account, WatchEvent::Ended);
        }
    }

    pub(in crate::push) fn report_state(&self, account: &Account, state: WatchEvent<'_>) {
        self.report(&TelemetryEvent::Watch { account: &account.telemetry, state });
    }

    pub(in crate::push) fn report(&self, event: &TelemetryEvent<'_>) {
        self.registry.telemetry().record(event);
    }

    /// The mailboxes to watch, the one that the account's clients wait in first.
    pub(in crate::push) fn mailboxes(&self, account: &Account) -> Vec<MailboxName> {
        let mut mailboxes = account.mailboxes();
        let (settings, logins) = (self.settings.get(), self.logins(&account.id));
        for configured in settings.accounts_of(&logins).flat_map(|account| &account.mailboxes) {
            if !mailboxes.contains(configured) {
                mailboxes.push(configured.clone());
            }
        }
        mailboxes
    }

    /// `announce` without the devices that were woken a moment ago for copies of these messages in other accounts.
    pub(in crate::push) fn without_copies(
        &self,
        account: &Account,
        announce: Announce,
        ids: &[u64],
    ) -> Announce {
        if announce == Announce::Nothing || ids.is_empty() {
            return announce;
        }
        let (window, now) = (self.settings.get().coalesce, Instant::now().into_std());
        let woken = |token: &DeviceToken| {
            announce.includes(token)
                && self.registry.owners(token).len() > 1
                && self.duplicates().was_woken(token, ids, &account.id, window, now)
        };
        let woken: Vec<DeviceToken> = account.tokens().into_iter().filter(woken).collect();
        match announce {
            announce if woken.is_empty() => announce,
            Announce::AllBut(others) => Announce::AllBut(others.into_iter().chain(woken).collect()),
            Announce::All | Announce::Nothing => Announce::AllBut(woken),
        }
    }

    pub(in crate::push) fn duplicates(&self) -> MutexGuard<'_, Duplicates> {
        self.duplicates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a mailbox cannot be opened: in the status, once in the log. Forgets the mailbox if that lasts, and returns
    /// true then.
    pub(in crate::push) async fn left_out(
        &self,
        account: &Account,
        mailbox: &str,
        words: &str,
    ) -> bool {
        let since = account.watch.left_out(mailbox, words);
        match since {
            None => {
                warn!(
                    %account,
                    "mailbox {mailbox:?} is not watched: it cannot be opened ({words}); deltapush tries again from \
                     time to time"
                );
            }
            Some(since) if since.elapsed() >= GONE => {
                match self.registry.forget_mailbox(&account.id, mailbox).await {
                    Ok(true) => {
                        info!(
                            %account,
                            "mailbox {mailbox:?} could not be opened for a day, and no client has waited in it for a \
                             week: deltapush does not watch it any more"
                        );
                        account.watch.no_longer_left_out(mailbox);
                        return true;
                    }
                    Ok(false) => {}
                    Err(error) => debug!(%account, "cannot erase mailbox {mailbox:?} yet: {error}"),
                }
            }
            Some(_) => {}
        }
        false
    }

    /// Warns of an incomplete answer of the mail server, once an hour.
    pub(in crate::push) fn report_oddity(&self, account: &Account, oddity: Oddity) {
        if account.watch.may_complain() {
            warn!(
                %account,
                upstream = %account.id.upstream,
                "the responses of the mail server are incomplete: {}; in doubt, deltapush pushes",
                oddity.as_str()
            );
        }
    }

    /// The push filter of the account.
    pub(in crate::push) fn push_filter(&self, account: &AccountId) -> PushFilter {
        let (settings, logins) = (self.settings.get(), self.logins(account));
        let own = logins.iter().filter(|login| login.contains('@'));
        let configured = settings.accounts_of(&logins).flat_map(|account| &account.addresses);
        let encrypted_only = self.registry.fetches_encrypted_only(account);
        PushFilter {
            addresses: own.chain(configured).cloned().collect(),
            messages: settings.messages,
            encrypted_only,
        }
    }

    /// The names that the account's user goes by: the server's, and the client's where a route turns one into the other.
    pub(in crate::push) fn logins(&self, account: &AccountId) -> Vec<String> {
        let found = self.upstreams.get().routes.find_again(&account.upstream, account.login());
        let client = found.map(|(_, login)| login).filter(|login| login != account.login());
        [account.login().to_owned()].into_iter().chain(client).collect()
    }

    /// The source of news of the account's new mail; `None` if no route leads to its mail server any more.
    pub(in crate::push) fn news_source(&self, account: &AccountId) -> Option<NewsSource> {
        let found = self.upstreams.get().routes.find_again(&account.upstream, account.login());
        found.map(|(target, _)| target.terms.news)
    }

    /// Reports if the account is to be watched: it stays what it is if no route leads to it.
    pub(super) fn has_watch(&self, account: &Account) -> bool {
        self.news_source(&account.id).map_or(account.is_watched(), NewsSource::has_watch)
    }

    /// The host by which the account's server is treated: one that is looked up is looked up now, if need be.
    pub(in crate::push) async fn host(&self, account: &AccountId) -> Arc<str> {
        let (host, port) = account.upstream.rsplit_once(':').unwrap_or((&account.upstream, ""));
        if !port.starts_with(|first: char| first.is_ascii_digit())
            && let upstreams = self.upstreams.get()
            && let Some((target, _)) =
                upstreams.routes.find_again(&account.upstream, account.owner())
            && let Ok(servers) = upstreams.servers(&target).await
            && let Some(server) = servers.first()
        {
            return Arc::clone(&server.host);
        }
        host.trim_start_matches('[').trim_end_matches(']').into()
    }
}
