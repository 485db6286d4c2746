//! The schema of the state file: opening, tables, and migrations of older versions.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};
use rustix::io::Errno;

use super::{OpenError, directory};
use crate::file_access::first_refused;

/// The state file's name in its folder.
const FILE: &str = "state.sqlite";

/// Time to wait for another process's lock.
const BUSY: Duration = Duration::from_secs(5);

/// The steps from an empty file to the present schema. `PRAGMA user_version` counts those taken. A step that has been
/// released is never changed: the next one is added.
const MIGRATIONS: &[&str] = &[
    // `pending` is the generation that a token has to announce. `token` is found by its hash, which keeps the index small.
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE accounts (
         id INTEGER PRIMARY KEY,
         user TEXT NOT NULL,
         upstream TEXT NOT NULL,
         credentials BLOB NOT NULL,
         created INTEGER NOT NULL,
         UNIQUE (user, upstream)
     ) STRICT;
     CREATE TABLE tokens (
         id INTEGER PRIMARY KEY,
         account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
         hash BLOB NOT NULL,
         token TEXT NOT NULL,
         first_seen INTEGER NOT NULL,
         last_seen INTEGER NOT NULL,
         pending INTEGER,
         pending_since INTEGER,
         accepted INTEGER,
         given_up INTEGER,
         given_up_reason TEXT,
         UNIQUE (account, hash)
     ) STRICT;
     CREATE INDEX tokens_by_hash ON tokens (hash);
     CREATE TABLE mailboxes (
         account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
         name TEXT NOT NULL,
         uid_validity INTEGER NOT NULL,
         uid_next INTEGER NOT NULL,
         PRIMARY KEY (account, name)
     ) STRICT, WITHOUT ROWID;",
    // `seconds`, `last_served` and `last_idled` are seconds of running time. Credentials of no length are in memory only.
    "CREATE TABLE served (seconds INTEGER NOT NULL) STRICT;
     INSERT INTO served VALUES (0);
     ALTER TABLE tokens ADD COLUMN last_served INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE idled (
         account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
         name TEXT NOT NULL,
         last_idled INTEGER NOT NULL,
         PRIMARY KEY (account, name)
     ) STRICT, WITHOUT ROWID;",
    // When the account's devices were last called back, in seconds since 1970: only where sessions are kept.
    "ALTER TABLE accounts ADD COLUMN called INTEGER;",
    // Keyed hashes of login names, networks and mail servers of accepted logins; `seen` in seconds since 1970.
    "CREATE TABLE known_logins (
         key BLOB PRIMARY KEY,
         is_place INTEGER NOT NULL,
         network INTEGER NOT NULL,
         upstream INTEGER NOT NULL,
         is_open INTEGER NOT NULL,
         seen INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX known_logins_by_seen ON known_logins (seen);",
    // Quarantine: how often the notification server said that the token is gone (410), when first and last, not before when it
    // is posted again (all in seconds since 1970), and the running time from which the day before its removal counts.
    "ALTER TABLE tokens ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE tokens ADD COLUMN gone_first INTEGER;
     ALTER TABLE tokens ADD COLUMN gone_last INTEGER;
     ALTER TABLE tokens ADD COLUMN gone_until INTEGER;
     ALTER TABLE tokens ADD COLUMN gone_served INTEGER;
     CREATE TABLE erased (
         id INTEGER PRIMARY KEY,
         user TEXT NOT NULL,
         upstream TEXT NOT NULL,
         at INTEGER NOT NULL,
         reason TEXT NOT NULL
     ) STRICT;",
    // When the device's app was noted to fetch an unencrypted message, and to leave one unfetched, in seconds since 1970; and of
    // whom it has left some since it last fetched one, 8 bytes of a hash each.
    "ALTER TABLE tokens ADD COLUMN fetched_plain INTEGER;
     ALTER TABLE tokens ADD COLUMN left_plain INTEGER;
     ALTER TABLE tokens ADD COLUMN left_senders BLOB NOT NULL DEFAULT x'';",
    // Messages below the UID `told` were announced because the mail server told of them. An account is not `watched` if the mail
    // server's news is all that wakes its devices.
    "ALTER TABLE mailboxes ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE accounts ADD COLUMN watched INTEGER NOT NULL DEFAULT 1;",
    // `user` is a reserved word to other databases.
    "ALTER TABLE accounts RENAME COLUMN user TO name;
     ALTER TABLE erased RENAME COLUMN user TO name;",
];

