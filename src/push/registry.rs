//! Who has a token: accounts, their tokens and credentials, in memory in front of the store.
//!
//! Memory follows the disk: each change is made in the store, and what the store has committed is applied here, on its
//! thread and in its order. A caller that is dropped while it waits leaves nothing half done.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::latest::{self, Merge};
use crate::account::AccountId;
use crate::secret::{Credentials, DeviceToken};
use crate::store::{
    AccountRecord, Change, Generation, OpenError, Position, Seen, Settings, Store, StoreError, Unannounced, UnixTime,
};

/// A token that its client hands over again within this time is not written again: a phone that reconnects all the time
/// costs no disk.
const SEEN_RECENTLY: Duration = Duration::from_secs(3600);

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
}

impl Merge for AccountEvent {
    fn merge(self, newer: Self) -> Self {
        match (self, newer) {
            (Self::Watch, Self::CredentialsChanged) => Self::Watch,
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
        newer
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
    accounts: Arc<Accounts>,
}

/// The copy in memory.
#[derive(Debug)]
struct Accounts {
    map: DashMap<AccountId, Account>,
    events: latest::Sender<AccountId, AccountEvent>,
    news: latest::Sender<DeviceToken, News>,
}

#[derive(Debug)]
struct Account {
    /// None if they could not be unsealed: a login of the client brings them.
    credentials: Option<Arc<Credentials>>,
    tokens: Vec<Seen>,
    /// The server refused these credentials: the next login that succeeds starts the watch again, even with the same ones.
    refused: bool,
}

impl Registry {
    /// Opens the state. What was found in it waits in the two receivers: a `Watch` for each account that can be watched, and
    /// what is still to be announced. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`OpenError`], the operator's to mend.
    pub fn open(settings: &Settings) -> Result<(Self, AccountEvents, TokenNews), OpenError> {
        let (events, account_events) = latest::channel();
        let (news, token_news) = latest::channel();
        let accounts = Arc::new(Accounts { map: DashMap::new(), events, news });
        let following = Arc::clone(&accounts);
        let (store, loaded) = Store::open(settings, move |change| following.apply(change))?;
        loaded.accounts.into_iter().for_each(|record| accounts.restore(record));
        let now = UnixTime::now();
        loaded.unannounced.into_iter().for_each(|token| accounts.resume(token, now));
        Ok((Self { store, accounts }, account_events, token_news))
    }

    /// Takes a token over that a client has handed over, with the credentials of its session.
    ///
    /// # Errors
    /// [`StoreError`]: the token is not kept, and the client must be told so.
    pub async fn register(
        &self,
        account: &AccountId,
        credentials: &Credentials,
        token: &DeviceToken,
    ) -> Result<(), StoreError> {
        let now = UnixTime::now();
        if self.accounts.is_current(account, credentials, token, now) {
            return Ok(());
        }
        self.store.register(account, Arc::new(credentials.clone()), token, now).await
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
        let found = self.accounts.map.get(account);
        found.map(|account| account.tokens.iter().map(|seen| seen.token.clone()).collect()).unwrap_or_default()
    }

    /// Whether the account has a token.
    #[must_use]
    pub fn is_known(&self, account: &AccountId) -> bool {
        self.accounts.map.contains_key(account)
    }

    /// What a watcher of the account logs in with. None if the account is not known, or its client must log in first.
    #[must_use]
    pub fn credentials(&self, account: &AccountId) -> Option<Arc<Credentials>> {
        self.accounts.map.get(account)?.credentials.clone()
    }

    /// The mailboxes that the account's clients wait in.
    #[must_use]
    pub fn mailboxes(&self, _account: &AccountId) -> Vec<String> {
        vec!["INBOX".to_owned()]
    }

    /// How many accounts have a token.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.map.len()
    }

    /// Whether no account has a token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.map.is_empty()
    }

    /// A client has logged in with these: a known account's changed password is taken over, and a watch that ended because
    /// its login was refused begins again.
    ///
    /// # Errors
    /// [`StoreError`]: the watcher goes on with what it had.
    pub async fn login_succeeded(&self, account: &AccountId, credentials: &Credentials) -> Result<(), StoreError> {
        match self.accounts.compare(account, credentials) {
            Login::Same => Ok(()),
            Login::Changed => self.store.credentials_changed(account, Arc::new(credentials.clone())).await,
        }
    }

    /// The watcher's login was refused: nothing more is tried until a client logs in. Not on disk: after a restart the
    /// credentials are tried once.
    pub fn login_refused(&self, account: &AccountId) {
        if let Some(mut account) = self.accounts.map.get_mut(account) {
            account.refused = true;
        }
    }

