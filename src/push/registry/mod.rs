//! The registry of accounts, their tokens and credentials: a copy in memory in front of the store.
//!
//! Memory follows the disk: each change is made in the store, and what the store has committed is applied here, on its
//! thread and in its order. A caller that is dropped while it waits leaves nothing half done.

mod accounts;
mod admission;
mod changes;
mod cluster;
mod counts;
mod events;
mod held;
mod loads;
mod names;
mod newcomers;
mod recent_posts;
mod slot_lists;
mod slots;
mod tokenless;
mod unwritten_posts;
mod upkeep;
mod visits;
mod waiting;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::account::Account;
use super::latest;
use super::schedule::TokenState;
use super::watch_status::WatchState;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::mailbox_name::MailboxName;
use crate::ownership::Ownership;
use crate::secret::{DeviceToken, Secret};
use crate::store::{
    AccountStatus, Change, DualTime, Erased, FetchLesson, KnownLogin, Loaded, OpenError, Position,
    Store, StoreError, StoreSettings, UnixTime, Uptime,
};
use crate::telemetry::Telemetry;
use accounts::AccountTable;
pub use accounts::ConnectedClients;
pub use admission::Admission;
pub use cluster::SlotsLoading;
pub use events::{AccountEvent, AccountEvents, News, TokenNews};
pub use loads::LoadGuard;
pub(super) use names::local_part;
use newcomers::Newcomers;
pub use newcomers::{AccountLimits, AccountOrigin, AccountsFull};
pub use tokenless::TokenlessAccount;
use tokenless::TokenlessClients;
pub use upkeep::{MAX_AGE, upkeep};
use visits::ToldFetches;
pub(super) use visits::token_hash;
pub use visits::{DeviceFetch, Visit};

/// The mailbox that every account has.
pub(super) const INBOX: &str = "INBOX";

/// A longer name of a mailbox is not remembered.
const MAX_MAILBOX: usize = 1024;

/// Time in which a repeated fact is not written again: a phone that reconnects all the time causes no disk writes.
pub(super) const RECENTLY: Duration = Duration::from_secs(3600);

/// Accounts and tokens. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Registry(Arc<RegistryShared>);

#[derive(Debug)]
struct RegistryShared {
    store: Store,
    accounts: Arc<AccountTable>,
    telemetry: Telemetry,
    clock: UptimeClock,
    keeps_sessions: bool,
    login_memory: Mutex<LoginMemory>,
    newcomers: Arc<Mutex<Newcomers>>,
    tokenless: TokenlessClients,
    told_fetches: ToldFetches,
}

/// The known logins at the start.
#[derive(Debug, Default)]
pub struct LoginMemory {
    /// The key of its hashes.
    pub key: Option<Secret>,
    /// The one that was not used for longest first.
    pub entries: Vec<KnownLogin>,
}

/// Counts for how long deltapush has served with the state. Stands still while the machine is suspended.
#[derive(Debug, Clone, Copy)]
struct UptimeClock {
    /// For how long it had when it started.
    before: Uptime,
    started: Instant,
}

impl UptimeClock {
    fn now(self) -> Uptime {
        self.before.after(self.started.elapsed())
    }
}

/// The registry without its store, which needs it to be opened.
struct RegistryParts {
    accounts: Arc<AccountTable>,
    account_events: AccountEvents,
    token_news: TokenNews,
    keeps_sessions: bool,
}

impl RegistryParts {
    fn new(settings: &StoreSettings, ownership: Ownership) -> Self {
        let (events, account_events) = latest::channel();
        let (news, token_news) = latest::channel();
        let keeps_sessions = settings.keeps_sessions();
        let accounts = Arc::new(AccountTable::new(events, news, keeps_sessions, ownership));
        Self { accounts, account_events, token_news, keeps_sessions }
    }

