//! The state file: how it is opened, what stands in it, how older versions become this one.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{OpenError, directory};

/// The state file's name in its folder.
const FILE: &str = "state.sqlite";

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
];

/// Opens the state file in `directory`, makes it if it is not there, and brings it to the present schema.
pub(super) fn open(directory: &Path) -> Result<Connection, OpenError> {
    let path = directory.join(FILE);
    // Made here, because SQLite would make it readable for all; its journal takes the mode over.
    drop(directory::private_file(&path)?);
    let mut connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    refuse_newer(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // An answer means that it is on disk: NORMAL would lose the last commits when the power fails.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is deleted is overwritten: credentials and tokens do not linger in free pages.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    migrate(&mut connection)?;
    Ok(connection)
}

fn refuse_newer(connection: &Connection) -> Result<(), OpenError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    match version(connection)? {
        found if found > known => Err(OpenError::Newer { found, known }),
        _ => Ok(()),
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let taken = usize::try_from(version(connection)?).unwrap_or_default();
    for (before, step) in MIGRATIONS.iter().enumerate().skip(taken) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", i64::try_from(before).unwrap_or_default().saturating_add(1))?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_versions_state_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
        let file = Connection::open(directory.path().join(FILE)).unwrap();
        assert_eq!(version(&file).unwrap(), 99);
    }

    #[test]
    fn it_is_durable_and_erases_what_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open(directory.path()).unwrap();
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((pragma("synchronous"), pragma("foreign_keys"), pragma("secure_delete")), (2, 1, 1));
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}
