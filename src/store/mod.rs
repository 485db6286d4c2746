//! The state that survives a restart: accounts with their sealed credentials, tokens with their pending pushes, and
//! mailbox positions.
//!
//! Callers see these, not SQL. Underneath is one SQLite file that one thread owns (`worker`): whatever is queued when
//! it comes round goes to disk in one transaction, so that an fsync is paid once per batch and not once per message.
//! What a batch changed is handed, in the order of the commits, to the function given to [`Store::open`]: whoever keeps a
//! copy in memory (the registry) is neither ahead of the disk nor out of order, even if the caller has gone meanwhile.

mod backup;
mod check;
mod directory;
mod error;
#[cfg(test)]
pub(crate) mod full_disk;
mod habit;
mod key;
mod known_logins;
mod load;
mod mailboxes;
mod operations;
mod quarantine;
mod records;
mod rotate;
mod schema;
mod seal;
mod settings;
mod status;
mod worker;
mod write_failures;

use std::fmt;
use std::sync::Arc;

pub use backup::backup;
pub use check::{KeyReport, StateReport, check};
pub(crate) use directory::put_new;
pub use error::{OpenError, StoreError};
pub use habit::{FetchHabit, FetchLesson, Fetches};
pub use records::{
    AccountRecord, AccountStatus, Announce, Change, DualTime, Erased, Generation, Idled,
    KnownLogin, Loaded, MAX_ERASED, MAX_IDLED, MAX_TOKENS, Position, QuarantineRecord, StoredToken,
    TokenRecord, TokenStatus, Unannounced, UnixTime, Uptime,
};
pub use rotate::{Rotated, rotate};
pub use settings::{CredentialStorage, KeySource, StoreSettings};

use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::secret::DeviceToken;
use operations::Operation;
use rusqlite::TransactionBehavior;
use seal::Sealer;
use worker::Worker;

