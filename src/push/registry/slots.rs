//! Accounts come and go by slots, where several nodes share one state: loaded ones enter the table, those of other nodes leave it.
//!
//! An account of a slot that is not held is a visitor: it stays as long as a client of it is here, and has no watch.

use std::collections::HashSet;
use std::sync::Arc;

use super::accounts::AccountTable;
use super::events::{AccountEvent, News};
use super::held::SlotLoad;
use super::loads::LoadGuard;
use crate::account::AccountId;
use crate::ownership::{SLOTS, Slot};
use crate::push::account::Account;
use crate::secret::DeviceToken;
use crate::store::{AccountRecord, Loaded, TokenRecord, UnixTime};

impl AccountTable {
    /// The accounts of these slots are to be here.
    pub(super) fn want(&self, slots: &[Slot]) {
        for slot in slots {
            self.held.advance(*slot, SlotLoad::Free, SlotLoad::Wanted);
        }
    }

    /// The accounts of those of these slots that are wanted are watched here from now on. Returns these: their accounts have to
    /// be loaded.
    pub(super) fn hold(&self, slots: &[Slot]) -> Vec<Slot> {
        let is_wanted = |slot: &Slot| self.held.advance(*slot, SlotLoad::Wanted, SlotLoad::Loading);
        slots.iter().copied().filter(is_wanted).collect()
    }

    /// The accounts of these slots are in memory, as far as the slots were not dropped meanwhile.
    pub(super) fn loaded(&self, slots: &[Slot]) {
        for slot in slots {
            self.held.advance(*slot, SlotLoad::Loading, SlotLoad::Loaded);
        }
    }

    /// The accounts of these slots could not be loaded: they are wanted as before, unless they were dropped meanwhile.
    pub(super) fn not_loaded(&self, slots: &[Slot]) {
        let back = |slot: &Slot| self.held.advance(*slot, SlotLoad::Loading, SlotLoad::Wanted);
        let slots: Vec<Slot> = slots.iter().copied().filter(back).collect();
        self.let_go(&slots);
    }

    /// Takes over the accounts of slots that are held, the `new` ones since the load began, as `load` has found them. Returns
    /// those that have changed meanwhile: the caller loads them again.
    pub(super) fn insert_loaded(
        &self,
        loaded: Loaded,
        new: &[Slot],
        load: LoadGuard<'_>,
    ) -> HashSet<AccountId> {
        let is_new = |record: &&AccountRecord| {
            self.get(&record.account).is_none() && self.held.has(&record.account)
        };
        let waiting = loaded.accounts.iter().filter(|record| record.is_waiting()).filter(is_new);
        self.waiting.begin(waiting.count());
        for record in loaded.accounts {
            load.takes_over(&record.account);
            let visitor =
                self.get(&record.account).filter(|known| new.contains(&Slot::of(&known.id)));
            self.replace(record, true);
            if let Some(account) = visitor {
                self.becomes_held(&account);
            }
        }
        self.apply_token_records(loaded.tokens);
        self.recent_posts.add(loaded.accepted, UnixTime::now());
        load.end()
    }

    fn becomes_held(&self, account: &Account) {
        if self.is_waited_for(account) {
            self.waiting.begin(1);
        }
        // The owner before may have died before its watch saw anything.
        account.set_from_before();
        self.send(account, AccountEvent::Watch);
    }

    /// Records of the notification server's answers about tokens.
    pub(super) fn apply_token_records(&self, tokens: Vec<(DeviceToken, TokenRecord)>) {
        tokens.into_iter().for_each(|(token, record)| self.apply_token(&token, record));
    }

    /// Takes over an account as the state has it now, with the same effects as the changes that led there.
    pub(super) fn replace(&self, found: AccountRecord, from_before: bool) {
        let Some(known) = self.get(&found.account) else {
            if self.has_room_for(&found.account) {
                let id = found.account.clone();
                self.insert(found, from_before);
                self.forget_visitor(&id);
            }
            return;
        };
        for token in self.replace_tokens(&known, found.tokens) {
            if self.owners(&token).is_empty() {
                self.news.send(token, News::Gone);
            }
        }
        self.apply_watched(&known, found.is_watched);
        if let Some(credentials) = found.credentials {
            self.apply_credentials(&known, credentials);
        }
        self.apply_idled(&known, found.idled);
        if let Some(called) = found.called {
            known.called(called);
        }
    }

    /// The state does not have the account any more.
    pub(super) fn remove(&self, id: AccountId) {
        let tokens = self.get(&id).map(|known| known.tokens()).unwrap_or_default();
        self.erase(id);
        for token in tokens.into_iter().filter(|token| self.owners(token).is_empty()) {
            self.news.send(token, News::Gone);
        }
    }

