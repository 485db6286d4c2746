//! The watches: one task per account that has a token. It connects, logs in, drives the [`idle`](super::idle) machine, and
//! comes back after whatever happens.

mod account;
mod session;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::board::Board;
use super::gate::Gates;
use super::registry::{AccountEvent, AccountEvents, Registry};
use super::verdict::Judge;
use crate::account::AccountId;
use crate::config::{Accounts, Config, Messages};
use crate::live::Live;
use crate::secret::Credentials;
use crate::trace::Sink;
use crate::upstream::Upstreams;

/// All watches of the process.
pub struct Watchers {
    context: Arc<Context>,
    running: HashMap<AccountId, AbortHandle>,
}

/// What all watches have in common.
struct Context {
    registry: Registry,
    upstreams: Live<Upstreams>,
    gates: Gates,
    board: Board,
    wishes: Live<Wishes>,
    trace: Option<Sink>,
}

/// What may change from one session to the next.
#[derive(Debug, Clone)]
pub struct Wishes {
    messages: Messages,
    grace: Duration,
    accounts: Accounts,
}

impl From<&Config> for Wishes {
    fn from(config: &Config) -> Self {
        Self { messages: config.push.messages, grace: config.push.grace, accounts: config.accounts.clone() }
    }
}

impl Watchers {
    /// Watches for the accounts of `registry`, as `config` and `wishes` say, shown on `board`. None runs yet.
    #[must_use]
    pub fn new(
        config: &Config,
        registry: Registry,
        upstreams: Live<Upstreams>,
        wishes: Live<Wishes>,
        board: Board,
        trace: Option<Sink>,
    ) -> Self {
        let context = Context { registry, upstreams, gates: Gates::new(config), board, wishes, trace };
        Self { context: Arc::new(context), running: HashMap::new() }
    }

    /// Starts and ends watches as `events` say, until `stop` is cancelled.
    pub async fn run(mut self, mut events: AccountEvents, stop: CancellationToken) {
        while let Some((account, event)) = stop.run_until_cancelled(events.recv()).await {
            match event {
                // Two devices may have a password each: a session that is well goes on, the next one takes the newer.
                AccountEvent::CredentialsChanged if self.context.board.is_watching(&account) => {}
                AccountEvent::Watch | AccountEvent::CredentialsChanged | AccountEvent::MailboxesChanged => {
                    self.start(account);
                }
                AccountEvent::Unwatch => {
                    self.end(&account);
                    info!(%account, "no device is left, the mailbox is watched no more");
                }
            }
        }
    }

    fn start(&mut self, account: AccountId) {
        self.end(&account);
        let watching = tokio::spawn(account::watch(Arc::clone(&self.context), account.clone()));
        self.running.insert(account, watching.abort_handle());
    }

    fn end(&mut self, account: &AccountId) {
        if let Some(running) = self.running.remove(account) {
            running.abort();
        }
        self.context.board.remove(account);
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

impl Context {
    /// The mailboxes to watch, the one that the account's clients wait in first.
    fn mailboxes(&self, account: &AccountId, credentials: &Credentials) -> Vec<String> {
        let mut mailboxes = self.registry.mailboxes(account);
        let wishes = self.wishes.get();
        for configured in wishes.accounts.get(&credentials.user).into_iter().flat_map(|account| &account.mailboxes) {
            // INBOX in any case is one mailbox (RFC 9051 section 5.1).
            let is_inbox = configured.eq_ignore_ascii_case("INBOX");
            let name = if is_inbox { "INBOX" } else { configured };
            if !mailboxes.iter().any(|known| known == name) {
                mailboxes.push(name.to_owned());
            }
        }
        mailboxes
    }

    /// Who judges the account's messages.
    fn judge(&self, credentials: &Credentials) -> Judge {
        let wishes = self.wishes.get();
        let own = [&credentials.user].into_iter().filter(|user| user.contains('@'));
        let configured = wishes.accounts.get(&credentials.user).into_iter().flat_map(|account| &account.addresses);
        let addresses = own.chain(configured).cloned().collect();
        Judge { addresses, messages: wishes.messages }
    }
}
