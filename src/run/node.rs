//! This process as one node of several that share a state: its membership, and the changes of the others that it follows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::RunError;
use crate::admin::remote::AccountQuestions;
use crate::admin::status::Reporter;
use crate::cluster::shared::Shared;
use crate::cluster::{self, ClusterView, NodeId, NodeName};
use crate::config::{Config, KeepSettings};
use crate::push::cluster::{NodeAccounts, OtherEvent, StoredLog};
use crate::push::notifier::Notifier;
use crate::push::registry::{AccountEvents, Registry, TokenNews};
use crate::push::watcher::Watchers;
use crate::store::{Store, StoreSettings};
use crate::tls::acme::Companions;
use crate::tls::acme::challenges::Challenges;
use crate::tls::server::ServerTls;

/// Time limit for the other nodes to take over from one that leaves: their watches begin before those of this one end.
const LEAVING: Duration = Duration::from_secs(20);

/// Interval at which a node counts its accounts, for the others.
const COUNT: Duration = Duration::from_secs(5);

/// The shared state is open, and nothing else yet.
pub(super) struct Joining {
    pub(super) opened: (Registry, AccountEvents, TokenNews),
    pub(super) parts: NodeParts,
}

/// The parts that make this process a node.
pub(super) struct NodeParts {
    view: ClusterView,
    shared: Shared,
    challenges: Challenges,
    keep: KeepSettings,
}

/// A node that has not joined yet.
pub(super) struct Node {
    view: ClusterView,
    registry: Registry,
    accounts: NodeAccounts<Store>,
    questions: AccountQuestions,
    shared: Shared,
}

/// A node that is one of several.
pub(super) struct Member {
    leave: CancellationToken,
    membership: JoinHandle<()>,
    /// Tasks for the other nodes, until it stops.
    serving: JoinSet<()>,
}

impl Joining {
    /// Opens the state that nodes share, and takes over the certificates that all of them show. None if the state is this
    /// process's own.
    pub(super) async fn open(
        state: &StoreSettings,
        config: &Config,
    ) -> Result<Option<Self>, RunError> {
        if state.postgres.is_none() {
            return Ok(None);
        }
        // Another one at each start: what a former process of this machine owns is not this one's.
        let id = NodeId(fastrand::i64(1..));
        let name = NodeName { id, name: config.startup.node.name() };
        let opened = Registry::open_node(state, id.0).await?;
        let (store, ownership) = (opened.0.store().clone(), opened.0.ownership().clone());
        let (folder, challenges) = (&config.live.certificate.directory, Challenges::default());
        let shared = Shared::open(store, ownership, folder, challenges.clone()).await?;
        let (view, keep) = (ClusterView::new(name), config.startup.keep.clone());
        Ok(Some(Self { opened, parts: NodeParts { view, shared, challenges, keep } }))
    }

    pub(super) fn with_tls(&self, tls: ServerTls) -> ServerTls {
        tls.of_node(self.parts.shared.tickets(), self.parts.challenges.clone())
    }
}

impl Node {
    /// The node with these watches, whose tokens `notifier` posts.
    pub(super) fn new(
        NodeParts { view, shared, keep, .. }: NodeParts,
        registry: &Registry,
        watchers: &Watchers,
        notifier: &Notifier,
    ) -> Self {
        let questions = AccountQuestions::new(registry.clone());
        let (store, settler) = (registry.store().clone(), notifier.settler());
        let accounts = NodeAccounts::new(watchers, store, settler, &keep);
        Self { view, registry: registry.clone(), accounts, questions, shared }
    }

    /// The other nodes, for orders of certificates.
    pub(super) fn companions(&self) -> Arc<dyn Companions> {
        Arc::new(self.shared.clone())
    }

    /// All nodes, as this one sees them.
    pub(super) fn view(&self) -> ClusterView {
        self.view.clone()
    }

    /// The way to the memory of the other nodes.
    pub(super) fn questions(&self) -> AccountQuestions {
        self.questions.clone()
    }

    /// Joins the other nodes. Follows their changes until `stop` is cancelled, and answers their questions by `reporter`.
    pub(super) fn join(self, reporter: Arc<Reporter>, stop: &CancellationToken) -> Member {
        let Self { view, registry, accounts, questions, shared } = self;
        info!(node = %view.me().name, "this node shares its state with others");
        let mut serving = JoinSet::new();
        let counting = stop.clone().run_until_cancelled_owned(count(registry.clone()));
        serving.spawn(async move { _ = counting.await });
        serving.spawn(shared.clone().run(stop.clone()));
        let (began, begins) = oneshot::channel();
        let slots_changed = Arc::new(Notify::new());
        let changed = Arc::clone(&slots_changed);
        let log = StoredLog::new(registry.store(), move |event| match event {
            OtherEvent::SlotsChanged => changed.notify_one(),
            OtherEvent::SharedChanged => shared.changed(),
            OtherEvent::Asked(account, number) => questions.asked(&reporter, account, number),
            OtherEvent::Answered(answer) => questions.answered(&answer),
        });
        match log {
            Ok(log) => _ = serving.spawn(accounts.clone().follow(log, began, stop.clone())),
            Err(error) => error!("the node cannot follow the others: {error}"),
        }
        let leave = CancellationToken::new();
        let left = leave.clone();
        let membership = tokio::spawn(async move {
            let (store, ownership) = (registry.store().clone(), registry.ownership().clone());
            // Accounts that are loaded before the log is read might change without a word.
            if left.run_until_cancelled(begins).await.is_some_and(|begun| begun.is_ok()) {
                let keeper = Arc::new(accounts);
                cluster::serve(store, view, ownership, keeper, slots_changed, left).await;
            }
        });
        Member { leave, membership, serving }
    }
}

/// Counts the accounts for this node's reports to the others.
async fn count(registry: Registry) {
    loop {
        registry.store().report_counts(registry.count_accounts());
        sleep(COUNT).await;
    }
}

impl Member {
    /// Returns when a part of it has ended by itself: without it the node would own accounts and not serve them.
    pub(super) async fn ended(&mut self) {
        tokio::select! {
            _ = &mut self.membership => {}
            Some(_) = self.serving.join_next() => {}
        }
    }

    /// Leaves: the other nodes take over, as far as they can in the time.
    pub(super) async fn leave(&mut self) {
        self.leave.cancel();
        if !self.membership.is_finished() && timeout(LEAVING, &mut self.membership).await.is_err() {
            warn!(
                "the other nodes have not taken over all accounts within {}s; they do when this node's lease ends",
                LEAVING.as_secs()
            );
        }
    }
}
