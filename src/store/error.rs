//! Errors of the state, at the start and later.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use super::mark::Place;
use super::postgres_connector::explain as explain_answer;
use super::seal::SealError;
use super::sql::{Meaning, SqlError, meaning};
use crate::file_access::explain;

/// Why the state cannot be opened, or a command on it fails. All of these are the operator's to mend, and none has changed
/// anything.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder of the state cannot be made, read or written.
    #[error("the state cannot be used: {}: {}", path.display(), explain(path, source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process works with it.
    #[error("the state in {} is in use by another deltapush; stop that one, or set another storage.directory", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A command is to look at a state that is not there.
    #[error(
        "the folder {} contains no state: deltapush creates it at its first start; check storage.directory", path.display()
    )]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// The configuration names a database.
    #[error(
        "storage.postgres: this deltapush has its state in storage.directory only; remove `postgres`"
    )]
    Postgres,
    /// Written by a version that knows more than this one.
    #[error(
        "the state has schema version {found} and this deltapush knows {known} at most: run the version that wrote it, or a newer one"
    )]
    Newer {
        /// The version in the file.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The database is not there, or refuses the connection.
    #[error("the database of storage.postgres cannot be used: {0}")]
    Unavailable(String),
    /// The database refuses a statement.
    #[error(
        "the database of storage.postgres refuses a statement: {0}; deltapush's user must own the database, or be allowed to create tables in it"
    )]
    Refused(String),
    /// The tables belong to a version that works with none as old as this one.
    #[error(
        "the tables in the database have version {found} and need a deltapush that knows version {needed}; this one knows {known}: install the version that the other nodes run"
    )]
    TooOld {
        /// The version of the tables.
        found: i64,
        /// The version that a node has to know.
        needed: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Nodes still run that cannot work with the tables as this version makes them.
    #[error(
        "nodes of an older version still run ({nodes}) and cannot work with this version's tables: upgrade them to the version before this one first, or stop them"
    )]
    TooNew {
        /// Their names.
        nodes: String,
    },
    /// Another node has made the key that seals credentials.
    #[error(
        "another node seals credentials in this database, and its key is missing at {}: copy the key file of that node to this place (mode 0600, deltapush's user)",
        path.display()
    )]
    SharedKeyMissing {
        /// The path that was tried.
        path: PathBuf,
    },
    /// Another node uses another key.
    #[error(
        "the key in {place} is not the one that the other nodes seal credentials with: copy theirs to this place"
    )]
    SharedKeyWrong {
        /// The place of the wrong key.
        place: String,
    },
    /// A command is to look at tables that are not there.
    #[error(
        "the database of storage.postgres has no tables of deltapush yet: the first node makes them at its start"
    )]
    NoTables,
    /// The database has tools of its own for it.
    #[error(
        "the state is in the database of storage.postgres, which is backed up by its own tools, such as `pg_dump`; keep a copy of the key that seals passwords in another place"
    )]
    BackupByDatabase,
    /// The configuration names no database.
    #[error(
        "storage.postgres is not set: the command needs the database there and the file in storage.directory"
    )]
    NoDatabase,
    /// The database is empty, and the folder has a state.
    #[error(
        "the database of storage.postgres has no accounts, and the file in {} has {accounts}: move them with \
         `deltapush state move --to postgres`, or remove state.sqlite there", path.display()
    )]
    FileNotMoved {
        /// The folder.
        path: PathBuf,
        /// Number of accounts.
        accounts: u64,
    },
    /// Nodes use the database.
    #[error(
        "nodes use the database ({nodes}): stop all of them first; one that was killed counts for another ten seconds"
    )]
    NodesRun {
        /// Their names.
        nodes: String,
    },
    /// The target of a move has another state.
    #[error(
        "{place} has accounts already, and states are not merged: move to an empty place, or remove what is there"
    )]
    NotEmpty {
        /// The target, in words.
        place: String,
    },
    /// The target of a move is in use with another key.
    #[error(
        "the database was in use with another key: make it again, empty (DROP DATABASE, CREATE DATABASE), and repeat the command"
    )]
    OtherKey,
    /// The copy differs.
    #[error(
        "the copy of the {table} is not the same as the source: nothing was changed; report this as a bug"
    )]
    NotTheSame {
        /// The rows, in words.
        table: &'static str,
    },
    /// The state was not moved.
    #[error("the state in {place} is not marked as moved: there is nothing to undo")]
    NotMoved {
        /// Its place, in words.
        place: String,
    },
    /// The files of certificates cannot be moved.
    #[error("the files of certificates cannot be moved: {0}")]
    CertificateFiles(String),
    /// PostgreSQL stores no NUL.
    #[error("a text with a NUL character cannot be stored in PostgreSQL")]
    Nul,
    /// The same, in this table.
    #[error(
        "the {table} have a text with a NUL character, which PostgreSQL does not store: erase that account first"
    )]
    NulIn {
        /// The rows, in words.
        table: &'static str,
    },
    /// A move was given up.
    #[error("{source}; nothing has moved: the state is still in {place}")]
    MoveFailed {
        /// The source, in words.
        place: String,
        /// The reason.
        source: Box<Self>,
    },
    /// The state has moved, and the copy that is left is not marked.
    #[error(
        "the state has moved, but {place} could not be marked as a copy ({source}): do not start deltapush with it; run the command again"
    )]
    NotMarked {
        /// The source, in words.
        place: String,
        /// The reason.
        source: Box<Self>,
    },
    /// The answer to a commit was lost.
    #[error(
        "the database has not confirmed the change, which may be done or not ({0}); run the command again"
    )]
    Unconfirmed(String),
    /// The state is elsewhere.
    #[error("{}", moved(*place, to))]
    Moved {
        /// The place of the copy that is left.
        place: Place,
        /// The place of the state, in words.
        to: String,
    },
    /// There is no room for the state's journal.
    #[error("the disk is full and the state cannot be opened: make room in storage.directory")]
    DiskFull,
    /// SQLite refuses the file.
    #[error("the state file cannot be used: {0}")]
    Database(#[source] rusqlite::Error),
    /// SQLite finds faults in the file.
    #[error(
        "the state file is damaged: restore a backup, or start with an empty storage.directory (every client then has \
         to connect once); SQLite says: {what}"
    )]
    Damaged {
        /// The first fault.
        what: String,
    },
    /// Credentials are sealed, and the key is not there.
    #[error(
        "credentials are sealed but their key is missing at {}: restore the key file, or start once with \
         `storage.credentials: memory`, which erases them (every device then has to log in once)",
        path.display()
    )]
    KeyMissing {
        /// The path that was tried.
        path: PathBuf,
    },
    /// Credentials are sealed with another key.
    #[error(
        "the key in {place} is not the one that the credentials are sealed with: restore the right key, or start once \
         with `storage.credentials: memory`, which erases them (every device then has to log in once)"
    )]
    KeyWrong {
        /// The place of the wrong key.
        place: String,
    },
    /// Not a key.
    #[error(
        "{place} does not hold a key: 32 bytes in base64 are expected; put the right key there"
    )]
    KeyMalformed {
        /// The place that was tried.
        place: String,
    },
    /// The key is not deltapush's to replace.
    #[error(
        "the key is in {place}, where deltapush cannot replace it: make a new one (head -c 32 /dev/urandom | base64 > FILE) and name it with --new-key-file FILE"
    )]
    NewKeyNeeded {
        /// The place of the present key.
        place: String,
    },
    /// Nothing is sealed.
    #[error("storage.credentials is `memory`: there is no key and nothing is sealed")]
    NotSealed,
    /// A backup cannot be written.
    #[error("the backup {} cannot be written: {}", path.display(), explain(path, source))]
    Backup {
        /// The backup's file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system's random numbers or its cryptography fail.
    #[error("{0}")]
    Seal(#[from] SealError),
}

impl OpenError {
    /// Reports if it may pass by itself: room on the disk, another deltapush that ends.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::DiskFull | Self::InUse { .. } | Self::Unavailable(_) => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Database(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ),
            _ => false,
        }
    }

    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Why a change of the state did not happen. The store itself says in the log that the disk is full or SQLite fails, once