    /// Notes up to where a mailbox has been looked through and, with `announce`, that the account's tokens have something
    /// to announce. Both are on disk when this returns, and the notifier knows.
    ///
    /// # Errors
    /// [`StoreError`]: the messages do not count as noticed; look again later.
    pub async fn noticed(
        &self,
        account: &AccountId,
        mailbox: &str,
        position: Position,
        announce: bool,
    ) -> Result<(), StoreError> {
        self.store.noticed(account, mailbox, position, announce, UnixTime::now()).await
    }

    /// The positions noted for the account's mailboxes, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn positions(&self, account: &AccountId) -> Result<Vec<(String, Position)>, StoreError> {
        self.store.positions(account).await
    }

    /// A POST of the token for `generation` was accepted.
    ///
    /// # Errors
    /// [`StoreError`]: it is posted once more after a restart.
    pub async fn announced(&self, token: &DeviceToken, generation: Generation) -> Result<(), StoreError> {
        self.store.announced(token, generation, UnixTime::now()).await
    }

    /// What the token had to announce up to `generation` was given up.
    ///
    /// # Errors
    /// [`StoreError`]: it is posted once more after a restart.
    pub async fn gave_up(&self, token: &DeviceToken, generation: Generation, reason: &str) -> Result<(), StoreError> {
        self.store.gave_up(token, generation, reason, UnixTime::now()).await
    }

    /// The notification server says that the token is gone: no account has it any more.
    ///
    /// # Errors
    /// [`StoreError`]: the next POST will find out again.
    pub async fn forget(&self, token: &DeviceToken) -> Result<(), StoreError> {
        self.store.forget_token(token).await
    }

    /// Removes tokens that no client has handed over for `max_age`, by the wall clock. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been removed.
    pub async fn expire(&self, max_age: Duration) -> Result<usize, StoreError> {
        let seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        self.store.expire_tokens(UnixTime(UnixTime::now().0.saturating_sub(seconds))).await
    }

    /// Writes what is queued and closes the state.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

/// How a login compares with what is known.
enum Login {
    Same,
    Changed,
}

impl Accounts {
    fn restore(&self, record: AccountRecord) {
        let AccountRecord { account, credentials, tokens } = record;
        let watchable = credentials.is_some();
        self.map.insert(account.clone(), Account { credentials, tokens, refused: false });
        if watchable {
            self.events.send(account, AccountEvent::Watch);
        }
    }

    fn resume(&self, found: Unannounced, now: UnixTime) {
        let news = News::Pending { generation: found.generation, age: found.since.age(now) };
        self.news.send(found.token, news);
    }

    /// Runs on the store's thread.
    fn apply(&self, change: Change) {
        match change {
            Change::Tokens { account, tokens, .. } if tokens.is_empty() => {
                if self.map.remove(&account).is_some() {
                    self.events.send(account, AccountEvent::Unwatch);
                }
            }
            Change::Tokens { account, credentials, tokens } => self.apply_tokens(account, credentials, tokens),
            Change::Credentials { account, credentials } => self.apply_credentials(&account, credentials),
            Change::Pending { tokens, generation } => {
                let news = News::Pending { generation, age: Duration::ZERO };
                tokens.into_iter().for_each(|token| self.news.send(token, news));
            }
            Change::Gone { token } => self.news.send(token, News::Gone),
        }
    }

    fn apply_tokens(&self, account: AccountId, credentials: Option<Arc<Credentials>>, tokens: Vec<Seen>) {
        match self.map.entry(account.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Account { credentials, tokens, refused: false });
                self.events.send(account, AccountEvent::Watch);
            }
            Entry::Occupied(mut known) => {
                known.get_mut().tokens = tokens;
                drop(known);
                credentials.into_iter().for_each(|credentials| self.apply_credentials(&account, credentials));
            }
        }
    }

    fn apply_credentials(&self, account: &AccountId, credentials: Arc<Credentials>) {
        let Some(mut known) = self.map.get_mut(account) else { return };
        let same = known.credentials.as_ref() == Some(&credentials);
        if !same || known.refused {
            known.credentials = Some(credentials);
            known.refused = false;
            drop(known);
            self.events.send(account.clone(), AccountEvent::CredentialsChanged);
        }
    }

    fn compare(&self, account: &AccountId, credentials: &Credentials) -> Login {
        let known = self.map.get(account);
        let same = known.is_none_or(|known| !known.refused && known.credentials.as_deref() == Some(credentials));
        if same { Login::Same } else { Login::Changed }
    }

    fn is_current(&self, account: &AccountId, credentials: &Credentials, token: &DeviceToken, now: UnixTime) -> bool {
        let Some(known) = self.map.get(account) else { return false };
        let recent = |seen: &Seen| seen.token == *token && seen.last_seen.age(now) < SEEN_RECENTLY;
        !known.refused && known.credentials.as_deref() == Some(credentials) && known.tokens.iter().any(recent)
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
