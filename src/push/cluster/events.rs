//! Events that other nodes tell through the event log of the shared state, and what this node does about it.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{NodeAccounts, SharedState};
use crate::account::AccountId;
use crate::ownership::Slot;
use crate::push::registry::DeviceFetch;
use crate::store::{StoreError, TokenPost};

/// Events are in the log for ten minutes. After a longer break all accounts are loaded again.
const LONGEST_BREAK: Duration = Duration::from_secs(9 * 60);

/// Pause after events could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// The least time between two reads: a burst of changes is read at once.
const BREATH: Duration = Duration::from_millis(20);

/// Tokens whose posters are looked for at once.
pub(super) const REVIEWED: usize = 500;

/// An event of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// Tokens, credentials or mailboxes of the account have changed, or it is gone.
    Account(AccountId),
    /// The token with this hash may have something to announce, or another poster than before.
    Pending(Vec<u8>),
    /// A device of the account, which [`DeviceFetch`] describes, fetches messages by itself.
    Fetches(AccountId, Vec<u8>),
    /// The watch of the account is to begin again.
    Rewatch(AccountId),
    /// The mail server has no session left for the account's client: the watch leaves it its own.
    Yield(AccountId),
    /// The state has lost changes that this node may know of: all is to be loaded again.
    Rewound,
    /// A fact was forwarded to the owner of the account.
    Forwarded(AccountId),
}

/// Reads the log, from the first call on.
pub trait EventLog: Send + 'static {
    /// Returns when there may be something new: when the database says so, or after a few seconds.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// The new events of other nodes.
    fn read(&mut self) -> impl Future<Output = Result<Vec<NodeEvent>, StoreError>> + Send;
}

/// The work of a batch of events: each account is loaded once, whatever has changed, and before anything else is done about it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    reload_all: bool,
    reload: HashSet<AccountId>,
    review: HashSet<Vec<u8>>,
    fetched: HashSet<(AccountId, Vec<u8>)>,
    rewatch: HashSet<AccountId>,
    yields: HashSet<AccountId>,
    forwarded: HashSet<Slot>,
}

impl Work {
    /// Adds events. Those of accounts that are not `here` are of no interest.
    fn add(&mut self, events: Vec<NodeEvent>, is_here: impl Fn(&AccountId) -> bool) {
        for event in events {
            match event {
                NodeEvent::Account(account) if is_here(&account) => _ = self.reload.insert(account),
                NodeEvent::Pending(token) => _ = self.review.insert(token),
                NodeEvent::Rewound => {
                    warn!(
                        "the database has lost its last changes, as after a fail-over to a server that was behind: this \
                         node loads all its accounts again. Apps hand lost device tokens over again when they connect"
                    );
                    self.reload_all = true;
                }
                NodeEvent::Fetches(account, token) if is_here(&account) => {
                    _ = self.fetched.insert((account, token));
                }
                NodeEvent::Rewatch(account) if is_here(&account) => {
                    self.rewatch.insert(account);
                }
                NodeEvent::Yield(account) if is_here(&account) => _ = self.yields.insert(account),
                NodeEvent::Forwarded(account) => _ = self.forwarded.insert(Slot::of(&account)),
                NodeEvent::Account(_)
                | NodeEvent::Fetches(..)
                | NodeEvent::Rewatch(_)
                | NodeEvent::Yield(_) => {}
            }
        }
    }
}

