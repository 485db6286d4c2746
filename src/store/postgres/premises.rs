//! The facts that a node relies on from its start on: where the state is, the version of its tables, and the key.
//!
//! A node that stands still for longer than its lease does not know what happens meanwhile: the state may be moved, the tables
//! migrated, the key replaced. So each statement that tells other nodes of something, and each renewal of the lease, asks again.
//! Commands that change one of the facts lock `events` and `nodes` before: a statement that writes to one of the two sees the
//! facts as they are once it has its own lock, and they stay so until its transaction ends.

use super::super::StoreError;

/// The facts, as they were at the node's start.
#[derive(Debug, Clone)]
pub(super) struct Premises {
    /// The newest version of the tables that the node knows.
    pub(super) known: i64,
    /// The sealed text by which the key is recognized.
    pub(super) key_check: Option<Vec<u8>>,
}

/// The name of a fact that is another by now, with the parameters of the key and of the version. A value is converted only if its
/// name says that it is a number.
macro_rules! changed {
    ($key_check:literal, $known:literal) => {
        concat!(
            "SELECT name FROM meta WHERE CASE name
                 WHEN 'moved' THEN TRUE
                 WHEN 'key_check' THEN value <> ",
            $key_check,
            "
                 WHEN 'schema_needs' THEN CAST(convert_from(value, 'UTF8') AS BIGINT) > ",
            $known,
            "
                 ELSE FALSE END
             ORDER BY name DESC LIMIT 1"
        )
    };
}
pub(super) use changed;

/// The error for the fact of this name.
pub(super) fn outdated(changed: Option<String>) -> Result<(), StoreError> {
    Err(StoreError::Outdated(match changed.as_deref() {
        None => return Ok(()),
        Some("moved") => "the state has been moved to another place",
        Some("key_check") => "the key that seals passwords has been replaced",
        Some(_) => "the tables are those of a newer version",
    }))
}
