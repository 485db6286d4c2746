//! What must survive a restart: accounts with their sealed credentials, tokens with what they still have to announce, and
//! mailbox positions.
//!
//! Callers see these, not SQL. Underneath is one SQLite file that one thread owns (`worker`): whatever is queued when
//! it comes round goes to disk in one transaction, so that an fsync is paid once per batch and not once per message.
//! What a batch changed is handed, in the order of the commits, to the function given to [`Store::open`]: whoever keeps a
//! copy in memory (the registry) is neither ahead of the disk nor out of order, even if the caller has gone meanwhile.

mod directory;
mod error;
mod key;
mod operations;
mod schema;
mod seal;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use error::{OpenError, StoreError};

use crate::account::AccountId;
use crate::secret::{Credentials, DeviceToken};
use operations::Operation;
use seal::Sealer;
use worker::Worker;

/// How many tokens an account may have. With one more, the one not seen for longest goes.
pub const MAX_TOKENS: usize = 32;

/// Where the state is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the state file, made with mode 0700 if it is not there.
    pub directory: PathBuf,
    /// The file with the key that seals credentials; `seal.key` in the folder above if not given. Made if it is not there.
    pub key_file: Option<PathBuf>,
}

/// Seconds since 1970 in UTC, from the wall clock: for what is compared across restarts only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The wall clock's time.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// How long before `now` this was; zero if it lies ahead of `now`, because the clock was set back meanwhile.
    #[must_use]
    pub fn age(self, now: Self) -> Duration {
        Duration::from_secs(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or_default())
    }
}

/// Numbers the moments at which something became worth announcing, upwards over all accounts: whatever a token had to
/// announce up to a generation is announced by one POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Up to where a mailbox has been looked through (RFC 9051 section 2.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// `UIDVALIDITY`: with another value, UIDs noted before mean nothing.
    pub uid_validity: u32,
    /// The lowest UID that has not been looked at yet.
    pub uid_next: u32,
}

/// A token of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The token itself.
    pub token: DeviceToken,
    /// When the account's client last handed it over.
    pub last_seen: UnixTime,
}

/// An account as it was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// Whose account.
    pub account: AccountId,
    /// What its watcher logs in with. None if they could not be unsealed: then its client must log in once.
    pub credentials: Option<Arc<Credentials>>,
    /// Its tokens, at least one.
    pub tokens: Vec<Seen>,
}

/// What a token still had to announce when the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unannounced {
    /// The token to be posted.
    pub token: DeviceToken,
    /// Up to which generation that POST announces.
    pub generation: Generation,
    /// When the newest of it was noticed.
    pub since: UnixTime,
}

/// All that was found at the start, except for mailbox positions ([`Store::positions`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The accounts.
    pub accounts: Vec<AccountRecord>,
    /// The tokens with something to announce, the longest waiting first.
    pub unannounced: Vec<Unannounced>,
}

/// What has just been committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The account's tokens are now these. With none left it has been erased.
    Tokens {
        /// Whose tokens.
        account: AccountId,
        /// The credentials that came with the change.
        credentials: Option<Arc<Credentials>>,
        /// All its tokens.
        tokens: Vec<Seen>,
    },
    /// The account is logged in to with these from now on.
    Credentials {
        /// Whose credentials.
        account: AccountId,
        /// The new ones.
        credentials: Arc<Credentials>,
    },
    /// These tokens have something to announce.
    Pending {
        /// The tokens of the account that has news.
        tokens: Vec<DeviceToken>,
        /// Up to which generation.
        generation: Generation,
    },
    /// No account has this token any more.
    Gone {
        /// The token.
        token: DeviceToken,
    },
}

/// The state. Clones are handles of the same one.
#[derive(Clone)]
pub struct Store {
    worker: Arc<Worker>,
    sealer: Arc<Sealer>,
}

