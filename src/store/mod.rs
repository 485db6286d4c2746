//! The state that survives a restart: accounts with their sealed credentials, tokens with their pending pushes, and
//! mailbox positions.
//!
//! Callers see these, not SQL. Underneath is one SQLite file that one thread owns (`worker`): all queued changes are
//! written in one transaction, so that an fsync is paid once per batch and not once per message. The changes of a batch are
//! passed, in the order of the commits, to the function given to [`Store::open`]: a copy in memory (the registry) is
//! neither ahead of the disk nor out of order, even if the caller has gone meanwhile.

mod backup;
mod check;
mod directory;
mod error;
mod expiry;
#[cfg(test)]
pub(crate) mod full_disk;
mod habit;
mod key;
mod known_logins;
pub(crate) mod lease_rows;
mod lessons;
mod load;
mod mailboxes;
mod mark;
mod moving;
mod node_facts;
mod operations;
mod pgpass;
mod postgres;
mod postgres_connector;
mod postgres_settings;
mod quarantine;
mod records;
mod rotate;
mod schema;
mod seal;
mod server_facts;
mod server_news;
mod settings;
mod shared;
mod sql;
mod sqlite;
mod status;
mod worker;
mod write_failures;

use std::fmt;
use std::sync::Arc;

pub use backup::backup;
pub use check::{KeyReport, StateReport, check};
pub(crate) use directory::put_new;
pub use error::{OpenError, StoreError};
pub use expiry::Expired;
pub use habit::{FetchHabit, FetchLesson, Fetches};
pub use lease_rows::{EndedNode, NodeId, NodeStatus};
pub use mailboxes::Noticed;
pub use mark::Place;
pub use moving::{CertificateFiles, MoveReport, move_state, undo_move};
pub use node_facts::{NodeCounts, NodeFacts};
#[cfg(test)]
pub(crate) use postgres::testing as postgres_testing;
pub use postgres::{
    EventLog, ForwardOutcome, ForwardedFact, FoundAccounts, StoredEvent, TokenPost, check_shared,
};
pub use postgres_connector::{ConnectError, Connected, PostgresConnector, Reason, ServerError};
pub use postgres_settings::{PasswordError, PasswordSource, PostgresSettings};
pub use records::{
    AccountRecord, AccountStatus, Announce, Change, DualTime, Erased, Generation, Idled,
    KnownLogin, Loaded, Look, MAX_ERASED, MAX_IDLED, MAX_TOKENS, Position, QuarantineRecord,
    StoredToken, TokenRecord, TokenStatus, Unannounced, UnixTime, Uptime,
};
pub use rotate::{Rotated, rotate};
pub use server_facts::StoredFact;
pub use server_news::ToldMessage;
pub use settings::{CredentialStorage, KeySource, StoreSettings};
pub use shared::SharedValue;

use crate::account::AccountId;
use crate::mailbox_name::MailboxName;
#[cfg(test)]
use operations::Operation;
pub use operations::StateChange;
use rusqlite::TransactionBehavior;
use sql::Sql;
use sqlite::SqliteBackend;
use tokio::sync::watch;
use worker::Worker;

/// All kinds of changes: each is a function that returns a [`StateChange`] for [`Store::commit`].
pub mod change {
    pub use super::expiry::{expire, served};
    pub use super::known_logins::know_logins;
    pub use super::lessons::learned;
    pub use super::mailboxes::{call, call_again, client_idles, forget_idled, noticed};
    pub use super::operations::{
        announced, credentials_changed, gave_up, proved, register, remove_account, remove_token,
    };
    pub use super::postgres::{forward, taken_in, tell};
    pub use super::quarantine::quarantined;
    pub use super::server_facts::share_server_facts;
    pub use super::server_news::{told, watched};
}

/// The state. Clones are handles of the same one.
#[derive(Clone)]
pub struct Store {
    worker: Arc<Worker>,
    /// None for a state file.
    shared: Option<Arc<postgres::Shared>>,
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
        if settings.postgres.is_some() {
            return Err(OpenError::Postgres);
        }
        let lock = directory::claim(&settings.directory)?;
        let mut connection = schema::connect(&settings.directory)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&transaction)?;
        let sql = Sql::Sqlite(&transaction);
        mark::refuse(sql, Place::File)?;
        let sealer = match &settings.credentials {
            CredentialStorage::Sealed(source) => Some(key::sealer(sql, source)?),
            CredentialStorage::Memory | CredentialStorage::None => None,
        };
        let erased = sealer.is_none() && load::erase_credentials(sql)?;
        let login_key = Some(known_logins::key(sql)?);
        let loaded = load::load(
            sql,
            sealer.as_ref(),
            settings.keeps_sessions(),
            login_key,
            UnixTime::now(),
        )?;
        transaction.commit()?;
        schema::release_memory(&connection)?;
        if erased {
            schema::truncate_journal(&connection)?;
            tracing::info!(
                "deltapush erased the sealed credentials in the state: storage.credentials allows none on disk"
            );
        }
        let newest = loaded.unannounced.iter().map(|found| found.generation).max();
        let backend = SqliteBackend::new(connection, sealer, lock, newest.unwrap_or_default());
        let worker = Worker::start(backend, watch::Sender::new(false), Box::new(changed))?;
        Ok((Self { worker: Arc::new(worker), shared: None }, loaded))
    }

    /// Makes a change of the state. When this returns it is on disk, and the copy in memory has it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn commit<T: Send + 'static>(
        &self,
        change: impl StateChange<T>,
    ) -> Result<T, StoreError> {
        self.worker.run(change).await
    }

    /// The accounts that deltapush erased by itself lately, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn erased(&self, now: UnixTime) -> Result<Vec<Erased>, StoreError> {
        self.read(move |state| state.erased(now)).await
    }

    /// All accounts as a person is shown them, by name. Nothing is said to be refused: that is not on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status(&self) -> Result<Vec<AccountStatus>, StoreError> {
        self.read(|state| state.status()).await
    }

    /// The noted positions of an account's mailboxes, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn positions(
        &self,
        account: &AccountId,
    ) -> Result<Vec<(MailboxName, Position)>, StoreError> {
        let account = account.clone();
        self.read(move |state| state.positions(&account)).await
    }

    async fn read<T: Send + 'static>(&self, read: impl StateChange<T>) -> Result<T, StoreError> {
        match &self.shared {
            Some(shared) => shared.read(read).await,
            None => self.commit(read).await,
        }
    }

    /// Reports if the last change could not be written.
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
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
