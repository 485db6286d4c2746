//! Wakes the devices of an account whose last session has ended: each of its tokens is posted once, so that a device
//! logs in. Not more often than `keep.call_again`, not faster than `keep.calls`, and not while the mail server does not
//! answer: a device that connects in vain is gone again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{SessionPool, later as after};
use crate::account::AccountId;
use crate::push::account::Account;
use crate::push::backoff::Backoff;
use crate::push::watcher::context::WatchContext;
use crate::upstream::connect::{self, ConnectError};

/// Time after the start in which devices may come back by themselves: a restart disconnects those that are there.
const AFTER_START: Duration = Duration::from_secs(5);

/// For how long a server that answered is taken to be there.
const ANSWERED: Duration = Duration::from_secs(60);

/// Calls when the state could not be written are made again after this.
const STORE_PAUSE: Duration = Duration::from_secs(30);

/// Accounts whose devices are to be woken, by time. Each account knows its own time; what the queue has beside it counts for
/// nothing.
#[derive(Default)]
pub(super) struct DueAccounts {
    queue: Mutex<BTreeMap<Instant, Vec<Weak<Account>>>>,
    earlier: Notify,
}

impl DueAccounts {
    /// The account's devices are to be woken then, unless they are to be woken before.
    pub(super) fn put(&self, account: &Arc<Account>, due: Instant) {
        if account.kept.wake_at(due) {
            self.lock().entry(due).or_default().push(Arc::downgrade(account));
            self.earlier.notify_one();
        }
    }

    /// Waits for the next account that is due, and takes it; none before `not_before`.
    async fn next(&self, not_before: Instant) -> Arc<Account> {
        loop {
            let first = self.lock().first_key_value().map(|(due, _)| (*due).max(not_before));
            tokio::select! {
                () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {}
                () = self.earlier.notified() => continue,
            }
            while let Some((due, account)) = self.pop() {
                if let Some(account) = account.upgrade().filter(|account| account.kept.is_due(due))
                {
                    return account;
                }
            }
        }
    }

    /// Takes the first entry, if its time has come.
    fn pop(&self) -> Option<(Instant, Weak<Account>)> {
        let mut queue = self.lock();
        let mut first = queue.first_entry().filter(|first| *first.key() <= Instant::now())?;
        let (due, account) = (*first.key(), first.get_mut().pop());
        if first.get().is_empty() {
            first.remove();
        }
        account.map(|account| (due, account))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Instant, Vec<Weak<Account>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who calls.
pub(in crate::push::watcher) struct DeviceWaker {
    keeper: SessionPool,
    /// Servers that were asked whether they are there.
    servers: HashMap<Arc<str>, ReachedServer>,
    asking: JoinSet<ReachabilityAnswer>,
    /// When the next call may be made.
    next: Instant,
}

struct ReachedServer {
    answered: Option<Instant>,
    backoff: Backoff,
    /// Accounts that wait for the answer; `None` if it is not being asked.
    asking: Option<Vec<Weak<Account>>>,
    /// Not to be asked before.
    next: Instant,
}

/// Which server was asked, and whether it is there.
type ReachabilityAnswer = (Arc<str>, Result<(), ConnectError>);

impl DeviceWaker {
    pub(super) fn new(keeper: SessionPool) -> Self {
        Self { keeper, servers: HashMap::new(), asking: JoinSet::new(), next: Instant::now() }
    }

    /// Calls until `stop` is cancelled; at first all accounts that were there before.
    pub(in crate::push::watcher) async fn run(mut self, stop: CancellationToken) {
        let context = Arc::clone(&self.keeper.0.context);
        let accounts = context.registry.accounts();
        if !accounts.is_empty() {
            info!(
                accounts = accounts.len(),
                "no session survived the restart: deltapush wakes devices that do not log in by themselves"
            );
        }
        let start = after(Instant::now(), AFTER_START);
        for account in accounts {
            self.keeper.is_left_alone(&account.id, "deltapush was restarted", AFTER_START);
            self.put(&account, start);
        }
        let keeper = self.keeper.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                account = keeper.0.due.next(self.next) => self.call(account).await,
                Some(answer) = self.asking.join_next() => {
                    // A task that panicked leaves its accounts to the next start: that is a bug, and the log has it.
                    if let Ok((server, answer)) = answer {
                        self.answered(&server, answer);
                    }
                }
            }
        }
    }

