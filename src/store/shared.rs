//! Values that all nodes of one state have in common, in SQL: certificates with their keys, the keys of TLS tickets, challenges of
//! an authority. Each is sealed, and has a version: a node replaces the one that it knows.

use super::operations::{Operation, Result};
use super::postgres::StoredEvent;
use super::seal::{SealError, Sealer};
use super::sql::{self, Sql, values};
use super::{OpenError, Store, StoreError};
use crate::secret::Secret;

/// The data to which a sealed value is bound, before its name.
const ASSOCIATED: &[u8] = b"deltapush shared\0";

/// A value that all nodes have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedValue {
    /// Its name.
    pub name: String,
    /// Counts from one.
    pub version: i64,
    /// The value itself.
    pub value: Secret,
}

impl Store {
    /// All values that the nodes have in common. Only with a database that nodes share.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shared_values(&self) -> Result<Vec<SharedValue>, StoreError> {
        self.commit(|state: &mut Operation<'_>| state.shared_values()).await
    }

    /// Replaces the version of a value that this node knows, or adds one that it does not. Returns the new version; none if
    /// another node was faster. Only with a database that nodes share.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn share_value(
        &self,
        name: &str,
        value: &Secret,
        replaces: Option<i64>,
    ) -> Result<Option<i64>, StoreError> {
        let (name, value) = (name.to_owned(), value.clone());
        self.commit(move |state: &mut Operation<'_>| state.share_value(&name, &value, replaces))
            .await
    }
}

impl Operation<'_> {
    fn shared_values(&self) -> Result<Vec<SharedValue>> {
        let Some(sealer) = self.sealer else { return Ok(Vec::new()) };
        rows(self.sql)?.into_iter().map(|row| Ok(open(sealer, row)?)).collect()
    }

    fn share_value(
        &mut self,
        name: &str,
        value: &Secret,
        replaces: Option<i64>,
    ) -> Result<Option<i64>> {
        let Some(sealer) = self.sealer else { return Ok(None) };
        let sealed = sealer.seal_bytes(&associated(name), value.expose())?;
        let version = match replaces {
            None => self.sql.optional(
                "INSERT INTO shared (name, version, value) VALUES (?1, 1, ?2)
                 ON CONFLICT (name) DO NOTHING RETURNING version",
                values![name, sealed],
                |row| row.get(0),
            )?,
            Some(known) => self.sql.optional(
                "UPDATE shared SET version = version + 1, value = ?2 WHERE name = ?1 AND version = ?3
                 RETURNING version",
                values![name, sealed, known],
                |row| row.get(0),
            )?,
        };
        if version.is_some() {
            self.tell(StoredEvent::Shared)?;
        }
        Ok(version)
    }
}

/// The name, the version, and the sealed value.
type SharedRow = (String, i64, Vec<u8>);

fn rows(sql: Sql<'_>) -> sql::Result<Vec<SharedRow>> {
    sql.rows("SELECT name, version, value FROM shared ORDER BY name", values![], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

fn open(sealer: &Sealer, (name, version, sealed): SharedRow) -> Result<SharedValue, SealError> {
    let value = Secret::new(sealer.unseal_bytes(&associated(&name), &sealed)?);
    Ok(SharedValue { name, version, value })
}

/// All values, while no node is at work.
pub(super) fn all(sql: Sql<'_>, sealer: &Sealer) -> Result<Vec<SharedValue>, OpenError> {
    rows(sql)?.into_iter().map(|row| Ok(open(sealer, row)?)).collect()
}

/// Replaces all values by these, while no node is at work.
pub(super) fn replace_all(
    sql: Sql<'_>,
    sealer: &Sealer,
    values: &[(String, Secret)],
) -> Result<(), OpenError> {
    sql.execute("DELETE FROM shared", values![])?;
    for (name, value) in values {
        let sealed = sealer.seal_bytes(&associated(name), value.expose())?;
        sql.execute(
            "INSERT INTO shared (name, version, value) VALUES (?1, 1, ?2)",
            values![name, sealed],
        )?;
    }
    Ok(())
}

/// Seals all values with the new key. Those that the old one does not open stay as they are.
pub(super) fn reseal(sql: Sql<'_>, old: &Sealer, new: &Sealer) -> Result<(), OpenError> {
    for row in rows(sql)? {
        let Ok(SharedValue { name, value, .. }) = open(old, row) else { continue };
        let sealed = new.seal_bytes(&associated(&name), value.expose())?;
        sql.execute("UPDATE shared SET value = ?2 WHERE name = ?1", values![name, sealed])?;
    }
    Ok(())
}

fn associated(name: &str) -> Vec<u8> {
    [ASSOCIATED, name.as_bytes()].concat()
}
