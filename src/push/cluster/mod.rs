//! The accounts of one node of several that share a state: they come and go with the node's slots, and follow what other nodes
//! change.

mod callbacks;
pub mod events;
mod forwarded;
#[cfg(test)]
mod shared_tests;
mod slot_queue;
mod state;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::registry::{Registry, token_hash};
use super::settling::Settler;
use super::watcher::Watchers;
use super::watcher::context::WatchContext;
use crate::account::AccountId;
use crate::cluster::SlotKeeper;
use crate::config::KeepSettings;
use crate::ownership::Slot;
use crate::secret::DeviceToken;
use crate::store::StoreError;
use callbacks::CallBounds;
use slot_queue::SlotQueue;
pub use state::SharedState;
pub use stored::{OtherEvent, StoredLog};

/// Slots whose accounts are loaded at once: what a client waits for behind that takes a moment.
const PIECE: usize = 16;

/// Time limit for the watches of prepared slots to begin.
const PREPARATION: Duration = Duration::from_secs(30);

/// Time limit for POSTs in flight to be answered, and the answers to be written.
const REST: Duration = Duration::from_secs(3);

/// Pause between two looks at these watches.
const LOOK: Duration = Duration::from_millis(50);

/// The accounts of a node. Clones are handles of the same.
#[derive(Clone)]
pub struct NodeAccounts<S> {
    context: Arc<WatchContext>,
    state: S,
    settler: Settler,
    /// Held by the one call that loads slots.
    loading: Arc<Mutex<()>>,
    /// Slots of which other nodes may have forwarded something.
    forwarded: SlotQueue,
    /// Slots that have come, with accounts that may have no credentials.
    taken: SlotQueue,
    calls: CallBounds,
    /// Answers to POSTs can be written again, perhaps.
    answers: Arc<Notify>,
}

impl<S: SharedState> NodeAccounts<S> {
    /// The accounts of these watches, as `state` has them, whose tokens are posted where `settler` asks.
    #[must_use]
    pub fn new(watchers: &Watchers, state: S, settler: Settler, keep: &KeepSettings) -> Self {
        Self::of(Arc::clone(watchers.context()), state, settler, keep.into())
    }

    fn of(context: Arc<WatchContext>, state: S, settler: Settler, calls: CallBounds) -> Self {
        let (forwarded, taken) = <(SlotQueue, SlotQueue)>::default();
        let (loading, answers) = (Arc::default(), Arc::default());
        Self { context, state, settler, loading, forwarded, taken, calls, answers }
    }

    fn registry(&self) -> &Registry {
        &self.context.registry
    }

    /// Loads those of the slots that are wanted and not here yet. Afterwards all are here, but for those that were dropped
    /// meanwhile.
    async fn load(&self, slots: &[Slot]) -> Result<(), StoreError> {
        for piece in slots.chunks(PIECE) {
            // A slot that is loaded for another call meanwhile is waited for, and loaded here if that fails.
            let _one = self.loading.lock().await;
            let load = self.registry().begin_load();
            let loading = self.registry().hold(piece);
            if loading.slots().is_empty() {
                continue;
            }
            let loaded = self.state.load_slots(loading.slots()).await?;
            for account in self.registry().insert_loaded(loaded, loading.slots(), load) {
                self.reload(&account).await?;
            }
            loading.end();
        }
        Ok(())
    }

    /// Takes over the account as the state has it now.
    async fn reload(&self, account: &AccountId) -> Result<(), StoreError> {
        self.registry().reload_from(account, || self.state.load_account(account)).await
    }

    /// Loads the accounts that this node watches once more: what it has not heard of, or has heard of and the state has lost.
    /// Returns those in memory that are to be loaded one by one.
    async fn reload_all(&self) -> Result<HashSet<AccountId>, StoreError> {
        let mut left: HashSet<AccountId> = {
            // Accounts that an older load has found are in memory then.
            let _none = self.loading.lock().await;
            self.registry().names().into_iter().collect()
        };
        for piece in self.registry().loaded_slots().chunks(PIECE) {
            let _one = self.loading.lock().await;
            let load = self.registry().begin_load();
            let loaded = self.state.load_slots(piece).await?;
            for record in &loaded.accounts {
                left.remove(&record.account);
            }
            left.extend(self.registry().insert_loaded(loaded, &[], load));
        }
        Ok(left)
    }

    /// Waits until each watch of the slots is as far as it can get.
    async fn until_settled(&self, slots: &[Slot]) {
        let mut left = self.registry().in_slots(slots);
        loop {
            left.retain(|account| !self.registry().is_settled(account));
            if left.is_empty() {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Tokens of lost slots that other accounts of this node have: those that another node posts now are left to it.
    async fn review(&self, tokens: Vec<DeviceToken>) {
        for tokens in tokens.chunks(events::REVIEWED) {
            let hashes: Vec<_> = tokens.iter().map(token_hash).collect();
            if let Err(error) = self.look_at_posts(&hashes).await {
                let tokens = hashes.len();
                debug!(tokens, "cannot find out which node posts the tokens: {error}");
            }
        }
    }
}

impl<S: SharedState> SlotKeeper for NodeAccounts<S> {
    fn want(&self, slots: &[Slot]) {
        self.registry().want(slots);
    }

    async fn prepare(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        self.load(&slots).await?;
        // A mail server that does not answer holds nothing up.
        let _ = timeout(PREPARATION, self.until_settled(&slots)).await;
        Ok(())
    }

    async fn take(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        self.registry().want(&slots);
        self.load(&slots).await?;
        self.registry().settle_no_more(&slots);
        for piece in slots.chunks(PIECE) {
            let left = self.state.pending(piece).await?;
            self.registry().take_up(left);
        }
        self.forwarded.add(slots.iter().copied());
        self.taken.add(slots);
        Ok(())
    }

    async fn settle(&self, slots: Vec<Slot>) {
        let tokens = self.registry().settle(&slots);
        let _ = timeout(REST, self.settler.settle(tokens)).await;
    }

    fn drop(&self, slots: Vec<Slot>) {
        let shared = self.registry().forget_posts(&slots);
        self.registry().release(&slots);
        if !shared.is_empty() {
            let node = self.clone();
            tokio::spawn(async move { node.review(shared).await });
        }
    }

    fn lapse(&self, slots: Vec<Slot>) {
        // Nothing is owned any more: no account is left that could post a shared token.
        self.registry().forget_posts(&slots);
    }

    fn share(&self, nodes: usize) {
        self.registry().ownership().set_nodes(nodes);
        self.context.pacing.share(nodes);
    }
}
