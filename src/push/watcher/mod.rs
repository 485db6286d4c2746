//! The watches: one task per account that has a token. It connects, logs in, drives the [`idle`](super::idle) machine,
//! and reconnects whatever happens.

mod account;
mod session;
pub mod session_pool;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::account::Account;
use super::duplicates::Duplicates;
use super::filter::PushFilter;
use super::idle::Oddity;
use super::pacing::Gates;
use super::registry::{AccountEvent, AccountEvents, Registry};
use super::watch_status::WatchState;
use crate::account::AccountId;
use crate::config::{
    AccountSettings, AccountSettingsByName, LiveConfig, Messages, PushRules, StartupConfig,
};
use crate::mailbox_name::MailboxName;
use crate::reloadable::Reloadable;
use crate::secret::DeviceToken;
use crate::store::Announce;
use crate::telemetry::{TelemetryEvent, WatchEvent};
use crate::trace::Tracer;
use crate::upstream::Upstreams;
use session_pool::{DeviceWaker, SessionPool};

/// Time for sessions to log out at shutdown.
const LOGOUT_TIME: Duration = Duration::from_secs(3);

/// A mailbox that could not be opened for so long may be forgotten.
const GONE: Duration = Duration::from_secs(24 * 3600);

/// All watches of the process.
pub struct Watchers {
    context: Arc<WatchContext>,
    /// The pool of kept sessions, if sessions are kept.
    kept: Option<(SessionPool, DeviceWaker)>,
}

/// Shared by all watches.
struct WatchContext {
    registry: Registry,
    upstreams: Reloadable<Upstreams>,
    gates: Gates,
    wishes: Reloadable<Wishes>,
    tracer: Tracer,
    /// Messages that devices with several accounts here are woken for.
    duplicates: Mutex<Duplicates>,
    /// deltapush ends.
    leaving: CancellationToken,
    /// Sessions that are logged in.
    sessions: TaskTracker,
}

/// Settings that may change from one session to the next.
#[derive(Debug, Clone)]
pub struct Wishes {
    messages: Messages,
    grace: Duration,
    /// For so long a device is not woken again for a message that it was woken for in another account.
    coalesce: Duration,
    accounts: AccountSettingsByName,
}

impl Wishes {
    /// The wishes of `live`. The time between two pushes needs a restart.
    #[must_use]
    pub fn new(startup: &StartupConfig, live: &LiveConfig) -> Self {
        let PushRules { native: _, messages, grace } = live.push;
        let (coalesce, accounts) = (startup.push.coalesce, live.accounts.clone());
        Self { messages, grace, coalesce, accounts }
    }

    /// Which messages wake a device.
    #[must_use]
    pub fn messages(&self) -> Messages {
        self.messages
    }

    /// The configured settings of an account with these names.
    fn accounts_of(&self, logins: &[String]) -> impl Iterator<Item = &AccountSettings> {
        logins.iter().filter_map(|login| self.accounts.get(login))
    }
}

impl Watchers {
    /// Watches for the accounts of `registry`, as `config` and `wishes` say. None runs yet.
    #[must_use]
    pub fn new(
        config: &StartupConfig,
        registry: Registry,
        upstreams: Reloadable<Upstreams>,
        wishes: Reloadable<Wishes>,
        tracer: Tracer,
    ) -> Self {
        let context = WatchContext {
            registry,
            upstreams,
            gates: Gates::new(config),
            wishes,
            tracer,
            duplicates: Mutex::default(),
            leaving: CancellationToken::new(),
            sessions: TaskTracker::new(),
        };
        let context = Arc::new(context);
        let keeps = context.registry.keeps_sessions();
        let kept = keeps.then(|| SessionPool::new(Arc::clone(&context), config.keep.clone()));
        Self { context, kept }
    }

    /// The pool of kept sessions, if sessions are kept.
    #[must_use]
    pub fn keeper(&self) -> Option<SessionPool> {
        self.kept.as_ref().map(|(keeper, _)| keeper.clone())
    }

    /// Starts watches as `events` say, until `stop` is cancelled. They end with their accounts.
    pub async fn run(mut self, mut events: AccountEvents, stop: CancellationToken) {
        if let Some((_, caller)) = self.kept.take() {
            // No account has a watch of its own: nothing is to be done for it.
            let unused = async { while stop.run_until_cancelled(events.recv()).await.is_some() {} };
            tokio::join!(caller.run(stop.clone()), unused);
            return self.leave().await;
        }
        while let Some((account, event)) = stop.run_until_cancelled(events.recv()).await {
            let Some(account) = self.context.registry.get(&account) else { continue };
            match event {
                // Two devices may have a password each: a session that is well goes on, the next one takes the newer.
                AccountEvent::CredentialsChanged if account.watch.is_watching() => {}
                AccountEvent::Watch
                | AccountEvent::CredentialsChanged
                | AccountEvent::MailboxesChanged => self.start(&account),
            }
        }
        self.leave().await;
    }