impl Store {
    /// Opens the state, making what is missing, and reads all of it. `changed` is called on the store's own thread after
    /// each commit, before the caller of the method that made the change gets its answer; it must not block.
    ///
    /// Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`OpenError`], always before anything has been changed: the folder is in use or cannot be used, the state is damaged
    /// or a newer version's, the key is missing or the wrong one.
    pub fn open(settings: &Settings, changed: impl Fn(Change) + Send + 'static) -> Result<(Self, Loaded), OpenError> {
        let lock = directory::claim(&settings.directory)?;
        let connection = schema::open(&settings.directory)?;
        let key_file = settings.key_file.clone().unwrap_or_else(|| settings.directory.join("seal.key"));
        let sealer = Arc::new(key::sealer(&connection, &key_file)?);
        let loaded = operations::load(&connection, &sealer)?;
        let worker = Worker::start(connection, lock, Box::new(changed))?;
        Ok((Self { worker: Arc::new(worker), sealer }, loaded))
    }

    /// Takes a token of an account over, with the credentials of the session that handed it over. Both may be known.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn register(
        &self,
        account: &AccountId,
        credentials: Arc<Credentials>,
        token: &DeviceToken,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let sealed = self.sealer.seal(account, &credentials)?;
        let (account, token) = (account.clone(), token.clone());
        self.run(move |state| state.register(&account, credentials, &sealed, &token, now)).await
    }

    /// Removes one token of an account, which erases the account if it was the last one.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn remove_token(&self, account: &AccountId, token: &DeviceToken) -> Result<(), StoreError> {
        let (account, token) = (account.clone(), token.clone());
        self.run(move |state| state.remove_token(&account, &token)).await
    }

    /// Removes an account with its tokens, credentials and positions.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn remove_account(&self, account: &AccountId) -> Result<(), StoreError> {
        let account = account.clone();
        self.run(move |state| state.remove_account(&account)).await
    }

    /// Removes a token from every account, because the notification server says that it is gone.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn forget_token(&self, token: &DeviceToken) -> Result<(), StoreError> {
        let token = token.clone();
        self.run(move |state| state.forget_token(&token)).await
    }

    /// Removes every token last seen before `limit`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn expire_tokens(&self, limit: UnixTime) -> Result<usize, StoreError> {
        self.run(move |state| state.expire_tokens(limit)).await
    }

    /// Replaces the credentials of an account. Does nothing for an account that is not known.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn credentials_changed(
        &self,
        account: &AccountId,
        credentials: Arc<Credentials>,
    ) -> Result<(), StoreError> {
        let sealed = self.sealer.seal(account, &credentials)?;
        let account = account.clone();
        self.run(move |state| state.credentials_changed(&account, credentials, &sealed)).await
    }

    /// Notes up to where a mailbox has been looked through and, if what was found deserves it (`announce`), that all tokens
    /// of the account have something to announce: both or neither. Does nothing for an account that is not known.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then, and the caller must not count the messages as noticed.
    pub async fn noticed(
        &self,
        account: &AccountId,
        mailbox: &str,
        position: Position,
        announce: bool,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (account, mailbox) = (account.clone(), mailbox.to_owned());
        self.run(move |state| state.noticed(&account, &mailbox, position, announce, now)).await
    }

    /// The noted positions of an account's mailboxes, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn positions(&self, account: &AccountId) -> Result<Vec<(String, Position)>, StoreError> {
        let account = account.clone();
        self.run(move |state| state.positions(&account)).await
    }

    /// A POST of the token that was made for `generation` has been accepted: unless something newer came meanwhile, the
    /// token has nothing more to announce.
    ///
    /// # Errors
    /// [`StoreError`]; the token is posted once more after a restart then.
    pub async fn announced(
        &self,
        token: &DeviceToken,
        generation: Generation,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let token = token.clone();
        self.run(move |state| state.announced(&token, generation, now)).await
    }

    /// What the token had to announce up to `generation` has been given up for a reason, which is kept.
    ///
    /// # Errors
    /// [`StoreError`]; the token is posted once more after a restart then.
    pub async fn gave_up(
        &self,
        token: &DeviceToken,
        generation: Generation,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (token, reason) = (token.clone(), reason.to_owned());
        self.run(move |state| state.gave_up(&token, generation, &reason, now)).await
    }

    /// Writes what is queued, closes the state and lets go of the folder. Every later call, from any handle, is answered
    /// with [`StoreError::Closed`].
    pub async fn close(&self) {
        self.worker.close().await;
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Operation<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.worker.run(operation).await
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
