//! Lessons from what an app fetches, in SQL.

use super::habit::{FetchLesson, habit_in};
use super::operations::{StateChange, hash, of_known};
use super::postgres::StoredEvent;
use super::sql::values;
use super::{Change, UnixTime};
use crate::account::AccountId;
use crate::secret::DeviceToken;

/// Notes what the app of the device with this token did with unencrypted messages of the account. Does nothing for a token
/// that the account does not have.
#[must_use]
pub fn learned(
    account: &AccountId,
    token: &DeviceToken,
    lesson: FetchLesson,
    now: UnixTime,
) -> impl StateChange<()> + use<> {
    let token = token.clone();
    of_known(account, move |state, row, account| {
        let found = state.sql.optional(
            "SELECT fetched_plain, left_plain, left_senders FROM tokens WHERE account = ?1 AND hash = ?2",
            values![row, hash(&token)],
            |row| habit_in(row, 0),
        )?;
        let Some(mut habit) = found else { return Ok(()) };
        habit.learn(&token, &lesson, now, std::time::Duration::ZERO);
        state.sql.execute(
            "UPDATE tokens SET fetched_plain = ?1, left_plain = ?2, left_senders = ?3 WHERE account = ?4 AND hash = ?5",
            values![
                habit.fetched.map(|at| at.0),
                habit.left.map(|at| at.0),
                habit.senders.concat(),
                row,
                hash(&token)
            ],
        )?;
        state.tell(StoredEvent::Account(account.clone()))?;
        let tokens = state.tokens(row)?;
        state.changes.push(Change::Tokens { account: account.clone(), credentials: None, tokens });
        Ok(())
    })
}