/// and then now and then: its callers need not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; the operator's to mend. The state on disk is as it was.
    #[error("the disk is full and the state cannot be written: make room in storage.directory")]
    DiskFull,
    /// SQLite failed.
    #[error("the state cannot be read or written: {0}")]
    Database(Arc<rusqlite::Error>),
    /// The database is not there at the moment; the operator's to mend, unless it passes.
    #[error(
        "the database of storage.postgres cannot be used: {0}; check its servers, and the network to them"
    )]
    Unavailable(Arc<str>),
    /// The database did not finish a statement in time, or another transaction held its rows for that long.
    #[error(
        "the database of storage.postgres is too slow: {0}; check its load, and for transactions that stay open"
    )]
    Slow(Arc<str>),
    /// The database refuses a statement.
    #[error("the database refuses a statement: {0}")]
    Refused(Arc<str>),
    /// The state is not as it was at this node's start any more; the operator has changed it while the node stood still.
    #[error("{0} while this node stood still: start it again")]
    Outdated(&'static str),
    /// Another change at the same time was in the way again and again.
    #[error("the database undid the change because of other changes at the same time")]
    Collision,
    /// PostgreSQL stores no NUL.
    #[error("a name with a NUL character cannot be stored in PostgreSQL")]
    Nul,
    /// The database contains something that deltapush did not put there.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// Another change that was to be written at the same time failed, and this one with it.
    #[error("the state was not written because writing failed a moment earlier")]
    NotWritten,
    /// The state has been closed, because the process is ending.
    #[error("the state is closed")]
    Closed,
    /// Another node works for the account, or this one is not allowed to at the moment.
    #[error("the account belongs to another node, or this node has no lease")]
    NotOwner,
    /// The credentials cannot be sealed.
    #[error("{0}")]
    Seal(#[from] SealError),
}

impl StoreError {
    /// Reports if the disk is the reason, so that the failed change may be tried again as soon as anything can be
    /// written. A quota, a limit on the size of files and a disk that has become read-only are not `DiskFull` to
    /// SQLite.
    #[must_use]
    pub fn is_about_the_disk(&self) -> bool {
        match self {
            Self::DiskFull | Self::NotWritten | Self::Unavailable(_) | Self::Collision => true,
            Self::Database(error) => {
                matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly)
                )
            }
            Self::Damaged(_)
            | Self::Slow(_)
            | Self::Refused(_)
            | Self::Outdated(_)
            | Self::Nul
            | Self::Closed
            | Self::NotOwner
            | Self::Seal(_) => false,
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            _ if is_full(&error) => Self::DiskFull,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Damaged { what: error.to_string() }
            }
            _ => Self::Database(error),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if is_full(&error) { Self::DiskFull } else { Self::Database(Arc::new(error)) }
    }
}