    fn put(&self, account: &Arc<Account>, due: Instant) {
        self.keeper.0.due.put(account, due);
    }

    /// Calls the devices of an account, if that is due, or puts it off.
    async fn call(&mut self, account: Arc<Account>) {
        let (keeper, context) = (self.keeper.clone(), Arc::clone(&self.keeper.0.context));
        if !context.registry.is_alone(&account.id) || !keeper.wants(&account.id) {
            return;
        }
        let now = Instant::now();
        let settings = keeper.settings();
        if let Some(since) = account.since_call().filter(|since| *since < settings.call_again) {
            let rest = settings.call_again.saturating_sub(since);
            debug!(
                %account,
                "deltapush woke the account's devices a while ago and does not wake them again within {}s",
                rest.as_secs()
            );
            return self.put(&account, after(now, rest));
        }
        if !self.is_reachable(&account) {
            return;
        }
        self.next = after(Instant::now(), settings.calls.interval());
        match context.registry.call(&account).await {
            Ok(()) => {
                info!(%account, "deltapush wakes the account's devices: no session is left to watch its mailbox")
            }
            Err(error) => {
                debug!(%account, "cannot wake the account's devices: {error}");
                self.put(&account, after(Instant::now(), STORE_PAUSE));
            }
        }
    }

    /// Reports if the account's server is known to be reachable. If not, it is asked, and the account is due again when
    /// it is.
    fn is_reachable(&mut self, account: &Arc<Account>) -> bool {
        let now = Instant::now();
        let is_there = |server: &ReachedServer| {
            server.answered.is_some_and(|at| now.duration_since(at) < ANSWERED)
        };
        // Servers of which nobody waits for anything are forgotten.
        self.servers
            .retain(|_, server| server.asking.is_some() || server.next > now || is_there(server));
        let server = self.servers.entry(Arc::clone(&account.id.upstream)).or_insert_with(|| {
            ReachedServer { answered: None, backoff: Backoff::default(), asking: None, next: now }
        });
        if is_there(server) {
            return true;
        }
        if let Some(waiting) = &mut server.asking {
            waiting.push(Arc::downgrade(account));
            return false;
        }
        if server.next > now {
            let next = server.next;
            self.put(account, next);
            return false;
        }
        server.asking = Some(vec![Arc::downgrade(account)]);
        self.asking.spawn(ask(Arc::clone(&self.keeper.0.context), account.id.clone()));
        false
    }

    /// A server was asked whether it is there.
    fn answered(&mut self, upstream: &Arc<str>, answer: Result<(), ConnectError>) {
        let Some(server) = self.servers.get_mut(upstream) else { return };
        let now = Instant::now();
        let waiting = server.asking.take().unwrap_or_default();
        match answer {
            Ok(()) => {
                server.answered = Some(now);
                server.backoff = Backoff::default();
                server.next = now;
            }
            Err(error) => {
                debug!(%upstream, "devices are not woken, because their mail server does not answer: {error}");
                server.answered = None;
                server.next = after(now, server.backoff.next());
            }
        }
        let next = server.next;
        waiting.iter().filter_map(Weak::upgrade).for_each(|account| self.put(&account, next));
    }
}

async fn ask(context: Arc<WatchContext>, account: AccountId) -> ReachabilityAnswer {
    let upstreams = context.upstreams.get();
    let found = upstreams.routes.find_again(&account.upstream, account.owner());
    let answer = match found {
        Some((target, _)) => connect::reach(&target, &upstreams).await,
        None => {
            Err(ConnectError::Unreachable(std::io::Error::other("no route leads to it any more")))
        }
    };
    (account.upstream, answer)
}
