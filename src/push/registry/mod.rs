//! The registry of accounts, their tokens and credentials: a copy in memory in front of the store.
//!
//! Memory follows the disk: each change is made in the store, and what the store has committed is applied here, on its
//! thread and in its order. A caller that is dropped while it waits leaves nothing half done.

mod accounts;
mod newcomers;
mod upkeep;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::account::Account;
use super::latest::{self, Merge};
use super::schedule::TokenState;
use super::watch_status::WatchState;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::mailbox_name::MailboxName;
use crate::secret::{DeviceToken, Secret};
use crate::store::{
    AccountStatus, Announce, DualTime, Erased, FetchLesson, Generation, KnownLogin, OpenError,
    Position, StateChange, Store, StoreError, StoreSettings, UnixTime, Uptime, change,
};
use crate::telemetry::Telemetry;
use accounts::AccountTable;
pub use accounts::ConnectedClients;
use newcomers::Newcomers;
pub use newcomers::{AccountLimits, AccountOrigin, AccountsFull};
pub use upkeep::{MAX_AGE, upkeep};

/// The mailbox that every account has.
pub(super) const INBOX: &str = "INBOX";

/// A mailbox that cannot be opened is forgotten if no client has waited in it for so long.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A longer name of a mailbox is not remembered.
const MAX_MAILBOX: usize = 1024;

/// Time in which a repeated fact is not written again: a phone that reconnects all the time causes no disk writes.
pub(super) const RECENTLY: Duration = Duration::from_secs(3600);

/// An event for the watcher of accounts. If it is busy, only the last event of an account waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountEvent {
    /// The account is to be watched, with its present credentials. Also said of one that is watched already, if it was
    /// removed and came back meanwhile.
    Watch,
    /// The watcher is to log in anew with the present credentials.
    CredentialsChanged,
    /// The watcher is to watch other mailboxes ([`Account::mailboxes`]). Said only of an account that can be watched.
    MailboxesChanged,
}

impl Merge for AccountEvent {
    fn merge(self, newer: Self) -> Self {
        match (self, newer) {
            // Whoever begins with a watch finds credentials and mailboxes as they are then. New credentials alone may be left
            // for the next session.
            (Self::Watch, Self::CredentialsChanged | Self::MailboxesChanged) => Self::Watch,
            (Self::CredentialsChanged, Self::MailboxesChanged)
            | (Self::MailboxesChanged, Self::CredentialsChanged) => Self::MailboxesChanged,
            (_, newer) => newer,
        }
    }
}

/// An event about a token for the notifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It has something to announce.
    Pending {
        /// Up to which generation.
        generation: Generation,
        /// Time since the newest of it was found: more than zero only after a restart.
        age: Duration,
    },
    /// No account has it any more.
    Gone,
}

impl Merge for News {
    fn merge(self, newer: Self) -> Self {
        match (self, newer) {
            // News that could not be written has no generation of its own.
            (Self::Pending { generation: older, .. }, Self::Pending { generation, age }) => {
                Self::Pending { generation: generation.max(older), age }
            }
            (_, newer) => newer,
        }
    }
}

/// The events for a supervisor of watchers.
pub type AccountEvents = latest::Receiver<AccountId, AccountEvent>;
/// The news for the notifier.
pub type TokenNews = latest::Receiver<DeviceToken, News>;

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
}

/// The known logins at the start.
#[derive(Debug, Default)]
pub struct LoginMemory {
    /// The key of its hashes.
    pub key: Option<Secret>,
    /// The one that was not used for longest first.
    pub entries: Vec<KnownLogin>,
}

/// A new account that may be stored, until this is dropped.
#[derive(Debug)]
pub struct Admission(Arc<Mutex<Newcomers>>);

impl Drop for Admission {
    fn drop(&mut self) {
        lock(&self.0).stored();
    }
}

