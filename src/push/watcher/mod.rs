//! The watches: one task per account that has a token. It connects, logs in, drives the [`idle`](super::idle) machine,
//! and reconnects whatever happens.

mod account;
pub(in crate::push) mod context;
#[cfg(test)]
mod news_tests;
pub(in crate::push) mod session;
#[cfg(test)]
pub(in crate::push) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::registry::{AccountEvent, AccountEvents, Registry};
use crate::account::AccountId;
use crate::config::StartupConfig;
use crate::reloadable::Reloadable;
use crate::trace::Tracer;
use crate::upstream::Upstreams;
use context::WatchContext;
pub use context::WatchSettings;

/// All watches of the process.
pub struct Watchers {
    context: Arc<WatchContext>,
}

impl Watchers {
    /// Watches for the accounts of `registry`. None runs yet.
    #[must_use]
    pub fn new(
        config: &StartupConfig,
        registry: Registry,
        upstreams: Reloadable<Upstreams>,
        settings: Reloadable<WatchSettings>,
        tracer: Tracer,
    ) -> Self {
        Self { context: Arc::new(WatchContext::new(config, registry, upstreams, settings, tracer)) }
    }

    /// The context of all watch sessions.
    pub(in crate::push) fn context(&self) -> &Arc<WatchContext> {
        &self.context
    }

    /// Starts watches as `events` say, until `stop` is cancelled. They end with their accounts.
    pub async fn run(self, mut events: AccountEvents, stop: CancellationToken) {
        let mut routes = self.context.upstreams.changes();
        for account in self.context.registry.watched_here() {
            // The routes may have changed since the last run.
            if !account.is_watched() || !self.context.has_watch(&account) {
                self.start(&account);
            }
        }
        loop {
            tokio::select! {
                event = events.recv() => self.handle(event),
                () = routes.next() => self.routes_changed(),
                () = stop.cancelled() => break,
            }
        }
        self.context.log_out_all().await;
    }

    fn handle(&self, (account, event): (AccountId, AccountEvent)) {
        let registry = &self.context.registry;
        let Some(account) = registry.get(&account) else { return };
        match event {
            // Another node has got it meanwhile.
            _ if !registry.is_watched_here(&account.id) => {}
            // Two devices may have a password each: a session that is well goes on, the next one takes the newer.
            AccountEvent::CredentialsChanged if account.watch.is_watching() => {}
            AccountEvent::Watch
            | AccountEvent::CredentialsChanged
            | AccountEvent::MailboxesChanged => self.start(&account),
        }
    }

    /// Begins and ends watches of accounts whose routes learn of new mail in another way now.
    fn routes_changed(&self) {
        for account in self.context.registry.watched_here() {
            if self.context.has_watch(&account) != account.is_watched() {
                self.start(&account);
            }
        }
    }

    /// Starts the watch of an account, in place of the one that runs.
    fn start(&self, account: &Arc<Account>) {
        // Without a task: there may be very many of these accounts.
        if !account.is_watched() && !self.context.has_watch(account) {
            account.watch.stop();
            return self.context.server_tells(account);
        }
        account.watch.run(|| {
            let watching = account::watch(Arc::clone(&self.context), Arc::clone(account));
            let is_here =
                !account.is_erased() && self.context.registry.is_watched_here(&account.id);
            is_here.then(|| tokio::spawn(watching).abort_handle())
        });
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.context.registry.accounts().iter().for_each(|account| account.watch.stop());
    }
}
