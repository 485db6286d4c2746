//! Known logins in SQL: keyed hashes of login names, networks and mail servers, so that admission recognizes them after
//! a restart.

use aws_lc_rs::rand;
use rusqlite::{Connection, OptionalExtension, params};

use super::operations::{Operation, StateChange};
use super::{KnownLogin, OpenError, UnixTime};
use crate::secret::Secret;

/// The name of the key under `meta`.
const KEY: &str = "login_key";

/// Rows that are kept. The guard itself holds as many.
const MAX_ROWS: i64 = 80_000;

/// Time for which an unused row is kept.
const LIFE: i64 = 90 * 24 * 3600;

/// The key of the hashes, made at the first time.
pub(super) fn key(connection: &Connection) -> Result<Secret, OpenError> {
    let found = connection
        .query_row("SELECT value FROM meta WHERE name = ?", [KEY], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    if let Some(key) = found {
        return Ok(Secret::new(key));
    }
    let mut key = vec![0; 32];
    rand::fill(&mut key).map_err(|_| OpenError::Io {
        path: "random numbers".into(),
        source: std::io::Error::other("the operating system provides none"),
    })?;
    connection.execute("INSERT INTO meta (name, value) VALUES (?, ?)", params![KEY, key])?;
    Ok(Secret::new(key))
}

/// All rows, the one that was not used for longest first.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<KnownLogin>> {
    connection
        .prepare("SELECT key, is_place, network, upstream, is_open, seen FROM known_logins ORDER BY seen")?
        .query_map([], |row| {
            Ok(KnownLogin {
                key: row.get(0)?,
                is_place: row.get(1)?,
                network: row.get(2)?,
                upstream: row.get(3)?,
                is_open: row.get(4)?,
                seen: UnixTime(row.get(5)?),
            })
        })?
        .collect()
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
            state.cached("DELETE FROM known_logins WHERE key = ?")?.execute([key])?;
        }
        for row in &used {
            state.cached(
                "INSERT INTO known_logins (key, is_place, network, upstream, is_open, seen) VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT (key) DO UPDATE SET seen = excluded.seen",
            )?
            .execute(params![
                row.key,
                row.is_place,
                row.network,
                row.upstream,
                row.is_open,
                row.seen.0
            ])?;
        }
        state
            .cached("DELETE FROM known_logins WHERE seen < ?")?
            .execute([now.0.saturating_sub(LIFE)])?;
        state.cached(
            "DELETE FROM known_logins WHERE key IN (SELECT key FROM known_logins ORDER BY seen DESC LIMIT -1 OFFSET ?)",
        )?
        .execute([MAX_ROWS])?;
        Ok(())
    }
}
