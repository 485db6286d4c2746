//! Facts that a node forwards to the owner of an account: rows that the owner removes with the change that they lead to, so that
//! each counts once, whoever the owner is by then.

use super::super::operations::{Operation, StateChange, account_in, of_known};
use super::super::sql::values;
use super::super::{Store, StoreError, UnixTime};
use super::events::StoredEvent;
use super::loads::numbers;
use crate::account::AccountId;
use crate::ownership::Slot;

/// So much may wait for the owner of an account.
const MAX_WAITING: i64 = 100;

/// So many accounts of one name are found.
const MAX_FOUND: i64 = 256;

/// A character between names, which is in none.
const BETWEEN: char = '\u{1}';

/// The part before the last `@` of an account's name, with the letters of ASCII in lower case. An index has it.
macro_rules! local_part {
    () => {
        "lower(regexp_replace(name, '@[^@]*$', ''))"
    };
}

/// A fact that another node has forwarded to the owner of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedFact {
    /// Its number.
    pub id: i64,
    /// The account.
    pub account: AccountId,
    /// The fact, as the other node has written it.
    pub data: Vec<u8>,
}

/// The outcome of forwarding a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardOutcome {
    /// There is no such account.
    #[default]
    Nobody,
    /// Too much waits for its owner.
    Full,
    /// It is stored, and the owner takes it in.
    Stored,
}

impl Store {
    /// The accounts whose names have one of these local parts, in any case; first those that have one of these `names`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn with_local_parts(
        &self,
        local_parts: &[&str],
        names: &[&str],
    ) -> Result<Vec<AccountId>, StoreError> {
        let variants = local_parts.iter().flat_map(|part| {
            [
                part.to_ascii_lowercase(),
                part.to_lowercase(),
                part.to_uppercase().to_ascii_lowercase(),
            ]
        });
        let (parts, names) =
            (joined(variants), joined(names.iter().map(|name| name.to_ascii_lowercase())));
        let read = move |state: &mut Operation<'_>| {
            let statement = concat!(
                "SELECT name, upstream FROM accounts WHERE ",
                local_part!(),
                " = ANY (string_to_array(CAST(?1 AS TEXT), chr(1)))
                 ORDER BY lower(name) = ANY (string_to_array(CAST(?2 AS TEXT), chr(1))) DESC, id LIMIT ?3"
            );
            Ok(state
                .sql
                .rows(statement, values![parts, names, MAX_FOUND], |row| account_in(row, 0))?)
        };
        self.shared()?.reader.look(read).await
    }

    /// The facts that wait for the owner of these slots, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forwarded(&self, slots: &[Slot]) -> Result<Vec<ForwardedFact>, StoreError> {
        let slots = numbers(slots);
        let read = move |state: &mut Operation<'_>| {
            Ok(state.sql.rows(
                "SELECT f.id, f.data, a.name, a.upstream FROM forwarded f JOIN accounts a ON a.id = f.account
                 WHERE a.slot = ANY (CAST(string_to_array(CAST(?1 AS TEXT), ',') AS BIGINT[])) ORDER BY f.id",
                values![slots],
                |row| Ok(ForwardedFact { id: row.get(0)?, data: row.get(1)?, account: account_in(row, 2)? }),
            )?)
        };
        self.shared()?.reader.look(read).await
    }
}

/// Forwards a fact to the owner of the account.
#[must_use]
pub fn forward(
    account: &AccountId,
    data: Vec<u8>,
    now: UnixTime,
) -> impl StateChange<ForwardOutcome> + use<> {
    of_known(account, move |state, row, account| {
        let stored = state.sql.execute(
            "INSERT INTO forwarded (account, at, data) SELECT ?1, ?2, ?3
             WHERE (SELECT count(*) FROM forwarded WHERE account = ?1) < ?4",
            values![row, now.0, data, MAX_WAITING],
        )?;
        if stored == 0 {
            return Ok(ForwardOutcome::Full);
        }
        state.tell(StoredEvent::Forwarded(account.clone()))?;
        Ok(ForwardOutcome::Stored)
    })
}

/// Makes the change that a forwarded fact leads to, and removes the fact: both or neither. Does nothing if it was taken in before.
#[must_use]
pub fn taken_in<T: 'static, C: StateChange<T>>(
    id: i64,
    mut change: C,
) -> impl StateChange<Option<T>> + use<T, C> {
    move |state: &mut Operation<'_>| {
        let removed = state.sql.execute("DELETE FROM forwarded WHERE id = ?1", values![id])?;
        if removed == 0 {
            return Ok(None);
        }
        change(state).map(Some)
    }
}

fn joined(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.filter(|name| !name.contains([BETWEEN, '\0'])).collect();
    names.join(&BETWEEN.to_string())
}
