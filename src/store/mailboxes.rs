//! Operations on the mailboxes of an account, in SQL: their positions, and the ones in which clients wait for mail.

use rusqlite::{Connection, params};

use super::operations::{
    Operation, Result, RowId, StateChange, account_in, generation, hash, of_known,
};
use super::server_news::StoredPosition;
use super::{Announce, Change, Idled, MAX_IDLED, Position, UnixTime, Uptime};
use crate::account::AccountId;
use crate::mailbox_name::MailboxName;
use crate::secret::DeviceToken;

/// The origin of new mail that was noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Noticed {
    /// It was not known before.
    #[default]
    New,
    /// The mail server had told of it, and it was announced then.
    Told,
}

/// Notes up to where a mailbox has been looked through and, if what was found deserves it, that the tokens of the account
/// that `announce` names have something to announce: both or neither. Nothing is announced that the mail server has told of. Does
/// nothing for an account that is not known.
#[must_use]
pub fn noticed(
    account: &AccountId,
    mailbox: &str,
    position: Position,
    announce: Announce,
    now: UnixTime,
) -> impl StateChange<Noticed> + use<> {
    let mailbox = MailboxName::from(mailbox);
    of_known(account, move |state, row, _| {
        let before = state
            .stored_position(row, &mailbox)?
            .filter(|before| before.position.uid_validity == position.uid_validity)
            .map(|before| before.corrected_by(position));
        let told = before.map_or(0, |before| before.told);
        state.store_position(row, &mailbox, StoredPosition { position, told })?;
        let is_told = told > 0 && told >= position.uid_next;
        if is_told && announce != Announce::Nothing {
            return Ok(Noticed::Told);
        }
        state.announce(row, &announce, now)?;
        Ok(Noticed::New)
    })
}

/// Notes that every token of the account is to be posted, so that a device comes back, and that this was so now. Does
/// nothing for an account that is not known.
#[must_use]
pub fn call(account: &AccountId, now: UnixTime) -> impl StateChange<()> + use<> {
    of_known(account, move |state, row, _| {
        state
            .cached("UPDATE accounts SET called = ? WHERE id = ?")?
            .execute(params![now.0, row])?;
        state.announce(row, &Announce::All, now)
    })
}

/// Notes that a client of the account waits for mail in a mailbox. Does nothing for an account that is not known.
#[must_use]
pub fn client_idles(
    account: &AccountId,
    mailbox: &str,
    now: Uptime,
) -> impl StateChange<()> + use<> {
    let mailbox = MailboxName::from(mailbox);
    of_known(account, move |state, row, account| {
        state
            .cached(
                "INSERT INTO idled (account, name, last_idled) VALUES (?, ?, ?)
             ON CONFLICT (account, name) DO UPDATE SET last_idled = excluded.last_idled",
            )?
            .execute(params![row, &*mailbox, now.0])?;
        state.cached(
            "DELETE FROM idled WHERE account = ?1 AND name NOT IN (
                 SELECT name FROM idled WHERE account = ?1 ORDER BY name = ?2 DESC, last_idled DESC LIMIT ?3)",
        )?
        .execute(params![row, &*mailbox, i64::try_from(MAX_IDLED).unwrap_or(i64::MAX)])?;
        state.publish_idled(row, account)
    })
}

/// Forgets that clients of the account wait in `mailbox`, if none has since `limit`. Returns whether it was remembered.
#[must_use]
pub fn forget_idled(
    account: &AccountId,
    mailbox: &str,
    limit: Uptime,
) -> impl StateChange<bool> + use<> {
    let mailbox = MailboxName::from(mailbox);
    of_known(account, move |state, row, account| {
        let forgotten = state
            .cached("DELETE FROM idled WHERE account = ? AND name = ? AND last_idled < ?")?
            .execute(params![row, &*mailbox, limit.0])?;
        if forgotten > 0 {
            state.publish_idled(row, account)?;
        }
        Ok(forgotten > 0)
    })
}

/// Notes for how long deltapush has served with this state, and removes every token and every mailbox idled in that was
/// last seen before `limit`. Returns how many tokens.
#[must_use]
pub fn served(now: Uptime, limit: Uptime) -> impl StateChange<usize> + use<> {
    move |state: &mut Operation<'_>| {
        state.cached("UPDATE served SET seconds = max(seconds, ?)")?.execute([now.0])?;
        let expired = state.expire_tokens(limit)?;
        let stale = state
            .cached(
                "SELECT id, user, upstream FROM accounts
                 WHERE id IN (SELECT account FROM idled WHERE last_idled < ?)",
            )?
            .query_map([limit.0], |row| Ok((row.get(0)?, account_in(row, 1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        state.cached("DELETE FROM idled WHERE last_idled < ?")?.execute([limit.0])?;
        stale.iter().try_for_each(|(row, account)| state.publish_idled(*row, account))?;
        Ok(expired)
    }
}

impl Operation<'_> {
    /// Marks tokens that have something to announce.
    pub(super) fn announce(
        &mut self,
        row: RowId,
        announce: &Announce,
        now: UnixTime,
    ) -> Result<()> {
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

    pub(super) fn positions(
        &mut self,
        account: &AccountId,
    ) -> Result<Vec<(MailboxName, Position)>> {
        let Some(row) = self.row(account)? else { return Ok(Vec::new()) };
        let positions = self
            .cached("SELECT name, uid_validity, uid_next FROM mailboxes WHERE account = ? ORDER BY name")?
            .query_map([row], |row| {
                Ok((row.get::<_, String>(0)?.into(), Position { uid_validity: loaded(row.get(1)?), uid_next: loaded(row.get(2)?) }))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(positions)
    }

    fn publish_idled(&mut self, row: RowId, account: &AccountId) -> Result<()> {
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
        .query_map([row], |row| {
            Ok(Idled { name: row.get::<_, String>(0)?.into(), last: Uptime(row.get(1)?) })
        })?
        .collect()
}

/// A number as SQLite can hold it, which has no unsigned ones. The parser reads none that is larger.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number. A negative one would be damage.
pub(super) fn loaded(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
