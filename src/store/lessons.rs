//! Lessons from what an app fetches, in SQL.

use rusqlite::{OptionalExtension, params};

use super::habit::{FetchLesson, habit_in};
use super::operations::{StateChange, hash, of_known};
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
        let found = state
            .cached("SELECT fetched_plain, left_plain, left_senders FROM tokens WHERE account = ? AND hash = ?")?
            .query_row(params![row, hash(&token).as_ref()], |row| habit_in(row, 0))
            .optional()?;
        let Some(mut habit) = found else { return Ok(()) };
        habit.learn(&token, &lesson, now, std::time::Duration::ZERO);
        state.cached(
            "UPDATE tokens SET fetched_plain = ?, left_plain = ?, left_senders = ? WHERE account = ? AND hash = ?",
        )?
        .execute(params![
            habit.fetched.map(|at| at.0),
            habit.left.map(|at| at.0),
            habit.senders.concat(),
            row,
            hash(&token).as_ref()
        ])?;
        let tokens = state.tokens(row)?;
        state.changes.push(Change::Tokens { account: account.clone(), credentials: None, tokens });
        Ok(())
    })
}
