//! Parts of changes that only a node of several has: the fence by slot and epoch, and the tokens that another node posts.

use super::super::operations::{Operation, Result, RowId, hash};
use super::super::server_news::StoredPosition;
use super::super::sql::{Sql, values};
use super::super::{Position, StoreError};
use super::place::EventKey;
use super::premises::Premises;
use crate::ownership::{Epoch, Ownership, Slot};
use crate::secret::DeviceToken;

/// The slots of the accounts with a token, and the epochs of those that the node owns until the transaction ends.
const FENCE_OF_TOKEN: &str = "WITH posters AS MATERIALIZED (
         SELECT id, slot FROM accounts WHERE id IN (SELECT account FROM tokens WHERE hash = ?1)),
     held AS MATERIALIZED (
         SELECT s.slot, s.epoch FROM slots s
         WHERE s.slot IN (SELECT slot FROM posters) AND s.owner = ?2 FOR SHARE OF s)
     SELECT p.slot, h.epoch FROM posters p LEFT JOIN held h ON h.slot = p.slot ORDER BY p.id";

/// This node, within a transaction.
pub(in crate::store) struct NodeWrites<'a> {
    pub(super) ownership: &'a Ownership,
    /// Its number in the table `nodes`.
    pub(super) id: i64,
    /// The facts that must hold when it tells other nodes of something.
    pub(super) premises: &'a Premises,
    /// Slots whose epochs the transaction holds: nobody can take them before its end.
    pub(super) fenced: &'a mut Vec<Slot>,
    /// The last event of which the transaction tells other nodes.
    pub(super) told: &'a mut Option<EventKey>,
}

impl Operation<'_> {
    /// Makes sure that this node owns one of the accounts with the token: one of them posts it. False if no account has it.
    ///
    /// # Errors
    /// [`StoreError::NotOwner`].
    pub(in crate::store) fn fence_token(&mut self, token: &DeviceToken) -> Result<bool> {
        let Some(node) = &mut self.node else { return Ok(true) };
        let (mut is_known, mut owned) = (false, None);
        self.sql.first_rows(FENCE_OF_TOKEN, values![hash(token), node.id], |row| {
            is_known = true;
            let held = row.get::<Option<i64>>(1)?.map(Epoch);
            let slot = Slot::new(row.get(0)?);
            let is_own = |slot: &Slot| held.is_some() && held == node.ownership.epoch(*slot);
            owned = owned.or(slot.filter(is_own));
            Ok(())
        })?;
        node.fenced.extend(owned);
        if is_known && owned.is_none() { Err(StoreError::NotOwner) } else { Ok(is_known) }
    }

    /// Reports if this node owns the slot, and goes on to do so until the transaction ends.
    ///
    /// The epoch alone would not do: a standby that becomes the primary may lack the latest claims, and their epochs are given
    /// out once more, to other nodes.
    pub(super) fn owns(&mut self, slot: Slot) -> Result<bool> {
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

    /// The lowest UID that no node has noticed, in a mailbox that this one has looked through up to `position`: the state may be
    /// ahead of it while an account moves. Zero if no other node can have noticed anything, or a higher UID than this node has seen
    /// means nothing: without UIDVALIDITY lower ones may be those of new messages.
    pub(in crate::store) fn known_to_nodes(
        &self,
        before: Option<StoredPosition>,
        position: Position,
    ) -> u64 {
        let is_shared = self.node.is_some() && position.uid_validity != 0;
        let before = before.map(|before| before.position).filter(|_| is_shared);
        let before = before.filter(|before| !before.is_beyond(position.uid_next));
        before.map_or(0, |before| before.uid_next)
    }
}