impl From<SqlError> for OpenError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Sqlite(error) => error.into(),
            SqlError::Postgres(error) => match meaning(&error) {
                Meaning::Unavailable | Meaning::Slow => Self::Unavailable(explain_answer(&error)),
                Meaning::Nul => Self::Nul,
                _ => Self::Refused(explain_answer(&error)),
            },
            SqlError::Late => Self::Unavailable(error.to_string()),
            SqlError::Transaction(error) => Self::Unavailable(explain_answer(&error)),
            SqlError::Unexpected { .. } | SqlError::NoRow => {
                Self::Damaged { what: error.to_string() }
            }
        }
    }
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Sqlite(error) => error.into(),
            SqlError::Postgres(error) => error.into(),
            SqlError::Late => Self::Unavailable(error.to_string().into()),
            SqlError::Transaction(error) => Self::Unavailable(explain_answer(&error).into()),
            SqlError::Unexpected { .. } | SqlError::NoRow => Self::Damaged(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match meaning(&error) {
            Meaning::Unavailable => Self::Unavailable(explain_answer(&error).into()),
            Meaning::Slow => Self::Slow(explain_answer(&error).into()),
            Meaning::Collision => Self::Collision,
            Meaning::Nul => Self::Nul,
            Meaning::Refused => Self::Refused(explain_answer(&error).into()),
        }
    }
}

fn moved(place: Place, to: &str) -> String {
    let (here, set, back, undo) = match place {
        Place::File => {
            ("file in storage.directory", "set `storage.postgres` again", "sqlite", "postgres")
        }
        Place::Database => {
            ("database of storage.postgres", "remove `storage.postgres`", "postgres", "sqlite")
        }
    };
    format!(
        "the state was moved to {to}, and the {here} is the copy from that time: {set} to use the state there, or bring it back \
         with `deltapush state move --to {back}`; to use the old copy without what has changed since: \
         `deltapush state move --to {undo} --undo`"
    )
}

/// No room for the file, its journal, or the journal's index, which SQLite calls by another name.
fn is_full(error: &rusqlite::Error) -> bool {
    let no_room_for_index = error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
    no_room_for_index || error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
