//! The registry of accounts, their tokens and credentials: a copy in memory in front of the store.
//!
//! Memory follows the disk: each change is made in the store, and what the store has committed is applied here, on its
//! thread and in its order. A caller that is dropped while it waits leaves nothing half done.

mod accounts;
mod newcomers;
mod unwritten;
mod upkeep;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::latest::{self, Merge};
use super::schedule::TokenState;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::secret::{DeviceToken, Secret};
use crate::store::{
    AccountStatus, Announce, DualTime, Erased, FetchLesson, Generation, KnownLogin, OpenError,
    Position, Store, StoreError, StoreSettings, UnixTime, Uptime,
};
use accounts::{AccountTable, LoginComparison};
use newcomers::Newcomers;
pub use newcomers::{AccountLimits, AccountOrigin, AccountsFull};
pub use upkeep::{MAX_AGE, upkeep};

/// The mailbox that every account has.
pub(super) const INBOX: &str = "INBOX";

/// A mailbox that cannot be opened is forgotten if no client has waited in it for so long.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A longer name of a mailbox is not remembered.
const MAX_MAILBOX: usize = 1024;

/// What is noted again within this time is not written again: a phone that reconnects all the time costs no disk.
const RECENTLY: Duration = Duration::from_secs(3600);

/// What whoever watches accounts must know. If it is busy, only the last word on an account waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountEvent {
    /// The account is to be watched, with its present credentials. Also said of one that is watched already, if it was
    /// removed and came back meanwhile.
    Watch,
    /// The account has no token any more: its watcher ends.
    Unwatch,
    /// The watcher is to log in anew with the present credentials.
    CredentialsChanged,
    /// The watcher is to watch other mailboxes ([`Registry::mailboxes`]). Said only of an account that can be watched.
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