impl<S: SharedState> NodeAccounts<S> {
    /// Follows the log until `stop` is cancelled. Sends to `began` when it has read for the first time: what is loaded from then on
    /// is kept up to date. Nothing that the log tells is lost while the database is away.
    pub async fn follow(
        self,
        mut log: impl EventLog,
        began: oneshot::Sender<()>,
        stop: CancellationToken,
    ) {
        let mut began = Some(began);
        let follow = async {
            let (mut work, mut last) = (Work::default(), Instant::now());
            loop {
                if let Err(error) = self.step(&mut log, &mut work).await {
                    debug!("cannot follow the changes of other nodes at the moment: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
                if let Some(began) = began.take() {
                    // The membership may have ended.
                    let _ = began.send(());
                } else if last.elapsed() > LONGEST_BREAK {
                    info!(
                        "the database was away for long: all accounts of this node are loaded again"
                    );
                    work.reload_all = true;
                }
                last = Instant::now();
                if work == Work::default() {
                    sleep(BREATH).await;
                    log.changed().await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
            () = self.take_in_forwarded() => {}
            () = self.call_back() => {}
            () = self.write_posts() => {}
        }
    }

    /// Reads what is new and does what is to be done. What could not be done stays in `work`.
    async fn step(&self, log: &mut impl EventLog, work: &mut Work) -> Result<(), StoreError> {
        let events = log.read().await?;
        self.answers.notify_one();
        work.add(events, |account| self.registry().concerns(account));
        if work.reload_all {
            work.reload.extend(self.reload_all().await?);
            work.reload_all = false;
        }
        while let Some(account) = work.reload.iter().next().cloned() {
            self.reload(&account).await?;
            work.reload.remove(&account);
        }
        while !work.review.is_empty() {
            let tokens: Vec<_> = work.review.iter().take(REVIEWED).cloned().collect();
            self.look_at_posts(&tokens).await?;
            tokens.iter().for_each(|token| _ = work.review.remove(token));
        }
        for account in work.yields.drain() {
            let known = self.registry().get(&account);
            _ = known.is_some_and(|known| known.watch.yield_session());
        }
        if !work.forwarded.is_empty() {
            self.forwarded.add(work.forwarded.drain());
        }
        work.fetched.drain().for_each(|(account, fetch)| self.device_fetches(&account, &fetch));
        work.rewatch.drain().for_each(|account| {
            // Without credentials there is nothing to begin with.
            let _ = self.registry().rewatch(&account);
        });
        Ok(())
    }

    /// Writes answers to POSTs that could not be written before, whenever the log could be read. Never ends.
    async fn write_posts(&self) {
        loop {
            self.answers.notified().await;
            self.registry().write_posts().await;
        }
    }

    /// Takes up the posts of tokens, or leaves them to the nodes that have them.
    pub(super) async fn look_at_posts(&self, tokens: &[Vec<u8>]) -> Result<(), StoreError> {
        for post in self.state.token_posts(tokens).await? {
            match post {
                TokenPost::Own(left) => self.registry().take_up(left),
                TokenPost::Other(token) => self.registry().leave_post(token),
            }
        }
        Ok(())
    }

    /// A device fetches at another node. Its login there was accepted, so a watch that was refused has a chance again.
    fn device_fetches(&self, account: &AccountId, fetch: &[u8]) {
        let Some(known) = self.registry().get(account) else { return };
        let Some(fetch) = DeviceFetch::from_bytes(fetch) else { return };
        if let Some(token) = known.tokens().into_iter().find(|token| fetch.is_of(token)) {
            known.watch.device_fetched(&token, fetch.age());
        }
        if known.is_refused() {
            let _ = self.registry().rewatch(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_is_loaded_once_for_all_its_changes() {
        let account = |name: &str| AccountId::new(name, "imap.example.org:993");
        let mut work = Work::default();
        let events = vec![
            NodeEvent::Account(account("alice")),
            NodeEvent::Account(account("eve")),
            NodeEvent::Account(account("alice")),
            NodeEvent::Pending(vec![1]),
            NodeEvent::Pending(vec![1]),
            NodeEvent::Fetches(account("alice"), vec![1]),
            NodeEvent::Fetches(account("eve"), vec![1]),
            NodeEvent::Rewatch(account("eve")),
            NodeEvent::Rewatch(account("alice")),
            NodeEvent::Yield(account("alice")),
            NodeEvent::Yield(account("eve")),
            NodeEvent::Forwarded(account("eve")),
        ];
        work.add(events, |asked| *asked == account("alice"));
        let expected = Work {
            reload: HashSet::from([account("alice")]),
            review: HashSet::from([vec![1]]),
            fetched: HashSet::from([(account("alice"), vec![1])]),
            rewatch: HashSet::from([account("alice")]),
            reload_all: false,
            yields: HashSet::from([account("alice")]),
            forwarded: HashSet::from([Slot::of(&account("eve"))]),
        };
        assert_eq!(work, expected);
    }
}
