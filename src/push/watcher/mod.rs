//! The watches: one task per account that has a token. It connects, logs in, drives the [`idle`](super::idle) machine,
//! and reconnects whatever happens.

mod account;
pub(in crate::push) mod context;
pub(in crate::push) mod session;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::registry::{AccountEvent, AccountEvents, Registry};
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
        self.context.log_out_all().await;
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