/// The first version in which accounts have the column `name`; it was `user` before.
pub(super) const WITH_NAMES: i64 = 8;

/// The newest schema version that is known.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Opens the state file in `directory`, and makes it if it is not there. Its schema stays what it is.
pub(super) fn connect(directory: &Path) -> Result<Connection, OpenError> {
    let path = directory.join(FILE);
    // Made here, because SQLite would make it readable for all; its journal takes the mode over.
    drop(directory::private_file(&path)?);
    open(&path).map_err(|error| refused(directory, error))
}

fn open(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    refuse_newer(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // An answer means that it is on disk: NORMAL would lose the last commits when the power fails.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Deleted content is overwritten: credentials and tokens do not linger in free pages.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the state file to look at it, also while its owner works with it.
pub(super) fn look(directory: &Path) -> Result<Connection, OpenError> {
    let path = directory.join(FILE);
    if !path.try_exists().map_err(OpenError::io(&path))? {
        return Err(OpenError::Absent { path: directory.to_owned() });
    }
    open_to_look(&path).map_err(|error| refused(directory, error))
}

fn open_to_look(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    refuse_newer(&connection)?;
    Ok(connection)
}

/// Names the file where SQLite only says that it cannot open or write one.
fn refused(directory: &Path, error: OpenError) -> OpenError {
    let OpenError::Database(of_sqlite) = &error else { return error };
    let is_of_access = matches!(
        of_sqlite.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
    );
    let files = ["", "-wal", "-shm"].map(|end| directory.join(format!("{FILE}{end}")));
    let places = files.into_iter().chain([directory.to_owned()]);
    match first_refused(places).filter(|_| is_of_access) {
        Some(path) => OpenError::io(&path)(Errno::ACCESS.into()),
        None => error,
    }
}

fn refuse_newer(connection: &Connection) -> Result<(), OpenError> {
    match version(connection)? {
        found if found > newest() => Err(OpenError::Newer { found, known: newest() }),
        _ => Ok(()),
    }
}

/// The schema version of a state file.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the state to the present schema, within the caller's transaction.
pub(super) fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let taken = usize::try_from(version(transaction)?).unwrap_or_default();
    for step in MIGRATIONS.iter().skip(taken) {
        transaction.execute_batch(step)?;
    }
    if taken < MIGRATIONS.len() {
        transaction.pragma_update(None, "user_version", newest())?;
    }
    Ok(())
}

/// Writes the journal back and empties it: overwriting what was erased reaches the file only so. False if somebody reads the
/// state just now; then it is to be tried again.
pub(super) fn truncate_journal(connection: &Connection) -> rusqlite::Result<bool> {
    // Nobody waits for a reader: a backup takes as long as it takes.
    connection.busy_timeout(Duration::ZERO)?;
    let busy =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(BUSY)?;
    busy.map(|busy| busy == 0)
}

/// Gives back the memory of statements that are executed once, and of the pages that they read.
pub(super) fn release_memory(connection: &Connection) -> rusqlite::Result<()> {
    connection.flush_prepared_statement_cache();
    connection.execute_batch("PRAGMA shrink_memory")
}

/// A state file as the version before the present schema left it.
#[cfg(test)]
pub(super) fn first_version(directory: &Path) -> Connection {
    let connection = connect(directory).unwrap();
    connection.execute_batch(MIGRATIONS[0]).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_state_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        connect(directory.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = connect(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
        assert!(matches!(look(directory.path()), Err(OpenError::Newer { .. })));
        let file = Connection::open(directory.path().join(FILE)).unwrap();
        assert_eq!(version(&file).unwrap(), 99);
    }

    #[test]
    fn it_is_durable_and_erases_what_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let connection = connect(directory.path()).unwrap();
        let pragma =
            |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(
            (pragma("synchronous"), pragma("foreign_keys"), pragma("secure_delete")),
            (2, 1, 1)
        );
        let mode: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}
