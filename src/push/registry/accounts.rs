//! The table of all accounts: the copy in memory of what the store has committed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use dashmap::mapref::multiple::RefMulti;

use super::events::{AccountEvent, News};
use super::held::HeldSlots;
use super::loads::Loads;
use super::names::NameIndex;
use super::recent_posts::RecentPosts;
use super::slot_lists::SlotLists;
use super::unwritten_posts::UnwrittenPosts;
use super::waiting::WaitingAccounts;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::ownership::Ownership;
use crate::push::account::{Account, AccountOwner, AccountState};
use crate::push::latest::LatestSender;
use crate::push::schedule::{PATIENCE, QUARANTINE, Quarantined, TokenState};
use crate::secret::DeviceToken;
use crate::store::{
    AccountRecord, AccountStatus, Announce, Change, Generation, Idled, Loaded, Position,
    StoredToken, TokenRecord, Unannounced, UnixTime,
};

/// For how long at least a token is tried that had something to announce when deltapush ended.
const LAST_TRY: Duration = Duration::from_secs(10 * 60);

/// All accounts, and the index of their tokens.
#[derive(Debug)]
pub(super) struct AccountTable {
    pub(super) map: DashMap<AccountId, AccountSlot>,
    tokens: DashMap<DeviceToken, Token>,
    pub(super) names: NameIndex,
    /// Number of accounts without credentials.
    pub(super) waiting: WaitingAccounts,
    events: LatestSender<AccountId, AccountEvent>,
    pub(super) news: LatestSender<DeviceToken, News>,
    /// No account has credentials, and none is waited for.
    keeps_sessions: bool,
    /// The accounts that are watched here, of a node with companions.
    pub(super) held: HeldSlots,
    /// The accounts by their slots, of a node with companions.
    pub(super) by_slot: SlotLists,
    /// POSTs of other nodes that were accepted lately.
    pub(super) recent_posts: RecentPosts,
    /// POSTs of this node whose answers are still to be written.
    pub(super) unwritten_posts: UnwrittenPosts,
    /// Loads of accounts under way.
    pub(super) loads: Loads,
}

/// The entry of an account's name: the account, once it has a device, and its clients, which may have none.
#[derive(Debug, Default)]
pub(super) struct AccountSlot {
    pub(super) account: Option<AccountOwner>,
    pub(super) clients: ConnectedClients,
}

/// The clients of an account that are logged in. Counted where sessions are kept, and where nodes share one state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectedClients {
    /// All of them, and sessions that are just being taken over.
    pub(in crate::push) here: u32,
    /// Those that wait for mail in the only mailbox that is watched.
    pub(in crate::push) waiting: u32,
}

/// A token that an account has.
#[derive(Debug, Default)]
struct Token {
    /// The accounts that have it, in the order in which they got it.
    owners: Vec<Weak<Account>>,
    record: TokenRecord,
}

impl AccountTable {
    pub(super) fn new(
        events: LatestSender<AccountId, AccountEvent>,
        news: LatestSender<DeviceToken, News>,
        keeps_sessions: bool,
        ownership: Ownership,
    ) -> Self {
        Self {
            map: DashMap::new(),
            tokens: DashMap::new(),
            names: NameIndex::default(),
            waiting: WaitingAccounts::default(),
            events,
            news,
            keeps_sessions,
            by_slot: SlotLists::new(ownership.is_sole()),
            held: HeldSlots::new(ownership),
            recent_posts: RecentPosts::default(),
            unwritten_posts: UnwrittenPosts::default(),
            loads: Loads::default(),
        }
    }

    /// Takes over what was found at the start.
    pub(super) fn restore(&self, loaded: Loaded) {
        if !self.keeps_sessions {
            self.waiting.begin(loaded.accounts.iter().filter(|record| record.is_waiting()).count());
        }
        loaded.accounts.into_iter().for_each(|record| self.insert(record, true));
        loaded.tokens.into_iter().for_each(|(token, record)| self.apply_token(&token, record));
        self.resume(loaded.unannounced);
    }

