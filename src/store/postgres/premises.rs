//! The facts that a node relies on from its start on: where the state is, the version of its tables, and the key.
//!
//! A node that stands still for longer than its lease does not know what happens meanwhile: the state may be moved, the tables
//! migrated, the key replaced. So each transaction that tells other nodes of something, and each renewal of the lease, asks again.
//! Commands that change one of the facts lock `events` and `nodes` before.

use super::super::StoreError;
use super::super::sql::{PostgresSql, Sql, values};

/// The facts, as they were at the node's start.
#[derive(Debug, Clone)]
pub(super) struct Premises {
    /// The newest version of the tables that the node knows.
    pub(super) known: i64,
    /// The sealed text by which the key is recognized.
    pub(super) key_check: Option<Vec<u8>>,
}

/// The facts that are others by now. A value is converted only if its name says that it is a number.
pub(super) const CHANGED: &str = "SELECT name FROM meta WHERE CASE name
         WHEN 'moved' THEN TRUE
         WHEN 'key_check' THEN value <> ?1
         WHEN 'schema_needs' THEN CAST(convert_from(value, 'UTF8') AS BIGINT) > ?2
         ELSE FALSE END
     ORDER BY name DESC LIMIT 1";

impl Premises {
    /// Makes sure that all of them hold until the transaction ends, which has written to `events` or `nodes`.
    ///
    /// # Errors
    /// [`StoreError::Outdated`].
    pub(super) fn hold(&self, connection: &PostgresSql<'_>) -> Result<(), StoreError> {
        let values = values![self.key_check, self.known];
        let changed = Sql::Postgres(connection).optional(CHANGED, values, |row| row.get(0))?;
        outdated(changed)
    }
}

/// The error for the fact of this name.
pub(super) fn outdated(changed: Option<String>) -> Result<(), StoreError> {
    Err(StoreError::Outdated(match changed.as_deref() {
        None => return Ok(()),
        Some("moved") => "the state has been moved to another place",
        Some("key_check") => "the key that seals passwords has been replaced",
        Some(_) => "the tables are those of a newer version",
    }))
}
