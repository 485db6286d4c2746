//! Replacement of the key that nodes share, while all of them are stopped.
//!
//! All that is sealed is sealed again in one transaction, together with the check that a key is known by. The new key is on disk
//! before, and a start takes the one that fits the check ([`key::shared_sealer`]). A node that stood still meanwhile can seal
//! nothing with the old key ([`super::premises`]).

use super::super::operations::account_in;
use super::super::seal::Sealer;
use super::super::sql::{self, PostgresSql, Sql, values};
use super::super::{KeySource, OpenError, Rotated, StoreSettings, key, mark, server_facts, shared};
use super::offline::{MissingTables, commit, offline};
use crate::account::AccountId;
use crate::store::key::SealingKey;

/// Number of accounts that are sealed at once.
const PAGE: usize = 500;

/// Seals all credentials and the values that nodes share with `new`.
///
/// # Errors
/// [`OpenError`]; nothing has changed then, unless it is [`OpenError::Unconfirmed`].
pub(in crate::store) fn rotate_shared(
    settings: &StoreSettings,
    source: KeySource,
    new: SealingKey,
) -> Result<Rotated, OpenError> {
    offline(settings, MissingTables::Refuse, move |connection| {
        let sql = Sql::Postgres(connection);
        mark::refuse(sql, mark::Place::Database)?;
        let old = key::shared_sealer(sql, &source)?;
        if let KeySource::File(path) = &source {
            key::let_wait(path, &new)?;
        }
        let new = Sealer::new(&new)?;
        let (resealed, left) = accounts(connection, &old, &new)?;
        shared::reseal(sql, &old, &new)?;
        server_facts::forget(sql)?;
        key::note_check(sql, &new)?;
        commit(connection)?;
        let replace = match &source {
            KeySource::File(path) => {
                key::put_in_place(path)?;
                None
            }
            other => Some(other.to_string()),
        };
        Ok(Rotated { resealed, left, replace })
    })
}

/// Returns the numbers of credentials that are sealed again, and of those that the old key does not open.
fn accounts(
    connection: &PostgresSql<'_>,
    old: &Sealer,
    new: &Sealer,
) -> Result<(usize, usize), OpenError> {
    let (mut resealed, mut left) = (0_usize, 0_usize);
    let mut last = i64::MIN;
    loop {
        let page = page(Sql::Postgres(connection), last)?;
        let Some((_, id, _)) = page.last() else { return Ok((resealed, left)) };
        last = *id;
        let (mut ids, mut credentials) = (Vec::new(), Vec::new());
        for (account, id, sealed) in page {
            match old.unseal(&account, &sealed) {
                Ok(plain) => {
                    ids.push(id);
                    credentials.push(new.seal(&account, &plain)?);
                }
                Err(_) => left += 1,
            }
        }
        resealed += ids.len();
        connection.execute_with(
            "UPDATE accounts SET credentials = new.credentials
             FROM unnest($1::BIGINT[], $2::BYTEA[]) AS new (id, credentials)
             WHERE accounts.id = new.id",
            &[&ids, &credentials],
        )?;
    }
}

/// The next accounts with sealed credentials.
fn page(sql: Sql<'_>, after: i64) -> sql::Result<Vec<(AccountId, i64, Vec<u8>)>> {
    sql.rows(
        "SELECT name, upstream, id, credentials FROM accounts
         WHERE id > ?1 AND length(credentials) > 0 ORDER BY id LIMIT ?2",
        values![after, PAGE],
        |row| Ok((account_in(row, 0)?, row.get(2)?, row.get(3)?)),
    )
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
