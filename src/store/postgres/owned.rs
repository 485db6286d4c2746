//! The rows of an account that its owner is about to change, read in one statement together with the fence.

use super::super::operations::{Operation, Result, RowId, generation, hash, token_in};
use super::super::server_news::{StoredPosition, stored_position_in};
use super::super::sql::{self, Row, values};
use super::super::{Announce, Change, StoreError, UnixTime};
use super::events::StoredEvent;
use super::posters::poster;
use crate::account::AccountId;
use crate::mailbox_name::MailboxName;
use crate::ownership::Slot;
use crate::secret::DeviceToken;

/// The fence, the account, a mailbox, and the tokens with their posters.
///
/// The next generation, if asked for, is the time in microseconds, or the number after the last one if that is later. So it is later
/// than all before, also where a standby has become the primary that lacks the last ones, or the clock was set back: nodes remember
/// up to which generation a token was posted.
///
/// The statement may wait for the slot's row; the other rows are those of before the wait. That does no harm: the fence holds only if
/// no other node has claimed the slot meanwhile, and none but its owner writes positions and marks.
const OWNED: &str = concat!(
    "WITH held AS MATERIALIZED (
         SELECT slot FROM slots WHERE slot = ?1 AND epoch = ?2 AND owner = ?3 FOR SHARE),
     next AS MATERIALIZED (
         SELECT nextval('generations') AS number,
             CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS time
         WHERE CAST(?7 AS BIGINT) = 1),
     newest AS MATERIALIZED (
         SELECT CASE WHEN time > number THEN setval('generations', time) ELSE number END AS generation FROM next)
     SELECT a.id, (SELECT slot FROM held), m.uid_validity, m.uid_next, m.told,
         (SELECT generation FROM newest), t.id, t.token, ",
    poster!(),
    " FROM accounts a
     LEFT JOIN mailboxes m ON m.account = a.id AND m.name = ?6
     LEFT JOIN tokens t ON t.account = a.id AND CAST(?7 AS BIGINT) = 1
     WHERE a.name = ?4 AND a.upstream = ?5 ORDER BY t.id"
);

/// An account that is about to be changed by its owner.
#[derive(Debug)]
pub(in crate::store) struct OwnedAccount {
    pub(in crate::store) row: RowId,
    /// Of the mailbox that was asked for.
    pub(in crate::store) position: Option<StoredPosition>,
    /// The tokens to mark, where several nodes share the state.
    marks: Marks,
}

/// The tokens of an account, to be marked.
#[derive(Debug, Default)]
struct Marks {
    generation: i64,
    tokens: Vec<Markable>,
}

/// A token that may be marked.
#[derive(Debug)]
struct Markable {
    row: RowId,
    token: DeviceToken,
    /// The slot of its poster.
    slot: Option<Slot>,
}

impl Operation<'_> {
    /// The account's rows, if it is known, with the position of this mailbox. Makes sure that this node owns the account until
    /// the transaction ends. Tokens are read only if something `announces` them.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`].
    pub(in crate::store) fn owned(
        &mut self,
        account: &AccountId,
        mailbox: Option<&MailboxName>,
        announces: bool,
    ) -> Result<Option<OwnedAccount>> {
        let slot = Slot::of(account);
        let Some(node) = &mut self.node else { return self.alone(account, mailbox) };
        let Some(epoch) = node.ownership.epoch(slot) else {
            return self.row(account)?.map_or(Ok(None), |_| Err(StoreError::NotOwner));
        };
        let name = mailbox.map(|name| &**name);
        let AccountId { user, upstream } = account;
        let number = i64::from(slot.number());
        let mut found: Option<(OwnedAccount, bool)> = None;
        self.sql.first_rows(
            OWNED,
            values![number, epoch.0, node.id, user, upstream, name, announces],
            |row| {
                let (owned, _) = match &mut found {
                    Some(found) => found,
                    None => found.insert((account_in(row)?, row.get::<Option<i64>>(1)?.is_some())),
                };
                if let Some(token) = markable_in(row)? {
                    owned.marks.tokens.push(token);
                }
                Ok(())
            },
        )?;
        match found {
            None => Ok(None),
            Some((_, false)) => Err(StoreError::NotOwner),
            Some((owned, true)) => {
                node.fenced.push(slot);
                Ok(Some(owned))
            }
        }
    }

    /// The same in a state of one process.
    fn alone(
        &self,
        account: &AccountId,
        mailbox: Option<&MailboxName>,
    ) -> Result<Option<OwnedAccount>> {
        let Some(row) = self.row(account)? else { return Ok(None) };
        let position = match mailbox {
            Some(mailbox) => self.stored_position(row, mailbox)?,
            None => None,
        };
        Ok(Some(OwnedAccount { row, position, marks: Marks::default() }))
    }

    /// Marks tokens that have something to announce. Those that another node posts are told to that node: the poster of a token
    /// is the owner of its first account.
    pub(in crate::store) fn announce_among_nodes(
        &mut self,
        owned: OwnedAccount,
        announce: &Announce,
        now: UnixTime,
    ) -> Result<()> {
        let Marks { generation: newest, mut tokens } = owned.marks;
        tokens.retain(|found| announce.includes(&found.token));
        if tokens.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = tokens.iter().map(|found| found.row.to_string()).collect();
        let mut own = Vec::new();
        for Markable { token, slot, .. } in tokens {
            match slot {
                Some(slot) if self.owns(slot)? => own.push(token),
                _ => self.tell(StoredEvent::Pending(hash(&token).as_ref().to_vec()))?,
            }
        }
        self.sql.execute_later(
            "UPDATE tokens SET pending = greatest(pending, ?1), pending_since = ?2
             WHERE id = ANY (CAST(string_to_array(CAST(?3 AS TEXT), ',') AS BIGINT[]))",
            values![newest, now.0, rows.join(",")],
        )?;
        if !own.is_empty() {
            self.changes.push(Change::Pending { tokens: own, generation: generation(newest) });
        }
        Ok(())
    }
}

fn account_in(row: &Row<'_>) -> sql::Result<OwnedAccount> {
    let has_position = row.get::<Option<i64>>(2)?.is_some();
    let position = if has_position { Some(stored_position_in(row, 2)?) } else { None };
    let generation = row.get::<Option<i64>>(5)?.unwrap_or_default();
    Ok(OwnedAccount { row: row.get(0)?, position, marks: Marks { generation, tokens: Vec::new() } })
}

fn markable_in(row: &Row<'_>) -> sql::Result<Option<Markable>> {
    let Some(id) = row.get(6)? else { return Ok(None) };
    let slot = row.get::<Option<i64>>(8)?.and_then(Slot::new);
    Ok(Some(Markable { row: id, token: token_in(row, 7)?, slot }))
}
