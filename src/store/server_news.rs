//! Operations on what the mail server tells of an account, in SQL: a message that it has told of, and whether the account is
//! watched at all.

use super::mailboxes::{loaded, position_in, stored};
use super::operations::{Operation, Result, RowId, StateChange, of_known};
use super::postgres::StoredEvent;
use super::sql::{self, Row, values};
use super::{Announce, Change, Look, Position, UnixTime};
use crate::account::AccountId;
use crate::mailbox_name::MailboxName;

/// UIDs by which a message may lie ahead of the stored position, or behind it. One that is further ahead does not move it: a wrong
/// number would hide all messages below. One that is further behind shows that the position is wrong.
const MAX_JUMP: u64 = 10_000;

/// A message that the mail server has told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToldMessage {
    /// Its UID.
    pub uid: u64,
    /// UIDVALIDITY of its mailbox; `None` for the one that is stored.
    pub uid_validity: Option<u64>,
}

/// The stored position of a mailbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredPosition {
    pub(super) position: Position,
    /// Messages below this UID were announced because the mail server told of them.
    pub(super) told: u64,
}

impl StoredPosition {
    /// The lowest UID that is not known, in a mailbox with this UIDVALIDITY.
    fn next(&self, uid_validity: u64) -> Option<u64> {
        (self.position.uid_validity == uid_validity).then_some(self.position.uid_next)
    }

    /// Reports if the mail server has told of all that was found and deserves a push.
    pub(super) fn has_told_of(&self, look: Look) -> bool {
        self.told > 0 && self.told >= look.news_next
    }

    /// Without what the mail server told of, if it told of messages far beyond this position, which do not exist.
    pub(super) fn corrected_by(self, seen: Position) -> Self {
        let told = Position { uid_next: self.told, ..self.position };
        Self { told: if told.is_beyond(seen.uid_next) { 0 } else { self.told }, ..self }
    }
}

/// Notes a message that the mail server has told of, and that the tokens that `announce` names have something to announce: both or
/// neither. Returns false for a message that was known before; then nothing changes. Does nothing for an account that is not known.
///
/// A push wakes a device for all messages up to the one that is told of, so an announced message moves the position past those that
/// the server left out. One that is not announced moves it only if no message is left out.
#[must_use]
pub fn told(
    account: &AccountId,
    mailbox: &str,
    message: Option<ToldMessage>,
    announce: Announce,
    now: UnixTime,
) -> impl StateChange<bool> + use<> {
    let mailbox = MailboxName::from(mailbox);
    let (account, announces) = (account.clone(), announce != Announce::Nothing);
    move |state: &mut Operation<'_>| {
        let looked_at = message.map(|_| &mailbox);
        let Some(owned) = state.owned(&account, looked_at, announces)? else { return Ok(false) };
        let Some(message) = message else {
            state.announce(owned, &announce, now)?;
            return Ok(true);
        };
        let before = owned
            .position
            .filter(|before| before.position.uid_next.saturating_sub(message.uid) <= MAX_JUMP);
        let known = before.map(|before| before.position.uid_validity);
        let Some(uid_validity) = message.uid_validity.or(known) else {
            state.announce(owned, &announce, now)?;
            return Ok(true);
        };
        let next = before.and_then(|before| before.next(uid_validity));
        if next.is_some_and(|next| message.uid < next) {
            return Ok(false);
        }
        if next.is_some_and(|next| message.uid.saturating_sub(next) > MAX_JUMP) {
            state.announce(owned, &announce, now)?;
            return Ok(true);
        }
        let after = message.uid.saturating_add(1);
        let is_gap = next.is_some_and(|next| message.uid > next);
        let told_before = before.filter(|_| next.is_some()).map_or(0, |before| before.told);
        let told = match announce {
            Announce::Nothing if before.is_none() || next == Some(message.uid) => told_before,
            Announce::Nothing => return Ok(true),
            Announce::All | Announce::AllBut(_) => after,
        };
        let position = Position { uid_validity, uid_next: after };
        state.store_position(owned.row, &mailbox, StoredPosition { position, told })?;
        // A device that has this message may lack those that were left out.
        let all = is_gap && announces;
        state.announce(owned, if all { &Announce::All } else { &announce }, now)?;
        Ok(true)
    }
}

/// Notes whether the account is watched. One that is not has no credentials, here and in memory.
#[must_use]
pub fn watched(account: &AccountId, is_watched: bool) -> impl StateChange<()> + use<> {
    of_known(account, move |state, row, account| {
        state
            .sql
            .execute("UPDATE accounts SET watched = ?1 WHERE id = ?2", values![is_watched, row])?;
        if !is_watched {
            state.sql.execute(
                "UPDATE accounts SET credentials = ?1 WHERE id = ?2",
                values![[0_u8; 0], row],
            )?;
        }
        state.tell(StoredEvent::Account(account.clone()))?;
        state.changes.push(Change::Watched { account: account.clone(), is_watched });
        Ok(())
    })
}

impl Operation<'_> {
    pub(super) fn stored_position(
        &self,
        row: RowId,
        mailbox: &MailboxName,
    ) -> Result<Option<StoredPosition>> {
        Ok(self.sql.optional(
            "SELECT uid_validity, uid_next, told FROM mailboxes WHERE account = ?1 AND name = ?2",
            values![row, &**mailbox],
            |row| stored_position_in(row, 0),
        )?)
    }

    /// Stores a position. Messages below `told` stay behind it.
    pub(super) fn store_position(
        &self,
        row: RowId,
        mailbox: &MailboxName,
        StoredPosition { position, told }: StoredPosition,
    ) -> Result<()> {
        self.sql.execute_later(
            "INSERT INTO mailboxes (account, name, uid_validity, uid_next, told) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (account, name) DO UPDATE SET
             uid_validity = excluded.uid_validity, uid_next = excluded.uid_next, told = excluded.told",
            values![
                row,
                &**mailbox,
                stored(position.uid_validity),
                stored(position.uid_next.max(told)),
                stored(told)
            ],
        )?;
        Ok(())
    }
}

/// From the columns `uid_validity`, `uid_next` and `told`.
pub(super) fn stored_position_in(row: &Row<'_>, first: usize) -> sql::Result<StoredPosition> {
    Ok(StoredPosition { position: position_in(row, first)?, told: loaded(row.get(first + 2)?) })
}
