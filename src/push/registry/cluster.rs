//! The registry of a node that shares its state with others: it owns a part of the accounts, prepares for some, and knows those
//! of its clients.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{TryStreamExt, stream};
use tokio::time::{sleep, timeout};

use super::accounts::AccountTable;
use super::loads::LoadGuard;
use super::{News, Registry};
use crate::account::AccountId;
use crate::ownership::{Ownership, Slot};
use crate::push::account::Account;
use crate::secret::DeviceToken;
use crate::store::{Loaded, StateChange, StoreError, Unannounced, UnixTime};

/// An account that changes all the time is loaded so often in a row. The change itself brings the rest.
const ATTEMPTS: usize = 5;

/// Time until a node that waits for an account looks again if it owns it.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// Time until a change that could not be made is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers to POSTs that are written at once: the store writes them together.
const WRITTEN_AT_ONCE: usize = 256;

/// Slots that are being loaded. Dropped before [`end`](Self::end), because the load has failed, they are wanted as before.
#[derive(Debug)]
pub struct SlotsLoading<'a> {
    accounts: &'a AccountTable,
    slots: Vec<Slot>,
}

impl SlotsLoading<'_> {
    /// Those that have to be loaded.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Their accounts are in memory.
    pub fn end(mut self) {
        self.accounts.loaded(&std::mem::take(&mut self.slots));
    }
}

impl Drop for SlotsLoading<'_> {
    fn drop(&mut self) {
        self.accounts.not_loaded(&self.slots);
    }
}

impl Registry {
    /// The accounts that this node may work for.
    #[must_use]
    pub fn ownership(&self) -> &Ownership {
        &self.0.accounts.held.ownership
    }

    /// Reports if the account is watched by this node: its slot is owned, or prepared.
    #[must_use]
    pub fn is_watched_here(&self, account: &AccountId) -> bool {
        self.0.accounts.held.has(account)
    }