    /// Applies committed changes.
    fn follower(&self) -> impl Fn(Change) + Send + 'static {
        let accounts = Arc::clone(&self.accounts);
        move |change| accounts.apply(change)
    }

    fn assemble(self, store: Store, mut loaded: Loaded) -> (Registry, AccountEvents, TokenNews) {
        let Self { accounts, account_events, token_news, keeps_sessions } = self;
        let login_memory = LoginMemory {
            key: loaded.login_key.take(),
            entries: std::mem::take(&mut loaded.known_logins),
        };
        let clock = UptimeClock { before: loaded.served, started: Instant::now() };
        accounts.restore(loaded);
        let shared = RegistryShared {
            store,
            accounts,
            telemetry: Telemetry::default(),
            clock,
            keeps_sessions,
            login_memory: Mutex::new(login_memory),
            newcomers: Arc::default(),
            tokenless: TokenlessClients::default(),
            told_fetches: ToldFetches::default(),
        };
        (Registry(Arc::new(shared)), account_events, token_news)
    }
}

impl Registry {
    /// Opens the state. Its content waits in the two receivers: a `Watch` for each account that can be watched, and the
    /// announcements still to be made. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`OpenError`], the operator's to mend.
    pub fn open(settings: &StoreSettings) -> Result<(Self, AccountEvents, TokenNews), OpenError> {
        Self::open_owning(settings, Ownership::sole())
    }

