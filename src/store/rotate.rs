//! Replacement of the key that seals credentials.
//!
//! A kill at any instant leaves a state that opens: the new key is on disk before anything is sealed with it, all is sealed
//! with it in one transaction together with the check that a key is known by, and opening the state takes the key that fits
//! the check ([`key::sealer`]).

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::key::{self, SealingKey};
use super::operations::{RowId, account_in};
use super::postgres::rotate_shared;
use super::seal::Sealer;
use super::settings::{CredentialStorage, KeySource, StoreSettings};
use super::sql::{Sql, values};
use super::{OpenError, directory, mark, schema};
use crate::account::AccountId;

/// The result of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Number of credentials sealed with the new key.
    pub resealed: usize,
    /// Number of credentials that could not be unsealed with the old key, and are unchanged: their accounts wait for a
    /// login.
    pub left: usize,
    /// The place in which the operator must put the new key now; none if it is in place.
    pub replace: Option<String>,
}

/// Seals all credentials with a new key: the one in `new_key`, or a random one, which only a key file can be replaced by.
///
/// Blocks for as long as the disk takes.
///
/// # Errors
/// [`OpenError`]; nothing has changed then. While a deltapush works with the state it is [`OpenError::InUse`].
pub fn rotate(settings: &StoreSettings, new_key: Option<&Path>) -> Result<Rotated, OpenError> {
    let CredentialStorage::Sealed(source) = &settings.credentials else {
        return Err(OpenError::NotSealed);
    };
    if settings.postgres.is_none() && !settings.directory.exists() {
        return Err(OpenError::Absent { path: settings.directory.clone() });
    }
    let new = match (new_key, source) {
        (Some(path), _) => key::read(path)?
            .ok_or_else(|| OpenError::KeyMalformed { place: path.display().to_string() })?,
        (None, KeySource::File(_)) => key::random()?,
        (None, _) => return Err(OpenError::NewKeyNeeded { place: source.to_string() }),
    };
    if settings.postgres.is_some() {
        return rotate_shared(settings, source.clone(), new);
    }
    let _lock = directory::claim(&settings.directory)?;
    // Only now: what is not there is not made.
    drop(schema::look(&settings.directory)?);
    let mut connection = schema::connect(&settings.directory)?;
    let rotation = Rotation::begin(&mut connection, source, new)?;
    rotation.let_wait()?;
    let (resealed, left) = rotation.commit()?;
    schema::truncate_journal(&connection)?;
    let replace = match source {
        KeySource::File(path) => {
            key::put_in_place(path)?;
            None
        }
        other => Some(other.to_string()),
    };
    Ok(Rotated { resealed, left, replace })
}

/// A rotation under way, in the steps between which the process may be killed.
struct Rotation<'a> {
    transaction: Transaction<'a>,
    source: &'a KeySource,
    old: Sealer,
    new: SealingKey,
}

impl<'a> Rotation<'a> {
    fn begin(
        connection: &'a mut Connection,
        source: &'a KeySource,
        new: SealingKey,
    ) -> Result<Self, OpenError> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&transaction)?;
        mark::refuse(Sql::Sqlite(&transaction), mark::Place::File)?;
        let old = key::sealer(Sql::Sqlite(&transaction), source)?;
        Ok(Self { transaction, source, old, new })
    }

    fn let_wait(&self) -> Result<(), OpenError> {
        match self.source {
            KeySource::File(path) => key::let_wait(path, &self.new),
            _ => Ok(()),
        }
    }

    fn commit(self) -> Result<(usize, usize), OpenError> {
        let new = Sealer::new(&self.new)?;
        let counts = reseal(Sql::Sqlite(&self.transaction), &self.old, &new)?;
        self.transaction.commit()?;
        Ok(counts)
    }
}

/// Seals all credentials with the new key. Returns the numbers of those that are, and of those that the old key does not open.
fn reseal(sql: Sql<'_>, old: &Sealer, new: &Sealer) -> Result<(usize, usize), OpenError> {
    let rows: Vec<(AccountId, RowId, Vec<u8>)> = sql.rows(
        "SELECT name, upstream, id, credentials FROM accounts WHERE length(credentials) > 0",
        values![],
        |row| Ok((account_in(row, 0)?, row.get(2)?, row.get(3)?)),
    )?;
    let (mut resealed, mut left) = (0_usize, 0_usize);
    for (account, row, sealed) in rows {
        match old.unseal(&account, &sealed) {
            Ok(credentials) => {
                let sealed = new.seal(&account, &credentials)?;
                sql.execute(
                    "UPDATE accounts SET credentials = ?1 WHERE id = ?2",
                    values![sealed, row],
                )?;
                resealed += 1;
            }
            Err(_) => left += 1,
        }
    }
    key::note_check(sql, new)?;
    Ok((resealed, left))
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
