//! Operations on the mailboxes of an account, in SQL: their positions, and the ones in which clients wait for mail.

use super::operations::{Operation, Result, RowId, StateChange, generation, hash, of_known};
use super::postgres::{OwnedAccount, StoredEvent};
use super::server_news::StoredPosition;
use super::sql::{self, Row, Sql, values};
use std::time::Duration;

use super::{Announce, Change, Idled, Look, MAX_IDLED, Position, UnixTime, Uptime};
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
    /// Its mailbox was looked through as far before, by another node, which has announced it.
    Known,
}

/// Notes up to where a mailbox has been looked through and, if what was found deserves it, that the tokens of the account
/// that `announce` names have something to announce: both or neither. Nothing is announced that the mail server has told of, or
/// that another node has announced. Does nothing for an account that is not known.
#[must_use]
pub fn noticed<L: Into<Look>>(
    account: &AccountId,
    mailbox: &str,
    look: L,
    announce: Announce,
    now: UnixTime,
) -> impl StateChange<Noticed> + use<L> {
    let (mailbox, look) = (MailboxName::from(mailbox), look.into());
    let (account, announces) = (account.clone(), announce != Announce::Nothing);
    move |state: &mut Operation<'_>| {
        let Some(owned) = state.owned(&account, Some(&mailbox), announces)? else {
            return Ok(Noticed::New);
        };
        let before = owned
            .position
            .filter(|before| before.position.uid_validity == look.position.uid_validity)
            .map(|before| before.corrected_by(look.position));
        let known = state.known_to_nodes(before, look.position);
        let noticed = match before {
            Some(before) if announces && before.has_told_of(look) => Noticed::Told,
            Some(_) if announces && known >= look.news_next => Noticed::Known,
            _ => Noticed::New,
        };
        let uid_next = look.position.uid_next.max(known);
        let position = Position { uid_next, ..look.position };
        let told = before.map_or(0, |before| before.told);
        state.store_position(owned.row, &mailbox, StoredPosition { position, told })?;
        if noticed == Noticed::New {
            state.announce(owned, &announce, now)?;
        }
        Ok(noticed)
    }
}

/// Notes that every token of the account is to be posted, so that a device comes back, and that this was so now. Does
/// nothing for an account that is not known.
#[must_use]
pub fn call(account: &AccountId, now: UnixTime) -> impl StateChange<()> + use<> {
    let account = account.clone();
    move |state: &mut Operation<'_>| {
        let Some(owned) = state.owned(&account, None, true)? else { return Ok(()) };
        let called = "UPDATE accounts SET called = ?1 WHERE id = ?2";
        state.sql.execute_later(called, values![now.0, owned.row])?;
        state.announce(owned, &Announce::All, now)
    }
}

/// The same, unless they were called within the time of `again`. Returns whether they are.
#[must_use]
pub fn call_again(
    account: &AccountId,
    now: UnixTime,
    again: Duration,
) -> impl StateChange<bool> + use<> {
    let (before, mut call) = (now.before(again), call(account, now));
    of_known(account, move |state, row, _| {
        let is_due = state.sql.one(
            "SELECT called IS NULL OR called <= ?2 FROM accounts WHERE id = ?1",
            values![row, before.0],
            |row| row.get(0),
        )?;
        if is_due {
            call(state)?;
        }
        Ok(is_due)
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
        state.sql.execute(
            "INSERT INTO idled (account, name, last_idled) VALUES (?1, ?2, ?3)
             ON CONFLICT (account, name) DO UPDATE SET last_idled = excluded.last_idled",
            values![row, &*mailbox, now.0],
        )?;
        state.sql.execute(
            "DELETE FROM idled WHERE account = ?1 AND name NOT IN (
                 SELECT name FROM idled WHERE account = ?1 ORDER BY name = ?2 DESC, last_idled DESC LIMIT ?3)",
            values![row, &*mailbox, MAX_IDLED],
        )?;
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
        let forgotten = state.sql.execute(
            "DELETE FROM idled WHERE account = ?1 AND name = ?2 AND last_idled < ?3",
            values![row, &*mailbox, limit.0],
        )?;
        if forgotten > 0 {
            state.publish_idled(row, account)?;
        }
        Ok(forgotten > 0)
    })
}

impl Operation<'_> {
    /// Marks tokens that have something to announce.
    pub(super) fn announce(
        &mut self,
        owned: OwnedAccount,
        announce: &Announce,
        now: UnixTime,
    ) -> Result<()> {
        if *announce == Announce::Nothing {
            return Ok(());
        }
        if self.node.is_some() {
            return self.announce_among_nodes(owned, announce, now);
        }
        let row = owned.row;
        *self.generation = self.generation.saturating_add(1);
        let tokens = self.tokens(row)?.into_iter().map(|seen| seen.token);
        let tokens: Vec<DeviceToken> = tokens.filter(|token| announce.includes(token)).collect();
        for token in &tokens {
            self.sql.execute(
                "UPDATE tokens SET pending = ?1, pending_since = ?2 WHERE account = ?3 AND hash = ?4",
                values![*self.generation, now.0, row, hash(token)],
            )?;
        }
        self.changes.push(Change::Pending { tokens, generation: generation(*self.generation) });
        Ok(())
    }

    pub(super) fn positions(
        &mut self,
        account: &AccountId,
    ) -> Result<Vec<(MailboxName, Position)>> {
        let Some(row) = self.row(account)? else { return Ok(Vec::new()) };
        Ok(self.sql.rows(
            "SELECT name, uid_validity, uid_next FROM mailboxes WHERE account = ?1 ORDER BY name",
            values![row],
            |row| Ok((row.get::<String>(0)?.into(), position_in(row, 1)?)),
        )?)
    }

    pub(super) fn publish_idled(&mut self, row: RowId, account: &AccountId) -> Result<()> {
        self.tell(StoredEvent::Account(account.clone()))?;
        let mailboxes = idled_of(self.sql, row)?;
        self.changes.push(Change::Idled { account: account.clone(), mailboxes });
        Ok(())
    }
}

pub(super) fn idled_of(sql: Sql<'_>, row: RowId) -> sql::Result<Vec<Idled>> {
    sql.rows(
        "SELECT name, last_idled FROM idled WHERE account = ?1 ORDER BY last_idled DESC, name",
        values![row],
        |row| Ok(Idled { name: row.get::<String>(0)?.into(), last: Uptime(row.get(1)?) }),
    )
}

/// From the columns `uid_validity` and `uid_next`.
pub(super) fn position_in(row: &Row<'_>, first: usize) -> sql::Result<Position> {
    Ok(Position { uid_validity: loaded(row.get(first)?), uid_next: loaded(row.get(first + 1)?) })
}

/// A number as SQLite can hold it, which has no unsigned ones. The parser reads none that is larger.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number. A negative one would be damage.
pub(super) fn loaded(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