    /// Adds an account that is not known. One that is new since this process runs is not `from_before`.
    pub(super) fn insert(&self, record: AccountRecord, from_before: bool) {
        let AccountRecord { account: id, credentials, tokens, idled, called, is_watched } = record;
        let state = AccountState { credentials, tokens, idled, called, is_watched };
        let account = self.add(Account::new(id, state, from_before));
        if account.credentials().is_some() {
            self.send(&account, AccountEvent::Watch);
        }
    }

    /// Tells the watches of an account. Nothing for one that has its watch at another node.
    pub(super) fn send(&self, account: &Account, event: AccountEvent) {
        if self.held.has(&account.id) {
            self.events.send(account.id.clone(), event);
        }
    }

    fn add(&self, account: Account) -> Arc<Account> {
        let account = Arc::new(account);
        self.now_has(&account, &[], &account.stored_tokens());
        self.names.add(&account);
        // Before it is in the table: whatever is there is in its list.
        self.by_slot.add(&account);
        let owner = AccountOwner(Arc::clone(&account));
        self.map.entry(account.id.clone()).or_default().account = Some(owner);
        account
    }

    /// Takes up what another process has left to announce.
    pub(super) fn resume(&self, unannounced: Vec<Unannounced>) {
        let now = UnixTime::now();
        for found in unannounced.into_iter().filter(|it| !self.is_left_to_the_next(&it.token)) {
            // However old the wall clock makes it: after an outage of whatever kind it is tried once more.
            let age = found.since.age(now).min(PATIENCE.saturating_sub(LAST_TRY));
            self.news.send(found.token, News::Pending { generation: found.generation, age });
        }
    }

    /// Runs on the store's thread.
    pub(super) fn apply(&self, change: Change) {
        if let Some(account) = change.account() {
            self.loads.account_changes(account);
        }
        match change {
            Change::Tokens { account, tokens, .. } if tokens.is_empty() => self.erase(account),
            Change::Tokens { account, credentials, tokens } => {
                self.apply_tokens(account, credentials, tokens)
            }
            Change::Credentials { account, credentials } => {
                if let Some(account) = self.get(&account) {
                    self.apply_credentials(&account, credentials);
                }
            }
            Change::Watched { account, is_watched } => {
                if let Some(account) = self.get(&account) {
                    self.apply_watched(&account, is_watched);
                }
            }
            Change::Pending { tokens, generation } => {
                let news = News::Pending { generation, age: Duration::ZERO };
                let tokens = tokens.into_iter().filter(|token| !self.is_left_to_the_next(token));
                tokens.for_each(|token| self.news.send(token, news));
            }
            Change::Idled { account, mailboxes } => {
                if let Some(account) = self.get(&account) {
                    self.apply_idled(&account, mailboxes);
                }
            }
            Change::Token { token, record } => self.apply_token(&token, record),
            Change::Gone { token } => self.news.send(token, News::Gone),
        }
    }

    /// The account has no device any more: it goes, with all that belongs to it.
    pub(super) fn erase(&self, id: AccountId) {
        let Some(account) = self.take_out(id) else { return };
        if self.is_waited_for(&account) {
            self.waiting.ended();
        }
        if self.held.has(&account.id) {
            tracing::info!(account = %*account, "watch ended: the account has no device any more");
        }
    }

    /// Takes an account out of the table and its indexes.
    pub(super) fn take_out(&self, id: AccountId) -> Option<AccountOwner> {
        let Entry::Occupied(mut slot) = self.map.entry(id) else { return None };
        let account = slot.get_mut().account.take()?;
        if slot.get().is_unused() {
            slot.remove();
        } else {
            drop(slot);
        }
        self.now_has(&account, &account.stored_tokens(), &[]);
        self.names.remove(&account);
        self.by_slot.remove(&account);
        Some(account)
    }

    /// Reports if the account's watch waits for credentials. Not where sessions are kept, nor of a visitor.
    pub(super) fn is_waited_for(&self, account: &Account) -> bool {
        self.needs_login(account) && self.held.has(&account.id)
    }

    /// The same, wherever the account is watched.
    pub(super) fn needs_login(&self, account: &Account) -> bool {
        account.is_waiting() && !self.keeps_sessions
    }