    /// Sessions log out; what is not done in time, and all that is still on its way to one, ends with `self`.
    async fn leave(&self) {
        self.context.leaving.cancel();
        self.context.sessions.close();
        if timeout(LOGOUT_TIME, self.context.sessions.wait()).await.is_err() {
            debug!("{} watch sessions did not log out in time", self.context.sessions.len());
        }
    }

    /// Starts the watch of an account, in place of the one that runs.
    fn start(&self, account: &Arc<Account>) {
        account.watch.run(|| {
            let watching = account::watch(Arc::clone(&self.context), Arc::clone(account));
            (!account.is_erased()).then(|| tokio::spawn(watching).abort_handle())
        });
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.context.registry.accounts().iter().for_each(|account| account.watch.stop());
    }
}

impl WatchContext {
    /// A watch of the account begins, of which news may be `blindness` late at worst.
    fn begin(&self, account: &Account, blindness: Duration) {
        account.watch.begin(blindness);
        self.tell_state(account, WatchEvent::Connecting);
    }

    /// The account's watch does something else from now on.
    fn show(&self, account: &Account, state: WatchState) {
        self.tell_state(account, state.event());
        account.watch.set(state);
    }

    /// There is nothing to watch the account with.
    fn end(&self, account: &Account) {
        if account.watch.end() {
            self.tell_state(account, WatchEvent::Ended);
        }
    }

    fn tell_state(&self, account: &Account, state: WatchEvent<'_>) {
        self.tell(&TelemetryEvent::Watch { account: &account.telemetry, state });
    }

    fn tell(&self, event: &TelemetryEvent<'_>) {
        self.registry.telemetry().record(event);
    }

    /// The mailboxes to watch, the one that the account's clients wait in first.
    fn mailboxes(&self, account: &Account) -> Vec<MailboxName> {
        let mut mailboxes = account.mailboxes();
        let (wishes, logins) = (self.wishes.get(), self.logins(&account.id));
        for configured in wishes.accounts_of(&logins).flat_map(|account| &account.mailboxes) {
            if !mailboxes.contains(configured) {
                mailboxes.push(configured.clone());
            }
        }
        mailboxes
    }

    /// The same without the devices that were woken a moment ago for copies of these messages in other accounts.
    fn without_copies(&self, account: &Account, announce: Announce, ids: &[u64]) -> Announce {
        if announce == Announce::Nothing || ids.is_empty() {
            return announce;
        }
        let (window, now) = (self.wishes.get().coalesce, Instant::now().into_std());
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

    fn duplicates(&self) -> MutexGuard<'_, Duplicates> {
        self.duplicates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mailbox cannot be opened: shown in the status, said once in the log, and forgotten if that lasts. Returns whether it was
    /// forgotten.
    async fn left_out(&self, account: &Account, mailbox: &str, words: &str) -> bool {
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

    /// An answer of the server's lacks something: said once an hour.
    fn odd(&self, account: &Account, oddity: Oddity) {
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
    fn judge(&self, account: &AccountId) -> PushFilter {
        let (wishes, logins) = (self.wishes.get(), self.logins(account));
        let own = logins.iter().filter(|login| login.contains('@'));
        let configured = wishes.accounts_of(&logins).flat_map(|account| &account.addresses);
        let encrypted_only = self.registry.fetches_encrypted_only(account);
        PushFilter {
            addresses: own.chain(configured).cloned().collect(),
            messages: wishes.messages,
            encrypted_only,
        }
    }

    /// The names that the account's user goes by: the server's, and the client's where a route turns one into the other.
    fn logins(&self, account: &AccountId) -> Vec<String> {
        let found = self.upstreams.get().routes.find_again(&account.upstream, account.login());
        let client = found.map(|(_, login)| login).filter(|login| login != account.login());
        [account.login().to_owned()].into_iter().chain(client).collect()
    }

    /// The host by which the account's server is treated: one that is looked up is looked up now, if need be.
    async fn host(&self, account: &AccountId) -> Arc<str> {
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
