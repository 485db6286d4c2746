//! Wakes the devices of an account whose last session has ended: each of its tokens is posted once, so that a device
//! logs in. Not more often than `keep.call_again`, not faster than `keep.calls`, and only while the mail server is
//! reachable: a device that connects in vain does not stay.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::due_accounts::later;
use super::pool::SessionPool;
use crate::account::AccountId;
use crate::push::account::Account;
use crate::push::backoff::Backoff;
use crate::push::watcher::context::WatchContext;
use crate::upstream::connect::{self, ConnectError};

/// Time after the start in which devices may come back by themselves: a restart disconnects those that are there.
const AFTER_START: Duration = Duration::from_secs(5);

/// Time for which a server that answered counts as reachable.
const ANSWERED: Duration = Duration::from_secs(60);

/// Time until a wake-up that could not be stored is tried again.
const STORE_PAUSE: Duration = Duration::from_secs(30);

/// Wakes devices in order of time.
pub(super) struct DeviceWaker {
    pool: SessionPool,
    /// Servers whose reachability was tested.
    servers: HashMap<Arc<str>, TestedServer>,
    tests: JoinSet<ReachabilityResult>,
    /// The earliest time of the next wake-up.
    next: Instant,
}

struct TestedServer {
    answered: Option<Instant>,
    backoff: Backoff,
    /// Accounts that wait for the test under way; `None` without one.
    waiting: Option<Vec<Weak<Account>>>,
    /// The earliest time of the next test.
    next: Instant,
}

/// The server that was tested, and the result.
type ReachabilityResult = (Arc<str>, Result<(), ConnectError>);

impl DeviceWaker {
    pub(super) fn new(pool: SessionPool) -> Self {
        Self { pool, servers: HashMap::new(), tests: JoinSet::new(), next: Instant::now() }
    }

    /// Wakes devices until `stop` is cancelled; first those of all accounts that were known before the start.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let context = Arc::clone(self.pool.context());
        let mut accounts = context.registry.accounts();
        accounts.retain(|account| account.is_watched());
        if !accounts.is_empty() {
            info!(
                accounts = accounts.len(),
                "no session survived the restart: deltapush wakes devices that do not log in by themselves"
            );
        }
        let start = later(Instant::now(), AFTER_START);
        for account in accounts {
            self.pool.wake_if_alone(&account.id, "deltapush was restarted", AFTER_START);
            self.put(&account, start);
        }
        let pool = self.pool.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                account = pool.due().next(self.next) => self.wake(account).await,
                Some(tested) = self.tests.join_next() => {
                    // A task that panicked leaves its accounts to the next start: that is a bug, and the log has it.
                    if let Ok((server, result)) = tested {
                        self.tested(&server, result);
                    }
                }
            }
        }
    }

    fn put(&self, account: &Arc<Account>, due: Instant) {
        self.pool.due().put(account, due);
    }

    /// Wakes the devices of an account, or puts that off.
    async fn wake(&mut self, account: Arc<Account>) {
        let (pool, context) = (self.pool.clone(), Arc::clone(self.pool.context()));
        let has_session = !context.registry.is_alone(&account.id);
        if has_session || !pool.has_device(&account.id) || !account.is_watched() {
            return;
        }
        let now = Instant::now();
        let settings = pool.settings();
        if let Some(since) = account.since_call().filter(|since| *since < settings.call_again) {
            let rest = settings.call_again.saturating_sub(since);
            debug!(
                %account,
                "deltapush woke the account's devices a while ago and does not wake them again within {}s",
                rest.as_secs()
            );
            return self.put(&account, later(now, rest));
        }
        if !self.is_reachable(&account) {
            return;
        }
        self.next = later(Instant::now(), settings.calls.interval());
        match context.registry.call(&account).await {
            Ok(()) => {
                info!(%account, "deltapush wakes the account's devices: no session is left to watch its mailbox")
            }
            Err(error) => {
                debug!(%account, "cannot wake the account's devices: {error}");
                self.put(&account, later(Instant::now(), STORE_PAUSE));
            }
        }
    }

    /// Reports if the account's server is known to be reachable. If not, that is tested, and the account is due again
    /// afterwards.
    fn is_reachable(&mut self, account: &Arc<Account>) -> bool {
        let now = Instant::now();
        let has_answered = |server: &TestedServer| {
            server.answered.is_some_and(|at| now.duration_since(at) < ANSWERED)
        };
        // Servers without waiting accounts and without a result that counts are forgotten.
        self.servers.retain(|_, server| {
            server.waiting.is_some() || server.next > now || has_answered(server)
        });
        let server = self.servers.entry(Arc::clone(&account.id.upstream)).or_insert_with(|| {
            TestedServer { answered: None, backoff: Backoff::default(), waiting: None, next: now }
        });
        if has_answered(server) {
            return true;
        }
        if let Some(waiting) = &mut server.waiting {
            waiting.push(Arc::downgrade(account));
            return false;
        }
        if server.next > now {
            let next = server.next;
            self.put(account, next);
            return false;
        }
        server.waiting = Some(vec![Arc::downgrade(account)]);
        self.tests.spawn(test(Arc::clone(self.pool.context()), account.id.clone()));
        false
    }

    /// Takes the result of a test: the accounts that wait for it are due again.
    fn tested(&mut self, upstream: &Arc<str>, result: Result<(), ConnectError>) {
        let Some(server) = self.servers.get_mut(upstream) else { return };
        let now = Instant::now();
        let waiting = server.waiting.take().unwrap_or_default();
        match result {
            Ok(()) => {
                server.answered = Some(now);
                server.backoff = Backoff::default();
                server.next = now;
            }
            Err(error) => {
                debug!(%upstream, "devices are not woken, because their mail server does not answer: {error}");
                server.answered = None;
                server.next = later(now, server.backoff.next());
            }
        }
        let next = server.next;
        waiting.iter().filter_map(Weak::upgrade).for_each(|account| self.put(&account, next));
    }
}

async fn test(context: Arc<WatchContext>, account: AccountId) -> ReachabilityResult {
    let upstreams = context.upstreams.get();
    let found = upstreams.routes.find_again(&account.upstream, account.owner());
    let result = match found {
        Some((target, _)) => connect::reach(&target, &upstreams).await,
        None => {
            Err(ConnectError::Unreachable(std::io::Error::other("no route leads to it any more")))
        }
    };
    (account.upstream, result)
}