    fn apply_tokens(
        &self,
        id: AccountId,
        credentials: Option<Arc<Credentials>>,
        tokens: Vec<StoredToken>,
    ) {
        let Some(known) = self.get(&id) else {
            if !self.has_room_for(&id) {
                return;
            }
            let is_watched = self.is_watched_with(credentials.as_ref());
            let (idled, called) = (Vec::new(), None);
            let state = AccountState { credentials, tokens, idled, called, is_watched };
            let account = self.add(Account::new(id, state, false));
            self.send(&account, AccountEvent::Watch);
            self.forget_visitor(&account.id);
            return;
        };
        self.replace_tokens(&known, tokens);
        if let Some(credentials) = credentials {
            self.apply_credentials(&known, credentials);
        }
    }

    /// Other tokens of a known account. Returns those that it has lost.
    pub(super) fn replace_tokens(
        &self,
        account: &Arc<Account>,
        tokens: Vec<StoredToken>,
    ) -> Vec<DeviceToken> {
        let mut before = account.replace_tokens(tokens.clone());
        self.now_has(account, &before, &tokens);
        before.retain(|seen| !tokens.iter().any(|kept| kept.token == seen.token));
        before.into_iter().map(|seen| seen.token).collect()
    }

    pub(super) fn apply_watched(&self, account: &Account, is_watched: bool) {
        let is_waited_for = self.is_waited_for(account);
        if account.set_watched(is_watched) && is_waited_for {
            self.waiting.ended();
        }
    }

    pub(super) fn apply_idled(&self, account: &Account, mailboxes: Vec<Idled>) {
        if account.replace_idled(mailboxes) && account.can_be_watched() {
            self.send(account, AccountEvent::MailboxesChanged);
        }
    }

    /// Reports if a new account with these credentials is watched: a client that is to be watched brings some, of whatever use they are.
    pub(super) fn is_watched_with(&self, credentials: Option<&Arc<Credentials>>) -> bool {
        credentials.is_some() || self.keeps_sessions
    }

    pub(super) fn apply_credentials(&self, account: &Account, credentials: Arc<Credentials>) {
        let Some(taken) = account.take_credentials(credentials) else { return };
        self.send(account, AccountEvent::CredentialsChanged);
        if taken.waited && self.held.has(&account.id) {
            self.waiting.ended();
        }
    }

    /// News that could not be written is pushed from memory, once.
    pub(super) fn push_unwritten(
        &self,
        account: &Account,
        mailbox: &str,
        position: Position,
        announce: &Announce,
    ) {
        if *announce != Announce::Nothing && account.push_unwritten(mailbox, position) {
            self.push_at_once(account, announce);
        }
    }

    /// Pushes from memory.
    pub(super) fn push_at_once(&self, account: &Account, announce: &Announce) {
        let news = News::Pending { generation: Generation::default(), age: Duration::ZERO };
        let tokens = account.tokens().into_iter().filter(|token| announce.includes(token));
        tokens.for_each(|token| self.news.send(token, news));
    }

    pub(super) fn apply_token(&self, token: &DeviceToken, record: TokenRecord) {
        if let Some(mut known) = self.tokens.get_mut(token) {
            known.record = record;
        }
    }

    pub(super) fn quarantined_tokens(&self) -> usize {
        self.tokens.iter().filter(|known| known.record.quarantine.is_some()).count()
    }

    /// Reports if the token is in quarantine, and not posted before a time that is still to come.
    pub(super) fn is_quarantined(&self, token: &DeviceToken, now: UnixTime) -> bool {
        let quarantine = self.tokens.get(token).and_then(|known| known.record.quarantine);
        quarantine.is_some_and(|found| found.until > now)
    }

    pub(super) fn standing(&self, token: &DeviceToken, now: UnixTime) -> Option<TokenState> {
        let known = self.tokens.get(token)?;
        let quarantine = known.record.quarantine.map(|quarantine| Quarantined {
            answers: quarantine.answers,
            // A wall clock that was set back makes no wait longer than it ever is.
            wait: now.age(quarantine.until).min(QUARANTINE),
        });
        let account = known.owners.iter().find_map(Weak::upgrade)?.id.clone();
        let (accepted, since_post) = (known.record.accepted, self.recent_posts.age(token, now));
        Some(TokenState { account, accepted, since_post, quarantine })
    }