    /// The usual reason why the state cannot be written, as a question to the operator.
    #[must_use]
    pub fn usual_trouble(&self) -> &'static str {
        if self.ownership().is_sole() {
            "is the disk full?"
        } else {
            "is the database out of reach? This node pushes nothing until it is back, and its watches stay."
        }
    }

    /// Reports if changes of the account concern this node: it is watched here, or a client of it is here.
    #[must_use]
    pub fn concerns(&self, account: &AccountId) -> bool {
        self.0.accounts.has_room_for(account)
    }

    /// The accounts that are watched by this node, in no order.
    #[must_use]
    pub(in crate::push) fn watched_here(&self) -> Vec<Arc<Account>> {
        self.0.accounts.watched_here()
    }

    /// The accounts of these slots are to be here, until they are [released](Self::release). Those that are loaded stay.
    pub fn want(&self, slots: &[Slot]) {
        self.0.accounts.want(slots);
    }

    /// The accounts of those of these slots that are wanted and not loaded are watched by this node from now on. They are to be
    /// [loaded](Self::begin_load) by the caller, while nobody else loads slots.
    #[must_use]
    pub fn hold(&self, slots: &[Slot]) -> SlotsLoading<'_> {
        SlotsLoading { accounts: &self.0.accounts, slots: self.0.accounts.hold(slots) }
    }

    /// The slots whose accounts are loaded.
    #[must_use]
    pub fn loaded_slots(&self) -> Vec<Slot> {
        self.0.accounts.held.loaded().collect()
    }

    /// A load from the state begins. What changes meanwhile is not overwritten with what it finds.
    pub fn begin_load(&self) -> LoadGuard<'_> {
        self.0.accounts.loads.begin()
    }

    /// The accounts of these slots that are in memory.
    #[must_use]
    pub(in crate::push) fn in_slots(&self, slots: &[Slot]) -> Vec<Arc<Account>> {
        self.0.accounts.of_slots(slots)
    }

    /// Reports if the watch of the account is as far as it can get: it waits for new mail, or cannot, or is another node's.
    #[must_use]
    pub(in crate::push) fn is_settled(&self, account: &Account) -> bool {
        account.watch.is_settled()
            || !account.can_be_watched() && account.is_watched()
            || account.is_erased()
            || !self.is_watched_here(&account.id)
    }

    /// The accounts of these slots that have no credentials and need some.
    #[must_use]
    pub(in crate::push) fn waiting_in(&self, slots: &HashSet<Slot>) -> Vec<Arc<Account>> {
        let slots: Vec<Slot> = slots.iter().copied().collect();
        let mut accounts = self.0.accounts.of_slots(&slots);
        accounts.retain(|account| self.is_watched_here(&account.id) && account.is_waiting());
        accounts
    }

    /// Takes over the accounts of slots that this node holds, the `new` ones [since the load began](Self::hold). Returns those
    /// that have changed since then: they are to be loaded once more.
    #[must_use]
    pub fn insert_loaded(
        &self,
        loaded: Loaded,
        new: &[Slot],
        load: LoadGuard<'_>,
    ) -> HashSet<AccountId> {
        self.0.accounts.insert_loaded(loaded, new, load)
    }

    /// Takes over one account as the state has it, or removes it if the state does not have it. Returns false if it has changed
    /// since the load began: it is to be loaded once more.
    #[must_use]
    pub fn replace_account(
        &self,
        account: &AccountId,
        loaded: Loaded,
        load: LoadGuard<'_>,
    ) -> bool {
        let accounts = &self.0.accounts;
        load.takes_over(account);
        match loaded.accounts.into_iter().find(|record| record.account == *account) {
            Some(record) => accounts.replace(record, false),
            None => accounts.remove(account.clone()),
        }
        accounts.apply_token_records(loaded.tokens);
        accounts.recent_posts.add(loaded.accepted, UnixTime::now());
        !load.end().contains(account)
    }

    /// Takes over the account as the state has it now.
    ///
    /// # Errors
    /// [`StoreError`]: it stays as it was.
    pub async fn reload(&self, account: &AccountId) -> Result<(), StoreError> {
        self.reload_from(account, || self.0.store.load_account(account)).await
    }

    /// The same, with another way to load it.
    pub(in crate::push) async fn reload_from<L>(
        &self,
        account: &AccountId,
        mut load_account: impl FnMut() -> L,
    ) -> Result<(), StoreError>
    where
        L: Future<Output = Result<Loaded, StoreError>>,
    {
        for _ in 0..ATTEMPTS {
            let load = self.begin_load();
            let loaded = load_account().await?;
            if self.replace_account(account, loaded, load) {
                break;
            }
        }
        Ok(())
    }

    /// Takes up pushes that another node has left, with what it has found out about tokens. Those that this node has posted before
    /// do not count, nor do accounts in `left`.
    pub fn take_up(&self, left: Loaded) {
        let accounts = &self.0.accounts;
        accounts.apply_token_records(left.tokens);
        accounts.recent_posts.add(left.accepted, UnixTime::now());
        let posts = &accounts.unwritten_posts;
        let is_left = |push: &Unannounced| !posts.has(&push.token, push.generation);
        accounts.resume(left.unannounced.into_iter().filter(is_left).collect());
    }

    /// Another node posts the token.
    pub fn leave_post(&self, token: DeviceToken) {
        self.0.accounts.news.send(token, News::Moved);
    }

    /// Writes the answers to POSTs that could not be written before, as far as this node posts their tokens.
    pub async fn write_posts(&self) {
        let accounts = &self.0.accounts;
        let mut posts = accounts.unwritten_posts.all_failed();
        posts.retain(|(token, _)| accounts.posts(token));
        let posts = stream::iter(posts.into_iter().map(Ok::<_, StoreError>));
        let write = |(token, generation)| async move { self.write_post(&token, generation).await };
        if let Err(error) = posts.try_for_each_concurrent(WRITTEN_AT_ONCE, write).await {
            tracing::debug!("answers cannot be written yet: {error}");
        }
    }

    /// These slots are about to be given away: news of their tokens is left to the next owner. Returns the tokens that are to
    /// come to rest.
    #[must_use]
    pub fn settle(&self, slots: &[Slot]) -> HashSet<DeviceToken> {
        self.0.accounts.settle(slots)
    }

    /// These slots are not about to be given away any more.
    pub fn settle_no_more(&self, slots: &[Slot]) {
        self.0.accounts.settle_no_more(slots);
    }

    /// The accounts of these slots are watched here no more. They leave the memory, but for those with a client here.
    pub fn release(&self, slots: &[Slot]) {
        self.0.accounts.release(slots);
    }

    /// Tokens of these slots are not posted any more by this node. Returns those that another owned account has, too.
    pub fn forget_posts(&self, slots: &[Slot]) -> Vec<DeviceToken> {
        self.0.accounts.forget_posts(slots)
    }

    /// Makes a change that only the owner of the account may make. Where nodes share the state, waits until this node owns the
    /// account and the state can be written, and tries again until it is made: the account's other changes wait behind it.
    ///
    /// # Errors
    /// [`StoreError`] without companions. With some only [`StoreError::Closed`], and [`StoreError::NotOwner`] if the account is
    /// not here any more.
    pub(super) async fn commit_owned<T, C>(
        &self,
        account: &AccountId,
        mut change: impl FnMut() -> C,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        C: StateChange<T>,
    {
        if self.ownership().is_sole() {
            return self.commit(change()).await;
        }
        loop {
            let Some(known) = self.get(account).filter(|_| self.is_watched_here(account)) else {
                return Err(StoreError::NotOwner);
            };
            self.until_owned(&known).await;
            if !self.ownership().has(account) {
                continue;
            }
            match self.commit(change()).await {
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                // An ownership that has just been lost, or a database that is away.
                Err(_) => sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await,
                Ok(made) => return Ok(made),
            }
        }
    }

    /// Waits until this node owns the account, and the state can be written. Meanwhile its watch counts as standby.
    async fn until_owned(&self, account: &Account) {
        if self.ownership().has(&account.id) && self.is_writable() {
            return;
        }
        let _standby = account.watch.stand_by();
        self.until_writable().await;
        // Bounded, in case an ownership that has run out is renewed without a word.
        let _ = timeout(LONGEST_LOOK, self.ownership().until_has(&account.id)).await;
    }
}
