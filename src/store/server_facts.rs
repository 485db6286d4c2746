//! Facts about mail servers that nodes have learned, in SQL, for each other. Sealed: it says where passwords are sent.

use super::operations::{Operation, StateChange};
use super::seal::Sealer;
use super::sql::{self, Sql, no_limit, values};
use super::{Store, StoreError, UnixTime};

/// The data to which a sealed fact is bound, before its name.
const ASSOCIATED: &[u8] = b"deltapush server\0";

/// Rows that are kept.
const MAX_ROWS: i64 = 4096;

/// Time for which a row is kept, in seconds: servers of a domain that cannot be asked count for a week more.
const LIFE: i64 = 8 * 24 * 3600;

/// A fact about a mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFact {
    /// Its subject.
    pub name: String,
    /// The fact itself.
    pub value: Vec<u8>,
    /// When it was found out.
    pub found: UnixTime,
}

impl Store {
    /// The facts that were stored since, at whichever node, the oldest first. None without companions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn server_facts_since(&self, since: UnixTime) -> Result<Vec<StoredFact>, StoreError> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        shared.look(move |state: &mut Operation<'_>| Ok(load(state, since)?)).await
    }
}

/// Stores facts for the other nodes. One of the same name is replaced. Only with a database that nodes share.
#[must_use]
pub fn share_server_facts(facts: Vec<StoredFact>, now: UnixTime) -> impl StateChange<()> + use<> {
    move |state: &mut Operation<'_>| {
        let Some(sealer) = state.sealer else { return Ok(()) };
        for StoredFact { name, value, found } in &facts {
            state.sql.execute(
                "INSERT INTO server_facts (name, value, found, stored) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET
                 value = excluded.value, found = excluded.found, stored = excluded.stored
                 WHERE server_facts.found <= excluded.found",
                values![name, sealer.seal_bytes(&associated(name), value)?, found.0, now.0],
            )?;
        }
        state.sql.execute(
            "DELETE FROM server_facts WHERE stored < ?1",
            values![now.0.saturating_sub(LIFE)],
        )?;
        state.sql.execute(
            concat!(
                "DELETE FROM server_facts WHERE name IN (
                     SELECT name FROM server_facts ORDER BY stored DESC LIMIT ",
                no_limit!(),
                " OFFSET ?1)"
            ),
            values![MAX_ROWS],
        )?;
        Ok(())
    }
}

/// Forgets all facts, while no node is at work: the key changes, and they are found out again.
pub(super) fn forget(sql: Sql<'_>) -> sql::Result<()> {
    sql.execute("DELETE FROM server_facts", values![])?;
    Ok(())
}

/// Those that cannot be read are left out.
fn load(state: &Operation<'_>, since: UnixTime) -> sql::Result<Vec<StoredFact>> {
    let Some(sealer) = state.sealer else { return Ok(Vec::new()) };
    let rows = state.sql.rows(
        "SELECT name, value, found FROM server_facts WHERE stored >= ?1 ORDER BY stored",
        values![since.0],
        |row| Ok((row.get::<String>(0)?, row.get::<Vec<u8>>(1)?, UnixTime(row.get(2)?))),
    )?;
    Ok(rows.into_iter().filter_map(|row| open(sealer, row)).collect())
}

fn open(sealer: &Sealer, (name, sealed, found): (String, Vec<u8>, UnixTime)) -> Option<StoredFact> {
    let value = sealer.unseal_bytes(&associated(&name), &sealed).ok()?;
    Some(StoredFact { name, value, found })
}

fn associated(name: &str) -> Vec<u8> {
    [ASSOCIATED, name.as_bytes()].concat()
}
