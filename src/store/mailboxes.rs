//! Operations on the mailboxes of an account, in SQL: their positions, and the ones in which clients wait for mail.

use rusqlite::{Connection, params};

use super::operations::{Operation, Result, RowId, account_in, generation, hash};
use super::{Announce, Change, Idled, MAX_IDLED, Position, UnixTime, Uptime};
use crate::account::AccountId;
use crate::secret::DeviceToken;

impl Operation<'_> {
    pub(super) fn noticed(
        &mut self,
        account: &AccountId,
        mailbox: &str,
        position: Position,
        announce: &Announce,
        now: UnixTime,
    ) -> Result<()> {
        let Some(row) = self.row(account)? else { return Ok(()) };
        self.cached(
            "INSERT INTO mailboxes (account, name, uid_validity, uid_next) VALUES (?, ?, ?, ?)
             ON CONFLICT (account, name)
             DO UPDATE SET uid_validity = excluded.uid_validity, uid_next = excluded.uid_next",
        )?
        .execute(params![
            row,
            mailbox,
            stored(position.uid_validity),
            stored(position.uid_next)
        ])?;
        self.announce(row, announce, now)
    }

    /// Marks every token of the account, so that its devices come back, and notes when.
    pub(super) fn call(&mut self, account: &AccountId, now: UnixTime) -> Result<()> {
        let Some(row) = self.row(account)? else { return Ok(()) };
        self.cached("UPDATE accounts SET called = ? WHERE id = ?")?.execute(params![now.0, row])?;
        self.announce(row, &Announce::All, now)
    }

    /// Marks tokens that have something to announce.
    fn announce(&mut self, row: RowId, announce: &Announce, now: UnixTime) -> Result<()> {
        if *announce == Announce::Nothing {
            return Ok(());
        }
        *self.generation = self.generation.saturating_add(1);
        let tokens = self.tokens(row)?.into_iter().map(|seen| seen.token);
        let tokens: Vec<DeviceToken> = tokens.filter(|token| announce.includes(token)).collect();
        for token in &tokens {
            self.cached(
                "UPDATE tokens SET pending = ?, pending_since = ? WHERE account = ? AND hash = ?",
            )?
            .execute(params![*self.generation, now.0, row, hash(token).as_ref()])?;
        }
        self.changes.push(Change::Pending { tokens, generation: generation(*self.generation) });
        Ok(())
    }

    pub(super) fn positions(&mut self, account: &AccountId) -> Result<Vec<(String, Position)>> {
        let Some(row) = self.row(account)? else { return Ok(Vec::new()) };
        let positions = self
            .cached("SELECT name, uid_validity, uid_next FROM mailboxes WHERE account = ? ORDER BY name")?
            .query_map([row], |row| {
                Ok((row.get(0)?, Position { uid_validity: loaded(row.get(1)?), uid_next: loaded(row.get(2)?) }))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(positions)
    }

    pub(super) fn client_idles(
        &mut self,
        account: &AccountId,
        mailbox: &str,
        now: Uptime,
    ) -> Result<()> {
        let Some(row) = self.row(account)? else { return Ok(()) };
        self.cached(
            "INSERT INTO idled (account, name, last_idled) VALUES (?, ?, ?)
             ON CONFLICT (account, name) DO UPDATE SET last_idled = excluded.last_idled",
        )?
        .execute(params![row, mailbox, now.0])?;
        self.cached(
            "DELETE FROM idled WHERE account = ?1 AND name NOT IN (
                 SELECT name FROM idled WHERE account = ?1 ORDER BY name = ?2 DESC, last_idled DESC LIMIT ?3)",
        )?
        .execute(params![row, mailbox, i64::try_from(MAX_IDLED).unwrap_or(i64::MAX)])?;
        self.tell_idled(row, account)
    }

    /// Forgets that clients wait in a mailbox, if none has since `limit`. Returns whether it was remembered.
    pub(super) fn forget_idled(
        &mut self,
        account: &AccountId,
        mailbox: &str,
        limit: Uptime,
    ) -> Result<bool> {
        let Some(row) = self.row(account)? else { return Ok(false) };
        let forgotten = self
            .cached("DELETE FROM idled WHERE account = ? AND name = ? AND last_idled < ?")?
            .execute(params![row, mailbox, limit.0])?;
        if forgotten > 0 {
            self.tell_idled(row, account)?;
        }
        Ok(forgotten > 0)
    }

    /// Notes how long deltapush has served, and drops what was not seen since `limit`. Returns how many tokens.
    pub(super) fn served(&mut self, now: Uptime, limit: Uptime) -> Result<usize> {
        self.cached("UPDATE served SET seconds = max(seconds, ?)")?.execute([now.0])?;
        let expired = self.expire_tokens(limit)?;
        let stale = self
            .cached(
                "SELECT id, user, upstream FROM accounts
                 WHERE id IN (SELECT account FROM idled WHERE last_idled < ?)",
            )?
            .query_map([limit.0], |row| Ok((row.get(0)?, account_in(row, 1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        self.cached("DELETE FROM idled WHERE last_idled < ?")?.execute([limit.0])?;
        stale.iter().try_for_each(|(row, account)| self.tell_idled(*row, account))?;
        Ok(expired)
    }

    fn tell_idled(&mut self, row: RowId, account: &AccountId) -> Result<()> {
        let mailboxes = idled_of(self.connection, row)?;
        self.changes.push(Change::Idled { account: account.clone(), mailboxes });
        Ok(())
    }
}

pub(super) fn idled_of(connection: &Connection, row: RowId) -> rusqlite::Result<Vec<Idled>> {
    connection
        .prepare_cached(
            "SELECT name, last_idled FROM idled WHERE account = ? ORDER BY last_idled DESC, name",
        )?
        .query_map([row], |row| Ok(Idled { name: row.get(0)?, last: Uptime(row.get(1)?) }))?
        .collect()
}

/// A number as SQLite can hold it, which has no unsigned ones. The parser reads none that is larger.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number. A negative one would be damage.
pub(super) fn loaded(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