/// The state. Clones are handles of the same one.
#[derive(Clone)]
pub struct Store {
    worker: Arc<Worker>,
    /// None if credentials are in memory only.
    sealer: Option<Arc<Sealer>>,
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
    pub fn open(
        settings: &StoreSettings,
        changed: impl Fn(Change) + Send + 'static,
    ) -> Result<(Self, Loaded), OpenError> {
        let lock = directory::claim(&settings.directory)?;
        let mut connection = schema::connect(&settings.directory)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&transaction)?;
        let sealer = match &settings.credentials {
            CredentialStorage::Sealed(source) => Some(key::sealer(&transaction, source)?),
            CredentialStorage::Memory | CredentialStorage::None => None,
        };
        let erased = sealer.is_none() && load::erase_credentials(&transaction)?;
        let login_key = Some(known_logins::key(&transaction)?);
        let loaded = load::load(
            &transaction,
            sealer.as_ref(),
            settings.keeps_sessions(),
            login_key,
            UnixTime::now(),
        )?;
        transaction.commit()?;
        if erased {
            schema::truncate_journal(&connection)?;
            tracing::info!(
                "deltapush erased the sealed credentials in the state: storage.credentials allows none on disk"
            );
        }
        let newest = loaded.unannounced.iter().map(|found| found.generation).max();
        let worker =
            Worker::start(connection, lock, newest.unwrap_or_default(), Box::new(changed))?;
        Ok((Self { worker: Arc::new(worker), sealer: sealer.map(Arc::new) }, loaded))
    }

    /// Takes a token of an account over, with the credentials of the session that handed it over, if any are kept. Both may be
    /// known.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn register(
        &self,
        account: &AccountId,
        credentials: impl Into<Option<Arc<Credentials>>>,
        token: &DeviceToken,
        now: DualTime,
    ) -> Result<(), StoreError> {
        let credentials = credentials.into();
        let sealed = credentials
            .as_ref()
            .map_or(Ok(Vec::new()), |credentials| self.seal(account, credentials))?;
        let (account, token) = (account.clone(), token.clone());
        self.run(move |state| state.register(&account, credentials, &sealed, &token, now)).await
    }

    /// Removes one token of an account, which erases the account if it was the last one.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn remove_token(
        &self,
        account: &AccountId,
        token: &DeviceToken,
    ) -> Result<(), StoreError> {
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

    /// The notification server says, for the `answers`th time, that the token is gone: it is not posted before `until`, or
    /// removed from every account if that has gone on for long enough. Returns whether it was removed.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn quarantined(
        &self,
        token: &DeviceToken,
        answers: u32,
        until: UnixTime,
        now: DualTime,
    ) -> Result<bool, StoreError> {
        let token = token.clone();
        self.run(move |state| state.quarantined(&token, answers, until, now)).await
    }

    /// The accounts that deltapush erased by itself lately, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn erased(&self, now: UnixTime) -> Result<Vec<Erased>, StoreError> {
        self.run(move |state| state.erased(now)).await
    }

    /// Notes for how long deltapush has served with this state, and removes every token and every mailbox idled in that was
    /// last seen before `limit`. Returns how many tokens.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn served(&self, now: Uptime, limit: Uptime) -> Result<usize, StoreError> {
        self.run(move |state| state.served(now, limit)).await
    }

    /// Notes that a client of the account waits for mail in a mailbox. Does nothing for an account that is not known.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn client_idles(
        &self,
        account: &AccountId,
        mailbox: &str,
        now: Uptime,
    ) -> Result<(), StoreError> {
        let (account, mailbox) = (account.clone(), mailbox.to_owned());
        self.run(move |state| state.client_idles(&account, &mailbox, now)).await
    }

    /// Notes what the app of the device with this token did with unencrypted messages of the account. Does nothing for a token
    /// that the account does not have.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn learned(
        &self,
        account: &AccountId,
        token: &DeviceToken,
        lesson: FetchLesson,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (account, token) = (account.clone(), token.clone());
        self.run(move |state| state.learned(&account, &token, &lesson, now)).await
    }

    /// All accounts as a person is shown them, by name. Nothing is said to be refused: that is not on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status(&self) -> Result<Vec<AccountStatus>, StoreError> {
        self.run(|state| state.status()).await
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
        let sealed = self.seal(account, &credentials)?;
        let account = account.clone();
        self.run(move |state| state.credentials_changed(&account, credentials, &sealed)).await
    }

    /// Notes up to where a mailbox has been looked through and, if what was found deserves it, that the tokens of the account
    /// that `announce` names have something to announce: both or neither. Does nothing for an account that is not known.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then, and the caller must not count the messages as noticed.
    pub async fn noticed(
        &self,
        account: &AccountId,
        mailbox: &str,
        position: Position,
        announce: impl Into<Announce>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (account, mailbox, announce) = (account.clone(), mailbox.to_owned(), announce.into());
        self.run(move |state| state.noticed(&account, &mailbox, position, &announce, now)).await
    }

    /// Notes that every token of the account is to be posted, so that a device comes back, and that this was so now. Does
    /// nothing for an account that is not known.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn call(&self, account: &AccountId, now: UnixTime) -> Result<(), StoreError> {
        let account = account.clone();
        self.run(move |state| state.call(&account, now)).await
    }

    /// Forgets that clients of the account wait in `mailbox`, if none has since `limit`. Returns whether it was remembered.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn forget_idled(
        &self,
        account: &AccountId,
        mailbox: &str,
        limit: Uptime,
    ) -> Result<bool, StoreError> {
        let (account, mailbox) = (account.clone(), mailbox.to_owned());
        self.run(move |state| state.forget_idled(&account, &mailbox, limit)).await
    }

    /// The noted positions of an account's mailboxes, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn positions(
        &self,
        account: &AccountId,
    ) -> Result<Vec<(String, Position)>, StoreError> {
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

    /// Takes in what the guard of logins recognizes after a restart, and what it does not any more.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn know_logins(
        &self,
        used: Vec<KnownLogin>,
        forgotten: Vec<[u8; 16]>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.run(move |state| state.know_logins(&used, &forgotten, now)).await
    }

    /// Whether the last change could not be written.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.worker.is_failing()
    }

    /// Waits until a change was written after one that could not be.
    pub async fn until_writable(&self) {
        self.worker.until_writable().await;
    }

    /// Writes what is queued, closes the state and lets go of the folder. Every later call, from any handle, is answered
    /// with [`StoreError::Closed`].
    pub async fn close(&self) {
        self.worker.close().await;
    }

    /// What goes to the disk of credentials: nothing, if they are to be in memory only.
    fn seal(&self, account: &AccountId, credentials: &Credentials) -> Result<Vec<u8>, StoreError> {
        self.sealer.as_ref().map_or(Ok(Vec::new()), |sealer| Ok(sealer.seal(account, credentials)?))
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