    /// The same, with a state of its own, of a node that owns a part of the accounts.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_owning(
        settings: &StoreSettings,
        ownership: Ownership,
    ) -> Result<(Self, AccountEvents, TokenNews), OpenError> {
        let parts = RegistryParts::new(settings, ownership);
        let (store, loaded) = Store::open(settings, parts.follower())?;
        Ok(parts.assemble(store, loaded))
    }

    /// Opens the state that several nodes share, of which this is `node`. It owns nothing yet, and no account is in memory.
    ///
    /// # Errors
    /// [`OpenError`], the operator's to mend.
    pub async fn open_node(
        settings: &StoreSettings,
        node: i64,
    ) -> Result<(Self, AccountEvents, TokenNews), OpenError> {
        let ownership = Ownership::of_node();
        let parts = RegistryParts::new(settings, ownership.clone());
        let (store, loaded) =
            Store::open_postgres(settings, ownership, node, parts.follower()).await?;
        Ok(parts.assemble(store, loaded))
    }

    /// Reports if clients' sessions are kept, and no credentials.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        self.0.keeps_sessions
    }

    /// The telemetry that all parts report to.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// The account, if it has a token.
    #[must_use]
    pub fn get(&self, account: &AccountId) -> Option<Arc<Account>> {
        self.0.accounts.get(account)
    }

    /// All accounts that have a token, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        let mut accounts = self.0.accounts.all();
        accounts.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        accounts
    }

    /// The names of all accounts that have a token, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<AccountId> {
        self.accounts().iter().map(|account| account.id.clone()).collect()
    }

    /// The account's tokens, the first one registered first; none if it is not known.
    #[must_use]
    pub fn tokens(&self, account: &AccountId) -> Vec<DeviceToken> {
        self.get(account).map(|account| account.tokens()).unwrap_or_default()
    }

    /// The accounts that have this token: a device may use one for all of its accounts.
    #[must_use]
    pub fn owners(&self, token: &DeviceToken) -> Vec<Arc<Account>> {
        self.0.accounts.owners(token)
    }

    /// The accounts whose login name may have the local part of `name`, in any case.
    pub(super) fn with_local_part_of(&self, name: &str) -> Vec<Arc<Account>> {
        self.0.accounts.with_local_part_of(name)
    }

    /// Reports if the account has a token.
    #[must_use]
    pub fn is_known(&self, account: &AccountId) -> bool {
        self.get(account).is_some()
    }

    /// [`Account::credentials`] of an account that may not be known.
    #[must_use]
    pub fn credentials(&self, account: &AccountId) -> Option<Arc<Credentials>> {
        self.get(account)?.credentials()
    }

    /// Number of accounts with a token.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.accounts.len()
    }

    /// Reports if no account has a token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts the watch of the account again, also one that ended because its login was refused: its present credentials are
    /// tried once more. Returns whether there are any; without them there is nothing to begin with.
    #[must_use]
    pub fn rewatch(&self, account: &AccountId) -> bool {
        self.get(account).is_some_and(|account| self.0.accounts.rewatch(&account))
    }

    /// Number of accounts that cannot be watched without credentials: they wait for a device to log in.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.accounts.waiting()
    }

    /// Reports if it must be stored that a client of the account waits for mail in `mailbox`: the account is known, and
    /// this was not stored within the last hour. Reads memory only.
    #[must_use]
    pub fn must_note_idle(&self, account: &AccountId, mailbox: &str) -> bool {
        let since = self.0.clock.now().before(RECENTLY);
        mailbox.len() <= MAX_MAILBOX
            && self.get(account).is_some_and(|account| account.must_note_idle(mailbox, since))
    }

    /// Reports if the behaviour of this device's app with unencrypted messages of the account must be stored. Reads
    /// memory only.
    #[must_use]
    pub fn must_note_lesson(
        &self,
        account: &AccountId,
        token: &DeviceToken,
        lesson: &FetchLesson,
    ) -> bool {
        let known = self.get(account);
        known.is_some_and(|known| known.must_note_lesson(token, lesson, UnixTime::now()))
    }

    /// [`Account::fetches_encrypted_only`] of an account that may not be known.
    #[must_use]
    pub fn fetches_encrypted_only(&self, account: &AccountId) -> bool {
        self.get(account).is_some_and(|account| account.fetches_encrypted_only())
    }

    /// The positions noted for the account's mailboxes, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn positions(
        &self,
        account: &AccountId,
    ) -> Result<Vec<(MailboxName, Position)>, StoreError> {
        self.0.store.positions(account).await
    }

    /// Number of tokens in quarantine.
    #[must_use]
    pub fn quarantined_tokens(&self) -> usize {
        self.0.accounts.quarantined_tokens()
    }

    /// The state of a token for the schedule. None if no account has it.
    #[must_use]
    pub fn standing(&self, token: &DeviceToken) -> Option<TokenState> {
        self.0.accounts.standing(token, UnixTime::now())
    }

    /// The accounts that deltapush erased by itself lately, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn erased(&self) -> Result<Vec<Erased>, StoreError> {
        self.0.store.erased(UnixTime::now()).await
    }

    fn now(&self) -> DualTime {
        DualTime { wall: UnixTime::now(), served: self.0.clock.now() }
    }

    /// Hands over what the guard of logins knew before the start: once.
    #[must_use]
    pub fn take_login_memory(&self) -> LoginMemory {
        std::mem::take(&mut *self.0.login_memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of watches in each state, in the order of [`WatchState::NAMES`].
    #[must_use]
    pub fn count_watches(&self) -> [usize; WatchState::NAMES.len()] {
        let mut counts = [0_usize; WatchState::NAMES.len()];
        for state in self.0.accounts.all().iter().filter_map(|account| account.watch.state_index())
        {
            if let Some(count) = counts.get_mut(state) {
                *count += 1;
            }
        }
        counts
    }

    /// The clients that are logged in to the account, where sessions are kept.
    #[must_use]
    pub fn clients(&self, account: &AccountId) -> ConnectedClients {
        self.0.accounts.clients(account)
    }

    pub(super) fn change_clients(
        &self,
        account: &AccountId,
        change: impl FnOnce(&mut ConnectedClients),
    ) {
        self.0.accounts.change_clients(account, change);
    }

    /// Reports if neither a client nor a kept session of the account is there.
    #[must_use]
    pub fn is_alone(&self, account: &AccountId) -> bool {
        self.0.accounts.is_alone(account)
    }

    /// All accounts as a person is shown them, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(&self) -> Result<Vec<AccountStatus>, StoreError> {
        let mut accounts = self.0.store.status().await?;
        accounts.iter_mut().for_each(|status| self.0.accounts.complete(status));
        Ok(accounts)
    }

    /// Adds the facts of an account that are in memory only.
    pub fn complete(&self, status: &mut AccountStatus) {
        self.0.accounts.complete(status);
    }

    /// Reports if the state can be written, as far as is known: if the last change went to disk.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.0.store.is_failing()
    }

    /// Waits until the state can be written, as far as is known.
    pub async fn until_writable(&self) {
        self.0.store.until_writable().await;
    }

    /// The store underneath.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;
