//! Running time, and the expiry of what no client has used for long, in SQL.
//!
//! A state file is looked through at once. A database that several nodes share may have millions of rows, and an index by age
//! would cost each push more than this costs in a day: so the nodes look through it together, a portion of the accounts in each
//! transaction, once a day. The row of `served` has the place.

use std::time::Duration;

use super::Uptime;
use super::operations::{Operation, Result, RowId, StateChange, account_in, token_in};
use super::sql::{self, Row, Sql, values};
use crate::account::AccountId;
use crate::secret::DeviceToken;

/// Number of accounts of a portion.
const ACCOUNTS: usize = 500;
/// Most tokens that are removed with a portion, so that other changes do not wait for long. An account has fewer.
const TOKENS: usize = 100;
/// Pause from the end of one look through all accounts to the next.
const PAUSE: Duration = Duration::from_secs(24 * 3600);

/// The result of a portion of the expiry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Number of tokens that were removed.
    pub tokens: usize,
    /// True if there is a next portion.
    pub has_more: bool,
}

/// A token that has expired.
type ExpiredToken = (RowId, AccountId, DeviceToken);

/// Notes for how long deltapush has served with this state.
#[must_use]
pub fn served(now: Uptime) -> impl StateChange<()> + use<> {
    move |state: &mut Operation<'_>| {
        // Written also if nothing changes: a write that succeeds shows that the disk has room again.
        state.sql.execute(
            "UPDATE served SET seconds = CASE WHEN seconds < ?1 THEN ?1 ELSE seconds END",
            values![now.0],
        )?;
        Ok(())
    }
}

/// Removes every token and every mailbox idled in that was last seen before `limit`, in portions where several nodes share the
/// state.
#[must_use]
pub fn expire(now: Uptime, limit: Uptime) -> impl StateChange<Expired> + use<> {
    move |state: &mut Operation<'_>| match state.sql {
        Sql::Sqlite(_) => state.expire_all(limit),
        Sql::Postgres(_) => state.expire_portion(now, limit),
    }
}

impl Operation<'_> {
    fn expire_all(&mut self, limit: Uptime) -> Result<Expired> {
        let expired = self.sql.rows(
            "SELECT a.id, a.name, a.upstream, t.token FROM tokens t JOIN accounts a ON a.id = t.account
             WHERE t.last_served < ?1",
            values![limit.0],
            expired_in,
        )?;
        self.remove_tokens(&expired)?;
        let stale: Vec<(RowId, AccountId)> = self.sql.rows(
            "SELECT id, name, upstream FROM accounts
             WHERE id IN (SELECT account FROM idled WHERE last_idled < ?1)",
            values![limit.0],
            |row| Ok((row.get(0)?, account_in(row, 1)?)),
        )?;
        self.sql.execute("DELETE FROM idled WHERE last_idled < ?1", values![limit.0])?;
        stale.iter().try_for_each(|(row, account)| self.publish_idled(*row, account))?;
        Ok(Expired { tokens: expired.len(), has_more: false })
    }

    /// The next accounts, unless another node is at them or it is too early.
    fn expire_portion(&mut self, now: Uptime, limit: Uptime) -> Result<Expired> {
        let place: Option<RowId> = self.sql.optional(
            "SELECT expired_to FROM served WHERE expired_to > 0 OR expires <= ?1 FOR UPDATE SKIP LOCKED",
            values![now.0],
            |row| row.get(0),
        )?;
        let Some(place) = place else { return Ok(Expired::default()) };
        let end: Option<RowId> = self.sql.one(
            "SELECT max(id) FROM (SELECT id FROM accounts WHERE id > ?1 ORDER BY id LIMIT ?2) portion",
            values![place, ACCOUNTS],
            |row| row.get(0),
        )?;
        let Some(end) = end else {
            let next = now.after(PAUSE);
            self.sql.execute("UPDATE served SET expired_to = 0, expires = ?1", values![next.0])?;
            return Ok(Expired::default());
        };
        let (tokens, end) = self.expire_tokens_between(place, end, limit)?;
        self.expire_idled_between(place, end, limit)?;
        self.sql.execute("UPDATE served SET expired_to = ?1", values![end])?;
        Ok(Expired { tokens, has_more: true })
    }

    /// Of accounts behind `place`, up to `end`. Returns how many, and the last account that has no others.
    fn expire_tokens_between(
        &mut self,
        place: RowId,
        end: RowId,
        limit: Uptime,
    ) -> Result<(usize, RowId)> {
        let expired: Vec<ExpiredToken> = self.sql.rows(
            "SELECT a.id, a.name, a.upstream, t.token FROM tokens t JOIN accounts a ON a.id = t.account
             WHERE t.account > ?1 AND t.account <= ?2 AND t.last_served < ?3 ORDER BY t.account LIMIT ?4",
            values![place, end, limit.0, TOKENS],
            expired_in,
        )?;
        self.remove_tokens(&expired)?;
        let last = expired.last().filter(|_| expired.len() == TOKENS);
        // The last account may have more.
        let end = last.map_or(end, |(row, ..)| row.saturating_sub(1));
        Ok((expired.len(), end))
    }

    fn expire_idled_between(&mut self, place: RowId, end: RowId, limit: Uptime) -> Result<()> {
        let stale: Vec<(RowId, AccountId)> = self.sql.rows(
            "WITH stale AS (
                 DELETE FROM idled WHERE account > ?1 AND account <= ?2 AND last_idled < ?3 RETURNING account)
             SELECT id, name, upstream FROM accounts
             WHERE id > ?1 AND id <= ?2 AND id IN (SELECT account FROM stale)",
            values![place, end, limit.0],
            |row| Ok((row.get(0)?, account_in(row, 1)?)),
        )?;
        stale.iter().try_for_each(|(row, account)| self.publish_idled(*row, account))
    }

    fn remove_tokens(&mut self, expired: &[ExpiredToken]) -> Result<()> {
        expired.iter().try_for_each(|(row, account, token)| self.remove_token(*row, account, token))
    }
}

fn expired_in(row: &Row<'_>) -> sql::Result<ExpiredToken> {
    Ok((row.get(0)?, account_in(row, 1)?, token_in(row, 3)?))
}
