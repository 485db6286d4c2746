//! Parts of changes that only a node of several has: the fence by slot and epoch, and the tokens that another node posts.

use super::super::operations::{Operation, Result, RowId, generation, hash, token_in};
use super::super::server_news::StoredPosition;
use super::super::sql::{Sql, values};
use super::super::{Announce, Change, Position, StoreError, UnixTime};
use super::events::StoredEvent;
use super::place::EventKey;
use crate::account::AccountId;
use crate::ownership::{Ownership, Slot};
use crate::secret::DeviceToken;

/// The next generation: the time in microseconds, or the number after the last one if that is later. So it is later than all
/// before, also where a standby has become the primary that lacks the last ones, or the clock was set back: nodes remember up to
/// which generation a token was posted.
const NEXT_GENERATION: &str = "WITH next AS MATERIALIZED (
         SELECT nextval('generations') AS number,
             CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS time)
     SELECT CASE WHEN time > number THEN setval('generations', time) ELSE number END FROM next";

/// This node, within a transaction.
pub(in crate::store) struct NodeWrites<'a> {
    pub(super) ownership: &'a Ownership,
    /// Its number in the table `nodes`.
    pub(super) id: i64,
    /// Slots whose epochs the transaction holds: nobody can take them before its end.
    pub(super) fenced: &'a mut Vec<Slot>,
    /// The last event of which the transaction tells other nodes.
    pub(super) told: &'a mut Option<EventKey>,
}

impl Operation<'_> {
    /// Makes sure that this node owns the account until the transaction ends.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`].
    pub(in crate::store) fn fence(&mut self, account: &AccountId) -> Result<()> {
        self.owns(Slot::of(account))?.then_some(()).ok_or(StoreError::NotOwner)
    }

    /// Makes sure that this node owns one of the accounts with the token: one of them posts it. False if no account has it.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`].
    pub(in crate::store) fn fence_token(&mut self, token: &DeviceToken) -> Result<bool> {
        if self.node.is_none() {
            return Ok(true);
        }
        let slots = self.sql.rows(
            "SELECT slot FROM accounts WHERE id IN (SELECT account FROM tokens WHERE hash = ?1) ORDER BY id",
            values![hash(token)],
            |row| row.get(0),
        )?;
        for slot in slots.iter().copied().filter_map(Slot::new) {
            if self.owns(slot)? {
                return Ok(true);
            }
        }
        if slots.is_empty() { Ok(false) } else { Err(StoreError::NotOwner) }
    }

    /// Reports if this node owns the slot, and goes on to do so until the transaction ends.
    ///
    /// The epoch alone would not do: a standby that becomes the primary may lack the latest claims, and their epochs are given
    /// out once more, to other nodes.
    fn owns(&mut self, slot: Slot) -> Result<bool> {
        let Some(node) = &mut self.node else { return Ok(true) };
        if node.fenced.contains(&slot) {
            return Ok(true);
        }
        let Some(epoch) = node.ownership.epoch(slot) else { return Ok(false) };
        let held: Option<i64> = self.sql.optional(
            "SELECT slot FROM slots WHERE slot = ?1 AND epoch = ?2 AND owner = ?3 FOR SHARE",
            values![i64::from(slot.number()), epoch.0, node.id],
            |row| row.get(0),
        )?;
        if held.is_some() {
            node.fenced.push(slot);
        }
        Ok(held.is_some())
    }

    /// Keeps other nodes from adding tokens to an account that is about to lose its last.
    pub(in crate::store) fn lock_account(&self, row: RowId) -> Result<()> {
        if let Sql::Postgres(_) = self.sql {
            let lock = "SELECT id FROM accounts WHERE id = ?1 FOR UPDATE";
            self.sql.optional(lock, values![row], |_| Ok(()))?;
        }
        Ok(())
    }

    /// Reports if another node has noticed all of this before, in the same mailbox: the state is ahead of the watch that found it.
    pub(in crate::store) fn is_repeated(
        &self,
        before: Option<StoredPosition>,
        position: Position,
        announce: &Announce,
    ) -> bool {
        let is_known = |before: StoredPosition| {
            before.position.uid_next >= position.uid_next
                && !before.position.is_beyond(position.uid_next)
        };
        self.node.is_some() && *announce != Announce::Nothing && before.is_some_and(is_known)
    }

    /// Marks tokens that have something to announce. Those that another node posts are told to that node: the poster of a token is
    /// the owner of its first account.
    pub(in crate::store) fn announce_among_nodes(
        &mut self,
        row: RowId,
        announce: &Announce,
        now: UnixTime,
    ) -> Result<()> {
        let mut found: Vec<(DeviceToken, i64)> = self.sql.rows(
            "SELECT t.token, (SELECT a.slot FROM tokens o JOIN accounts a ON a.id = o.account
                 WHERE o.hash = t.hash ORDER BY a.id LIMIT 1)
             FROM tokens t WHERE t.account = ?1 ORDER BY t.id",
            values![row],
            |row| Ok((token_in(row, 0)?, row.get(1)?)),
        )?;
        found.retain(|(token, _)| announce.includes(token));
        if found.is_empty() {
            return Ok(());
        }
        let newest: i64 = self.sql.one(NEXT_GENERATION, values![], |row| row.get(0))?;
        let mut own = Vec::new();
        for (token, slot) in found {
            self.sql.execute(
                "UPDATE tokens SET pending = greatest(pending, ?1), pending_since = ?2
                 WHERE account = ?3 AND hash = ?4",
                values![newest, now.0, row, hash(&token)],
            )?;
            match Slot::new(slot) {
                Some(slot) if self.owns(slot)? => own.push(token),
                _ => self.tell(StoredEvent::Pending(hash(&token).as_ref().to_vec()))?,
            }
        }
        if !own.is_empty() {
            self.changes.push(Change::Pending { tokens: own, generation: generation(newest) });
        }
        Ok(())
    }
}