fn lock(newcomers: &Mutex<Newcomers>) -> MutexGuard<'_, Newcomers> {
    newcomers.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Registry {
    /// Opens the state. What was found in it waits in the two receivers: a `Watch` for each account that can be watched, and
    /// what is still to be announced. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`OpenError`], the operator's to mend.
    pub fn open(settings: &StoreSettings) -> Result<(Self, AccountEvents, TokenNews), OpenError> {
        let (events, account_events) = latest::channel();
        let (news, token_news) = latest::channel();
        let accounts = Arc::new(AccountTable::new(events, news, settings.keeps_sessions()));
        let following = Arc::clone(&accounts);
        let (store, mut loaded) = Store::open(settings, move |change| following.apply(change))?;
        let login_memory = LoginMemory {
            key: loaded.login_key.take(),
            entries: std::mem::take(&mut loaded.known_logins),
        };
        let login_memory = Mutex::new(login_memory);
        let clock = UptimeClock { before: loaded.served, started: Instant::now() };
        accounts.restore(loaded);
        let keeps_sessions = settings.keeps_sessions();
        let newcomers = Arc::default();
        let telemetry = Telemetry::default();
        let shared = RegistryShared {
            store,
            accounts,
            telemetry,
            clock,
            keeps_sessions,
            login_memory,
            newcomers,
        };
        Ok((Self(Arc::new(shared)), account_events, token_news))
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

    /// From now on there may be so many accounts.
    pub fn limit(&self, limits: AccountLimits) {
        lock(&self.0.newcomers).limits = limits;
    }

    /// Reports if the account may get a token: it is known, or there may be one more. To be asked before
    /// [`register`](Self::register), and kept until that is done.
    ///
    /// # Errors
    /// [`AccountsFull`], for the client; the operator is warned.
    pub fn admit(
        &self,
        account: &AccountId,
        origin: AccountOrigin,
    ) -> Result<Option<Admission>, AccountsFull> {
        if self.is_known(account) {
            return Ok(None);
        }
        let now = Instant::now().into_std();
        let mut newcomers = lock(&self.0.newcomers);
        let at_upstream = || self.0.accounts.at_upstream(&account.upstream);
        if let Err(full) = newcomers.admit(origin, self.0.accounts.len(), at_upstream, now) {
            if let Some(refused) = newcomers.is_news(now) {
                tracing::warn!(
                    accounts = self.0.accounts.len(),
                    refused,
                    "new account refused: {full}; see limits.accounts and limits.new_accounts_per_address"
                );
            }
            return Err(full);
        }
        Ok(Some(Admission(Arc::clone(&self.0.newcomers))))
    }

    /// Number of refused new accounts since the start.
    #[must_use]
    pub fn refused_accounts(&self) -> u64 {
        lock(&self.0.newcomers).refused
    }

    /// Makes a change of the state. When this returns it is on disk and in memory.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has changed.
    pub async fn commit<T: Send + 'static>(
        &self,
        change: impl StateChange<T>,
    ) -> Result<T, StoreError> {
        self.0.store.commit(change).await
    }

    /// Takes a token over that a client has handed over, with the credentials of its session if such are kept.
    ///
    /// # Errors
    /// [`StoreError`]: the token is not kept, and the client must be told so.
    pub async fn register(
        &self,
        account: &AccountId,
        credentials: impl Into<Option<&Credentials>>,
        token: &DeviceToken,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let (known, given) = (self.get(account), credentials.into());
        let lasting = given.filter(|_| !self.0.keeps_sessions).map(|given| {
            let new = given.to_keep();
            match &known {
                Some(known) => known.lasting(new),
                None => new,
            }
        });
        // A token in quarantine is written again, once after each answer: the app is there.
        let is_current = known.is_some_and(|known| {
            known.is_current(lasting.as_ref()) && known.was_just_seen(token, now.wall)
        });
        if is_current && !self.0.accounts.is_quarantined(token, now.wall) {
            return Ok(());
        }
        let credentials = lasting;
        let credentials = credentials.map(Arc::new);
        self.commit(change::register(account, credentials, token, now)).await
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

    /// A client has logged in with these: a known account's changed password is taken over, and a watch that ended because
    /// its login was refused begins again.
    ///
    /// # Errors
    /// [`StoreError`]: the watcher goes on with what it had.
    pub async fn login_succeeded(
        &self,
        account: &AccountId,
        credentials: &Credentials,
    ) -> Result<(), StoreError> {
        if self.0.keeps_sessions {
            return Ok(());
        }
        let Some(known) = self.get(account) else { return Ok(()) };
        let credentials = known.lasting(credentials.to_keep());
        if known.is_current(Some(&credentials)) {
            return Ok(());
        }
        self.commit(change::credentials_changed(account, Arc::new(credentials))).await
    }

    /// The watch of the account begins anew now, also one that ended because its login was refused: its present credentials are
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

    /// Notes that a client of the account waits for mail in `mailbox`, its name as it stood on the wire.
    ///
    /// # Errors
    /// [`StoreError`]: it is not noted; the next time will do.
    pub async fn client_idles(&self, account: &AccountId, mailbox: &str) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        self.commit(change::client_idles(account, mailbox, now)).await
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

    /// Forgets a mailbox that cannot be opened, unless a client has waited in it within a week of running time. Returns whether
    /// it was forgotten.
    ///
    /// # Errors
    /// [`StoreError`]: it is not.
    pub async fn forget_mailbox(
        &self,
        account: &AccountId,
        mailbox: &str,
    ) -> Result<bool, StoreError> {
        let limit = self.0.clock.now().before(UNUSED);
        self.commit(change::forget_idled(account, mailbox, limit)).await
    }

    /// Notes up to where a mailbox has been looked through and that those tokens of the account that `announce` names have
    /// something to announce. Both are on disk when this returns, and the notifier knows.
    ///
    /// # Errors
    /// [`StoreError`]: the messages do not count as noticed; look again later. They are pushed all the same, once.
    pub async fn noticed(
        &self,
        account: &AccountId,
        mailbox: &str,
        position: Position,
        announce: impl Into<Announce>,
    ) -> Result<(), StoreError> {
        let (known, announce) = (self.get(account), announce.into());
        let announce = match &known {
            Some(known) => known.left_to_announce(mailbox, position, announce),
            None => announce,
        };
        let written = self
            .commit(change::noticed(account, mailbox, position, announce.clone(), UnixTime::now()))
            .await;
        match (&written, known) {
            (Ok(()), Some(known)) => known.written(mailbox),
            // The process ends: the next one finds the messages.
            (Err(StoreError::Closed), _) | (_, None) => {}
            (Err(_), Some(known)) => {
                self.0.accounts.push_unwritten(&known, mailbox, position, &announce)
            }
        }
        written
    }

    /// Every token of the account is posted, so that one of its devices comes back.
    ///
    /// # Errors
    /// [`StoreError`]: none is.
    pub async fn call(&self, account: &Account) -> Result<(), StoreError> {
        let now = UnixTime::now();
        self.commit(change::call(&account.id, now)).await?;
        account.called(now);
        Ok(())
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

    /// A POST of the token for `generation` was accepted.
    ///
    /// # Errors
    /// [`StoreError`]: it is posted once more after a restart.
    pub async fn announced(
        &self,
        token: &DeviceToken,
        generation: Generation,
    ) -> Result<(), StoreError> {
        self.owners(token).iter().for_each(|account| account.accepted(token));
        self.commit(change::announced(token, generation, UnixTime::now())).await
    }

    /// The notification server says, for the `answers`th time, that the token is gone. It is not posted for the time of `wait`, or
    /// removed from every account if that has gone on for long enough. Returns whether it was removed.
    ///
    /// # Errors
    /// [`StoreError`]: the next POST will find out again.
    pub async fn quarantined(
        &self,
        token: &DeviceToken,
        answers: u32,
        wait: Duration,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        self.commit(change::quarantined(token, answers, now.wall.after(wait), now)).await
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

    /// Removes tokens that no client has handed over, and forgets mailboxes that no client has idled in, for `max_age` of
    /// deltapush's running time. Returns how many tokens.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been removed.
    pub async fn expire(&self, max_age: Duration) -> Result<usize, StoreError> {
        let now = self.0.clock.now();
        self.commit(change::served(now, now.before(max_age))).await
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
                *count = count.saturating_add(1);
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

    /// Reports if the state can be written, as far as is known: if the last change went to disk.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.0.store.is_failing()
    }

    /// Waits until the state can be written, as far as is known.
    pub async fn until_writable(&self) {
        self.0.store.until_writable().await;
    }

    /// Finds out whether the state can be written, by writing for how long deltapush has served.
    pub async fn try_writing(&self) -> bool {
        self.commit(change::served(self.0.clock.now(), Uptime::default())).await.is_ok()
    }

    /// The store underneath.
    #[cfg(test)]
    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// Writes what is queued and closes the state.
    pub async fn close(&self) {
        let served = change::served(self.0.clock.now(), Uptime::default());
        if let Err(error) = self.commit(served).await {
            tracing::debug!("cannot store the running time since it was last stored: {error}");
        }
        self.0.store.close().await;
    }
}

#[cfg(test)]
mod tests;