    /// The accounts of these slots are watched here no more: they leave, and those with a client here stay as visitors.
    pub(super) fn release(&self, slots: &[Slot]) {
        self.settle_no_more(slots);
        // First: an account that a load inserts at the same time leaves by itself.
        let held: Vec<Slot> = slots.iter().copied().filter(|slot| self.held.free(*slot)).collect();
        self.let_go(&held);
    }

    /// The accounts of slots that were held until now leave.
    fn let_go(&self, slots: &[Slot]) {
        let leaving = self.of_slots(slots);
        let waiting = leaving.iter().filter(|account| self.needs_login(account)).count();
        self.waiting.left(waiting);
        for account in leaving {
            account.watch.stop();
            account.watch.end();
            account.kept.close_all();
            self.forget_visitor(&account.id);
        }
    }

    /// The tokens of these slots are not posted here any more. Returns those that another account of this node has, too: it
    /// depends on the state who posts them.
    pub(super) fn forget_posts(&self, slots: &[Slot]) -> Vec<DeviceToken> {
        let tokens: HashSet<DeviceToken> =
            self.of_slots(slots).iter().flat_map(|account| account.tokens()).collect();
        let (shared, gone): (Vec<_>, Vec<_>) =
            tokens.into_iter().partition(|token| self.posts(token));
        gone.into_iter().for_each(|token| self.news.send(token, News::Gone));
        shared
    }

    /// Reports if this node may post the token: for one of its accounts, as far as is known here.
    pub(super) fn posts(&self, token: &DeviceToken) -> bool {
        self.owners(token).iter().any(|account| self.held.posts(&account.id))
    }

    /// Reports if news of the token is left to the next owner of its slot.
    pub(super) fn is_left_to_the_next(&self, token: &DeviceToken) -> bool {
        self.held.are_settling() && !self.posts(token)
    }

    /// These slots are about to be given away. Returns the tokens that this node does not post any more from now on.
    pub(super) fn settle(&self, slots: &[Slot]) -> HashSet<DeviceToken> {
        slots.iter().for_each(|slot| self.held.set_settling(*slot, true));
        let tokens = self.of_slots(slots).into_iter().flat_map(|account| account.tokens());
        tokens.filter(|token| !self.posts(token)).collect()
    }

    /// These slots are not about to be given away any more.
    pub(super) fn settle_no_more(&self, slots: &[Slot]) {
        slots.iter().for_each(|slot| self.held.set_settling(*slot, false));
    }

    /// The accounts of these slots, visitors too.
    pub(super) fn of_slots(&self, slots: &[Slot]) -> Vec<Arc<Account>> {
        slots.iter().flat_map(|slot| self.by_slot.accounts(*slot)).collect()
    }

    /// Number of accounts in all, as far as it can be told from those that are watched here.
    pub(super) fn estimated_len(&self) -> usize {
        if self.held.ownership.is_sole() {
            return self.len();
        }
        self.in_all(self.held.loaded().map(|slot| self.by_slot.count(slot)).sum())
    }

    /// The number in all nodes, where the slots of this one have so many: each has about as many as another.
    pub(super) fn in_all(&self, here: usize) -> usize {
        if self.held.ownership.is_sole() {
            return here;
        }
        here.saturating_mul(usize::from(SLOTS))
            .checked_div(self.held.loaded().count())
            .unwrap_or_default()
    }

    /// Reports if the account may be in memory: it is watched here, or has a client here.
    pub(super) fn has_room_for(&self, id: &AccountId) -> bool {
        self.held.has(id) || self.clients(id).here > 0
    }

    /// Removes the account if it is a visitor without a client.
    pub(super) fn forget_visitor(&self, id: &AccountId) {
        if !self.held.ownership.is_sole() && !self.has_room_for(id) {
            self.take_out(id.clone());
        }
    }

    /// Passes each account that is watched here to `each`, in no order. Without companions a part of the table is locked meanwhile.
    pub(super) fn each_here(&self, mut each: impl FnMut(&Account)) {
        if self.held.ownership.is_sole() {
            return self.each(each);
        }
        for slot in self.held.held() {
            self.by_slot.accounts(slot).iter().for_each(|account| each(account));
        }
    }

    /// The accounts that are watched here, in no order.
    pub(super) fn watched_here(&self) -> Vec<Arc<Account>> {
        if self.held.ownership.is_sole() {
            self.all()
        } else {
            self.of_slots(&self.held.held().collect::<Vec<_>>())
        }
    }
}
