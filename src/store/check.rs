//! The check behind `deltapush state check`: changes nothing, and works while a deltapush uses the state.

use std::fmt;
use std::path::Path;

use rusqlite::Connection;

use super::operations::account_in;
use super::seal::Sealer;
use super::settings::CredentialStorage;
use super::sql::{self, Sql, values};
use super::{OpenError, StoreSettings, directory, key, mark, schema};

/// Number of credentials that are read at once.
const PAGE: usize = 1000;

/// The content of a sound state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateReport {
    /// The state's folder, or its database.
    pub place: String,
    /// The users of it, in words.
    pub usage: String,
    /// The schema version found, and the one that this deltapush brings it to at its next start.
    pub schema: (i64, i64),
    /// Accounts with a token.
    pub accounts: u64,
    /// Accounts whose sealed credentials are on disk.
    pub sealed: u64,
    /// Tokens. One of two accounts counts twice.
    pub tokens: u64,
    /// Tokens that have something to announce.
    pub pending: u64,
    /// Mailboxes with a position.
    pub mailboxes: u64,
    /// The result of the check of the key.
    pub key: KeyReport,
}

/// The result of the check of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyReport {
    /// Credentials are in memory only.
    NotNeeded,
    /// Nothing is sealed: any key will do.
    NothingSealed,
    /// It opens what is sealed.
    Opens {
        /// Its place.
        place: String,
        /// Number of credentials that it does not open although it is the right key: they are damaged.
        damaged: u64,
    },
}

/// Looks through the state.
///
/// # Errors
/// [`OpenError`]: it is not there, damaged, a newer version's, or its key is missing or the wrong one.
pub fn check(settings: &StoreSettings) -> Result<StateReport, OpenError> {
    let in_use = directory::is_claimed(&settings.directory);
    let connection = schema::look(&settings.directory)?;
    // One view of the state, whatever its owner writes meanwhile.
    let connection = connection.unchecked_transaction()?;
    integrity(&connection)?;
    let found = schema::version(&connection)?;
    if found == 0 {
        return Err(OpenError::Absent { path: settings.directory.clone() });
    }
    let sql = Sql::Sqlite(&connection);
    Ok(StateReport {
        place: settings.directory.display().to_string(),
        usage: match (mark::of(sql)?, in_use) {
            (Some(to), _) => format!("moved to {to}"),
            (None, true) => "in use by a running deltapush".to_owned(),
            (None, false) => "not in use by a deltapush".to_owned(),
        },
        key: key(sql, found, &settings.credentials)?,
        ..counted(sql, (found, schema::newest()))?
    })
}

/// Number of accounts in a state file that was not moved. Zero if there is none, or none that can be read.
pub(super) fn accounts_in_file(directory: &Path) -> u64 {
    let count = || {
        let file = schema::look(directory)?;
        let sql = Sql::Sqlite(&file);
        match mark::of(sql)? {
            Some(_) => Ok(0),
            None => Ok::<_, OpenError>(count(sql, "SELECT count(*) FROM accounts")?),
        }
    };
    count().unwrap_or_default()
}

/// A report with the numbers only.
pub(super) fn counted(sql: Sql<'_>, schema: (i64, i64)) -> Result<StateReport, OpenError> {
    let count = |text| count(sql, text);
    Ok(StateReport {
        place: String::new(),
        usage: String::new(),
        schema,
        accounts: count("SELECT count(*) FROM accounts")?,
        sealed: count("SELECT count(*) FROM accounts WHERE length(credentials) > 0")?,
        tokens: count("SELECT count(*) FROM tokens")?,
        pending: count("SELECT count(*) FROM tokens WHERE pending IS NOT NULL")?,
        mailboxes: count("SELECT count(*) FROM mailboxes")?,
        key: KeyReport::NotNeeded,
    })
}

fn count(sql: Sql<'_>, text: &'static str) -> sql::Result<u64> {
    sql.one(text, values![], |row| Ok(u64::try_from(row.get::<i64>(0)?).unwrap_or_default()))
}

pub(super) fn integrity(connection: &Connection) -> Result<(), OpenError> {
    let what: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if what != "ok" {
        return Err(OpenError::Damaged { what });
    }
    let strays = count(Sql::Sqlite(connection), "SELECT count(*) FROM pragma_foreign_key_check")?;
    if strays > 0 {
        return Err(OpenError::Damaged { what: format!("{strays} rows belong to no account") });
    }
    Ok(())
}

fn key(sql: Sql<'_>, schema: i64, keeping: &CredentialStorage) -> Result<KeyReport, OpenError> {
    let CredentialStorage::Sealed(source) = keeping else { return Ok(KeyReport::NotNeeded) };
    if !key::any_sealed(sql)? {
        return Ok(KeyReport::NothingSealed);
    }
    let found = key::look(sql, source)?;
    let found = found.map_or_else(|| key::unfit(source).and_then(Err), Ok)?;
    let damaged = damaged(sql, schema < schema::WITH_NAMES, found.sealer())?;
    Ok(KeyReport::Opens { place: source.to_string(), damaged })
}

/// Number of credentials that the key does not open. Some accounts after the other: a database may have more than fit into memory.
pub(super) fn damaged(sql: Sql<'_>, is_old: bool, sealer: &Sealer) -> sql::Result<u64> {
    let credentials = if is_old {
        "SELECT user, upstream, id, credentials FROM accounts
         WHERE id > ?1 AND length(credentials) > 0 ORDER BY id LIMIT ?2"
    } else {
        "SELECT name, upstream, id, credentials FROM accounts
         WHERE id > ?1 AND length(credentials) > 0 ORDER BY id LIMIT ?2"
    };
    let (mut damaged, mut last) = (0_u64, None);
    loop {
        let before = last;
        sql.each(credentials, values![before.unwrap_or(i64::MIN), PAGE], |row| {
            last = Some(row.get(2)?);
            let sealed: Vec<u8> = row.get(3)?;
            damaged += u64::from(sealer.unseal(&account_in(row, 0)?, &sealed).is_err());
            Ok(())
        })?;
        if last == before {
            return Ok(damaged);
        }
    }
}

impl fmt::Display for StateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "state      {}; {}", self.place, self.usage)?;
        writeln!(f, "integrity  ok")?;
        let (found, newest) = self.schema;
        let note = if found < newest {
            format!(", migrated to {newest} at the next start")
        } else {
            String::new()
        };
        writeln!(f, "schema     version {found}{note}")?;
        writeln!(
            f,
            "accounts   {}, {} of them with sealed credentials",
            self.accounts, self.sealed
        )?;
        writeln!(f, "tokens     {}, {} of them with a push to send", self.tokens, self.pending)?;
        writeln!(f, "mailboxes  {}", self.mailboxes)?;
        match &self.key {
            KeyReport::NotNeeded => {
                write!(f, "key        not needed: credentials are in memory only")
            }
            KeyReport::NothingSealed => write!(f, "key        nothing is sealed"),
            KeyReport::Opens { place, damaged: 0 } => {
                write!(f, "key        {place} opens all sealed credentials")
            }
            KeyReport::Opens { place, damaged } => write!(
                f,
                "key        {place} is the right one, but {damaged} credentials are damaged: those accounts wait for a login"
            ),
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