/// What the notifier must know about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It has something to announce.
    Pending {
        /// Up to which generation.
        generation: Generation,
        /// How long ago the newest of it was noticed: more than nothing only after a restart.
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
pub struct Registry {
    store: Store,
    accounts: Arc<AccountTable>,
    clock: UptimeClock,
    keeps_sessions: bool,
    login_memory: Arc<Mutex<LoginMemory>>,
    newcomers: Arc<Mutex<Newcomers>>,
}

/// What the guard of logins knew before the start.
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
        let login_memory = Arc::new(Mutex::new(login_memory));
        let clock = UptimeClock { before: loaded.served, started: Instant::now() };
        accounts.restore(loaded);
        let keeps_sessions = settings.keeps_sessions();
        let newcomers = Arc::default();
        let registry = Self { store, accounts, clock, keeps_sessions, login_memory, newcomers };
        Ok((registry, account_events, token_news))
    }

    /// Whether clients' sessions are kept, and no credentials.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        self.keeps_sessions
    }

    /// From now on there may be so many accounts.
    pub fn limit(&self, limits: AccountLimits) {
        lock(&self.newcomers).limits = limits;
    }

    /// Whether the account may get a token: it is known, or there may be one more. To be asked before
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
        let mut newcomers = lock(&self.newcomers);
        let at_upstream = || self.accounts.at_upstream(&account.upstream);
        if let Err(full) = newcomers.admit(origin, self.accounts.len(), at_upstream, now) {
            if let Some(refused) = newcomers.is_news(now) {
                tracing::warn!(
                    accounts = self.accounts.len(),
                    refused,
                    "new account refused: {full}; see limits.accounts and limits.new_accounts_per_address"
                );
            }
            return Err(full);
        }
        Ok(Some(Admission(Arc::clone(&self.newcomers))))
    }

    /// How many times a new account was refused since the start.
    #[must_use]
    pub fn refused_accounts(&self) -> u64 {
        lock(&self.newcomers).refused
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
        let kept = credentials.into().filter(|_| !self.keeps_sessions);
        let credentials = kept.map(|credentials| self.accounts.lasting(account, credentials));
        if self.accounts.is_current(account, credentials.as_ref(), token, now.wall) {
            return Ok(());
        }
        self.store.register(account, credentials.map(Arc::new), token, now).await
    }

    /// Removes one token of an account. With the last one goes the account: its watch ends, its credentials are erased.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been removed.
    pub async fn remove(&self, account: &AccountId, token: &DeviceToken) -> Result<(), StoreError> {
        self.store.remove_token(account, token).await
    }

    /// Removes all tokens of an account, and so the account.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been removed.
    pub async fn remove_all(&self, account: &AccountId) -> Result<(), StoreError> {
        self.store.remove_account(account).await
    }

    /// The account's tokens, the first one registered first.
    #[must_use]
    pub fn tokens(&self, account: &AccountId) -> Vec<DeviceToken> {
        self.accounts.tokens(account)
    }

    /// The accounts that have this token: a device may use one for all of its accounts.
    #[must_use]
    pub fn owners(&self, token: &DeviceToken) -> Vec<AccountId> {
        self.accounts.owners(token)
    }

    /// Whether the account was there before this process: a mailbox of it that was never looked through has waited for a while.
    #[must_use]
    pub fn is_from_before(&self, account: &AccountId) -> bool {
        self.accounts.is_from_before(account)
    }

    /// Whether the account has a token.
    #[must_use]
    pub fn is_known(&self, account: &AccountId) -> bool {
        self.accounts.is_known(account)
    }

    /// What a watcher of the account logs in with. None if the account is not known, its client must log in first, or its
    /// client logs in with what cannot be used again.
    #[must_use]
    pub fn credentials(&self, account: &AccountId) -> Option<Arc<Credentials>> {
        self.accounts.credentials(account)
    }

    /// How many accounts have a token.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether no account has a token.
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
        if self.keeps_sessions {
            return Ok(());
        }
        let credentials = self.accounts.lasting(account, credentials);
        match self.accounts.compare(account, &credentials) {
            LoginComparison::Same => Ok(()),
            LoginComparison::Changed => {
                self.store.credentials_changed(account, Arc::new(credentials)).await
            }
        }
    }

    /// The watcher's login was refused: nothing more is tried until a client logs in. Not on disk: after a restart the
    /// credentials are tried once.
    pub fn login_refused(&self, account: &AccountId) {
        self.accounts.refused(account);
    }

    /// The watch of the account begins anew now, also one that ended because its login was refused: its present credentials are
    /// tried once more. Returns whether there are any; without them there is nothing to begin with.
    #[must_use]
    pub fn rewatch(&self, account: &AccountId) -> bool {
        self.accounts.rewatch(account)
    }

    /// All accounts that have a token, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountId> {
        self.accounts.all()
    }

    /// How many accounts cannot be watched because their credentials are not there: they wait for a device to log in.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.accounts.waiting()
    }

    /// Whether it is to be noted that a client of the account waits for mail in `mailbox`: the account is known, and that has
    /// not been noted within the last hour. Costs no disk.
    #[must_use]
    pub fn must_note_idle(&self, account: &AccountId, mailbox: &str) -> bool {
        let since = self.clock.now().before(RECENTLY);
        mailbox.len() <= MAX_MAILBOX
            && self.accounts.must_note_idle(account, canonical(mailbox), since)
    }

    /// Notes that a client of the account waits for mail in `mailbox`, its name as it stood on the wire.
    ///
    /// # Errors
    /// [`StoreError`]: it is not noted; the next time will do.
    pub async fn client_idles(&self, account: &AccountId, mailbox: &str) -> Result<(), StoreError> {
        self.store.client_idles(account, canonical(mailbox), self.clock.now()).await
    }

    /// Whether it is worth writing down what the app of this device did with unencrypted messages of the account. Costs no disk.
    #[must_use]
    pub fn must_note_lesson(
        &self,
        account: &AccountId,
        token: &DeviceToken,
        lesson: &FetchLesson,
    ) -> bool {
        self.accounts.must_note_lesson(account, token, lesson, UnixTime::now())
    }

    /// Notes what the app of this device did with unencrypted messages of the account.
    ///
    /// # Errors
    /// [`StoreError`]: it is not noted; the next message will do.
    pub async fn learned(
        &self,
        account: &AccountId,
        token: &DeviceToken,
        lesson: FetchLesson,
    ) -> Result<(), StoreError> {
        self.store.learned(account, token, lesson, UnixTime::now()).await
    }

    /// Whether the apps of all the account's devices are known to fetch encrypted messages only.
    #[must_use]
    pub fn fetches_encrypted_only(&self, account: &AccountId) -> bool {
        self.accounts.fetches_encrypted_only(account)
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
        let limit = self.clock.now().before(UNUSED);
        self.store.forget_idled(account, canonical(mailbox), limit).await
    }

    /// The mailboxes that the account's clients wait for mail in, the latest first, [`MAX_IDLED`](crate::store::MAX_IDLED) at
    /// most: those in which one idled within [`MAX_AGE`], and `INBOX` if none is known.
    #[must_use]
    pub fn mailboxes(&self, account: &AccountId) -> Vec<String> {
        self.accounts.mailboxes(account)
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
        let mailbox = canonical(mailbox);
        let announce = self.accounts.unwritten.left(account, mailbox, position, announce.into());
        let written =
            self.store.noticed(account, mailbox, position, announce.clone(), UnixTime::now()).await;
        match &written {
            Ok(()) => self.accounts.unwritten.written(account, mailbox),
            // The process ends: the next one finds the messages.
            Err(StoreError::Closed) => {}
            Err(_) => self.accounts.push_unwritten(account, mailbox, position, &announce),
        }
        written
    }

    /// Every token of the account is posted, so that one of its devices comes back.
    ///
    /// # Errors
    /// [`StoreError`]: none is.
    pub async fn call(&self, account: &AccountId) -> Result<(), StoreError> {
        let now = UnixTime::now();
        self.store.call(account, now).await?;
        self.accounts.called(account, now);
        Ok(())
    }

    /// How long ago the account's devices were last called back.
    #[must_use]
    pub fn since_call(&self, account: &AccountId) -> Option<Duration> {
        self.accounts.since_call(account, UnixTime::now())
    }

    /// The positions noted for the account's mailboxes, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn positions(
        &self,
        account: &AccountId,
    ) -> Result<Vec<(String, Position)>, StoreError> {
        self.store.positions(account).await
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
        self.accounts.unwritten.accepted(&self.owners(token), token);
        self.store.announced(token, generation, UnixTime::now()).await
    }

    /// What the token had to announce up to `generation` was given up.
    ///
    /// # Errors
    /// [`StoreError`]: it is posted once more after a restart.
    pub async fn gave_up(
        &self,
        token: &DeviceToken,
        generation: Generation,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.store.gave_up(token, generation, reason, UnixTime::now()).await
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
        self.store.quarantined(token, answers, now.wall.after(wait), now).await
    }

    /// How many tokens are in quarantine.
    #[must_use]
    pub fn quarantined_tokens(&self) -> usize {
        self.accounts.quarantined_tokens()
    }

    /// What the schedule must know of a token. None if no account has it.
    #[must_use]
    pub fn standing(&self, token: &DeviceToken) -> Option<TokenState> {
        self.accounts.standing(token, UnixTime::now())
    }

    /// The accounts that deltapush erased by itself lately, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn erased(&self) -> Result<Vec<Erased>, StoreError> {
        self.store.erased(UnixTime::now()).await
    }

    fn now(&self) -> DualTime {
        DualTime { wall: UnixTime::now(), served: self.clock.now() }
    }

    /// Removes tokens that no client has handed over, and forgets mailboxes that no client has idled in, for `max_age` of
    /// deltapush's running time. Returns how many tokens.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been removed.
    pub async fn expire(&self, max_age: Duration) -> Result<usize, StoreError> {
        let now = self.clock.now();
        self.store.served(now, now.before(max_age)).await
    }

    /// Hands over what the guard of logins knew before the start: once.
    #[must_use]
    pub fn take_login_memory(&self) -> LoginMemory {
        std::mem::take(&mut *self.login_memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what the guard of logins recognizes after a restart.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has changed.
    pub async fn know_logins(
        &self,
        used: Vec<KnownLogin>,
        forgotten: Vec<[u8; 16]>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.store.know_logins(used, forgotten, now).await
    }

    /// All accounts as a person is shown them, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(&self) -> Result<Vec<AccountStatus>, StoreError> {
        let mut accounts = self.store.status().await?;
        accounts.iter_mut().for_each(|status| self.accounts.complete(status));
        Ok(accounts)
    }

    /// Whether the state can be written, as far as is known: whether the last change went to disk.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.store.is_failing()
    }

    /// Waits until the state can be written, as far as is known.
    pub async fn until_writable(&self) {
        self.store.until_writable().await;
    }

    /// Finds out whether the state can be written, by writing for how long deltapush has served.
    pub async fn try_writing(&self) -> bool {
        self.store.served(self.clock.now(), Uptime::default()).await.is_ok()
    }

    /// The store underneath.
    #[cfg(test)]
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Writes what is queued and closes the state.
    pub async fn close(&self) {
        if let Err(error) = self.store.served(self.clock.now(), Uptime::default()).await {
            tracing::debug!("cannot store the running time since it was last stored: {error}");
        }
        self.store.close().await;
    }
}

/// The name of a mailbox as it is compared: `INBOX` in any case is one (RFC 9051 section 5.1).
fn canonical(mailbox: &str) -> &str {
    if mailbox.eq_ignore_ascii_case(INBOX) { INBOX } else { mailbox }
}

#[cfg(test)]
mod tests;
