//! The mark of a state that was moved to another place: what is left is a copy, with which nothing starts by mistake.

use super::OpenError;
use super::sql::{self, Sql, values};

/// A place of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The file in `storage.directory`.
    File,
    /// The database of `storage.postgres`.
    Database,
}

/// The name of the mark under `meta`.
const MARK: &str = "moved";

/// The place to which the state was moved, in words; none for a state that is here.
pub(super) fn of(sql: Sql<'_>) -> sql::Result<Option<String>> {
    let place: Option<Vec<u8>> =
        sql.optional("SELECT value FROM meta WHERE name = ?1", values![MARK], |row| row.get(0))?;
    Ok(place.map(|place| String::from_utf8_lossy(&place).into_owned()))
}

/// Marks the state as moved to this place.
pub(super) fn set(sql: Sql<'_>, place: &str) -> sql::Result<()> {
    sql.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        values![MARK, place.as_bytes()],
    )?;
    Ok(())
}

/// Takes the mark off. Returns whether there was one.
pub(super) fn remove(sql: Sql<'_>) -> sql::Result<bool> {
    Ok(sql.execute("DELETE FROM meta WHERE name = ?1", values![MARK])? > 0)
}

/// Refuses a state that was moved.
///
/// # Errors
/// [`OpenError::Moved`].
pub(super) fn refuse(sql: Sql<'_>, place: Place) -> Result<(), OpenError> {
    match of(sql)? {
        Some(to) => Err(OpenError::Moved { place, to }),
        None => Ok(()),
    }
}
