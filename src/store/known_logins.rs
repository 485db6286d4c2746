//! Known logins in SQL: keyed hashes of login names, networks and mail servers, so that admission recognizes them after
//! a restart.

use aws_lc_rs::rand;

use super::operations::{Operation, StateChange};
use super::sql::{self, Sql, no_limit, values};
use super::{KnownLogin, OpenError, Store, StoreError, UnixTime};
use crate::secret::Secret;

/// The name of the key under `meta`.
const KEY: &str = "login_key";

/// Rows that are kept. The guard itself holds as many.
const MAX_ROWS: i64 = 80_000;

/// Time for which an unused row is kept.
const LIFE: i64 = 90 * 24 * 3600;

/// The key of the hashes, made at the first time.
pub(super) fn key(sql: Sql<'_>) -> Result<Secret, OpenError> {
    let found =
        sql.optional("SELECT value FROM meta WHERE name = ?1", values![KEY], |row| row.get(0))?;
    if let Some(key) = found {
        return Ok(Secret::new(key));
    }
    let mut key = vec![0; 32];
    rand::fill(&mut key).map_err(|_| OpenError::Io {
        path: "random numbers".into(),
        source: std::io::Error::other("the operating system provides none"),
    })?;
    sql.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", values![KEY, key])?;
    Ok(Secret::new(key))
}

/// All rows, the one that was not used for longest first.
pub(super) fn load(sql: Sql<'_>) -> sql::Result<Vec<KnownLogin>> {
    load_since(sql, UnixTime(i64::MIN))
}

fn load_since(sql: Sql<'_>, since: UnixTime) -> sql::Result<Vec<KnownLogin>> {
    sql.rows(
        "SELECT key, is_place, network, upstream, is_open, seen FROM known_logins WHERE seen >= ?1 ORDER BY seen",
        values![since.0],
        |row| {
            Ok(KnownLogin {
                key: row.get(0)?,
                is_place: row.get(1)?,
                network: row.get(2)?,
                upstream: row.get(3)?,
                is_open: row.get(4)?,
                seen: UnixTime(row.get(5)?),
            })
        },
    )
}

impl Store {
    /// The known logins that were used since, at whichever node, the one that was not used for longest first. None without
    /// companions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_logins_since(&self, since: UnixTime) -> Result<Vec<KnownLogin>, StoreError> {
        match &self.shared {
            Some(shared) => {
                shared
                    .look(move |state: &mut Operation<'_>| Ok(load_since(state.sql, since)?))
                    .await
            }
            None => Ok(Vec::new()),
        }
    }
}

/// Takes in what the guard of logins recognizes after a restart, and what it does not any more.
#[must_use]
pub fn know_logins(
    used: Vec<KnownLogin>,
    forgotten: Vec<[u8; 16]>,
    now: UnixTime,
) -> impl StateChange<()> + use<> {
    move |state: &mut Operation<'_>| {
        for key in &forgotten {
            state.sql.execute("DELETE FROM known_logins WHERE key = ?1", values![key])?;
        }
        for row in &used {
            state.sql.execute(
                "INSERT INTO known_logins (key, is_place, network, upstream, is_open, seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (key) DO UPDATE SET seen = excluded.seen",
                values![row.key, row.is_place, row.network, row.upstream, row.is_open, row.seen.0],
            )?;
        }
        state.sql.execute(
            "DELETE FROM known_logins WHERE seen < ?1",
            values![now.0.saturating_sub(LIFE)],
        )?;
        state.sql.execute(
            concat!(
                "DELETE FROM known_logins WHERE key IN (
                     SELECT key FROM known_logins ORDER BY seen DESC LIMIT ",
                no_limit!(),
                " OFFSET ?1)"
            ),
            values![MAX_ROWS],
        )?;
        Ok(())
    }
}