    pub(super) fn owners(&self, token: &DeviceToken) -> Vec<Arc<Account>> {
        let known = self.tokens.get(token);
        known
            .map(|known| known.owners.iter().filter_map(Weak::upgrade).collect())
            .unwrap_or_default()
    }

    /// The tokens of an account have changed from `before` to `now`.
    fn now_has(&self, account: &Arc<Account>, before: &[StoredToken], now: &[StoredToken]) {
        let is_its = |owner: &Weak<Account>| std::ptr::eq(owner.as_ptr(), Arc::as_ptr(account));
        for seen in now {
            let mut token = self.tokens.entry(seen.token.clone()).or_default();
            if !token.owners.iter().any(is_its) {
                // Mostly it stays the only one.
                token.owners.reserve_exact(1);
                token.owners.push(Arc::downgrade(account));
            }
        }
        for seen in before.iter().filter(|seen| !now.iter().any(|kept| kept.token == seen.token)) {
            if let Entry::Occupied(mut token) = self.tokens.entry(seen.token.clone()) {
                token.get_mut().owners.retain(|owner| !is_its(owner));
                if token.get().owners.is_empty() {
                    token.remove();
                }
            }
        }
    }

    /// The account, if it has a token.
    pub(super) fn get(&self, id: &AccountId) -> Option<Arc<Account>> {
        self.map.get(id)?.account.as_deref().cloned()
    }

    pub(super) fn with_local_part_of(&self, name: &str) -> Vec<Arc<Account>> {
        self.names.with_local_part_of(name)
    }

    /// Passes each account to `each`, in no order; a part of the table is locked meanwhile.
    pub(super) fn each(&self, mut each: impl FnMut(&Account)) {
        self.map.iter().for_each(|slot| {
            if let Some(account) = slot.account.as_deref() {
                each(account);
            }
        });
    }

    /// All accounts, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Account>> {
        self.map.iter().filter_map(|slot| slot.account.as_deref().cloned()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.map.iter().filter(|slot| slot.account.is_some()).count()
    }

    pub(super) fn at_upstream(&self, upstream: &str) -> usize {
        let is_there = |slot: &RefMulti<'_, AccountId, AccountSlot>| {
            slot.account.is_some() && *slot.key().upstream == *upstream
        };
        self.map.iter().filter(is_there).count()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.count()
    }

    pub(super) fn rewatch(&self, account: &Account) -> bool {
        let can_begin = account.try_again();
        if can_begin {
            self.send(account, AccountEvent::Watch);
        }
        can_begin
    }

    /// Adds the facts that are in memory only.
    pub(super) fn complete(&self, status: &mut AccountStatus) {
        let known = self.get(&status.account);
        status.has_credentials = false;
        if let Some(known) = known {
            known.complete(status);
        }
        // With kept sessions, none are needed.
        status.has_credentials |= self.keeps_sessions;
    }

    /// The clients that are logged in by this name.
    pub(super) fn clients(&self, id: &AccountId) -> ConnectedClients {
        self.map.get(id).map(|slot| slot.clients).unwrap_or_default()
    }

    /// Clients have come, gone, or do something else.
    pub(super) fn change_clients(
        &self,
        id: &AccountId,
        change: impl FnOnce(&mut ConnectedClients),
    ) {
        change(&mut self.map.entry(id.clone()).or_default().clients);
        self.map.remove_if(id, |_, slot| slot.is_unused());
        self.forget_visitor(id);
    }

    /// Reports if neither a client nor a kept session is there: looked at together, for a session that is handed back goes from
    /// one to the other.
    pub(super) fn is_alone(&self, id: &AccountId) -> bool {
        self.map.get(id).is_none_or(|slot| {
            let has_session = slot.account.as_ref().is_some_and(|account| !account.kept.is_empty());
            slot.clients.here == 0 && !has_session
        })
    }
}

impl AccountSlot {
    fn is_unused(&self) -> bool {
        self.account.is_none() && self.clients == ConnectedClients::default()
    }
}
