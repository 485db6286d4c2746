//! The poster of a token that accounts of several nodes have: the owner of the first of them.
//!
//! Another account may become the first one, or another node its owner, at any moment, also while somebody marks the token. So
//! each change that may have such an effect tells all nodes to look, its own included, and they look at what is committed.

use super::super::operations::{Operation, Result, RowId, generation, hash, token_in};
use super::super::sql::{self, Row, values};
use super::super::{Loaded, Store, StoreError, Unannounced, UnixTime};
use super::events::StoredEvent;
use super::loads::add_record;
use crate::ownership::Slot;
use crate::secret::DeviceToken;

/// The slot of the owner that posts the token `t`.
macro_rules! poster {
    () => {
        "(SELECT a.slot FROM tokens o JOIN accounts a ON a.id = o.account WHERE o.hash = t.hash ORDER BY a.id LIMIT 1)"
    };
}
pub(super) use poster;

/// A token's poster, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPost {
    /// This node: with what there is to announce, what is known of the token, and when it was last posted.
    Own(Loaded),
    /// Another node, or none at the moment.
    Other(DeviceToken),
    /// No account has the token.
    Nobody,
}

impl Store {
    /// The poster of the token with this hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_post(&self, hash: &[u8]) -> Result<TokenPost, StoreError> {
        let shared = self.shared()?;
        let hash = hash.to_vec();
        let found = shared.reader.read(move |state| token_post(state, &hash)).await?;
        let Some((slot, token, loaded)) = found else { return Ok(TokenPost::Nobody) };
        let is_own = slot.is_some_and(|slot| shared.ownership.epoch(slot).is_some());
        Ok(if is_own { TokenPost::Own(loaded) } else { TokenPost::Other(token) })
    }
}

impl Operation<'_> {
    /// The token's poster may be another one now, or know too little of the token: it is to look.
    pub(in crate::store) fn poster_changes(&mut self, token: &DeviceToken) -> Result<()> {
        self.tell(StoredEvent::Pending(hash(token).as_ref().to_vec()))
    }

    /// The account has got a token that it did not have. If another one has it, too, the poster may have changed.
    pub(in crate::store) fn token_is_added(
        &mut self,
        row: RowId,
        token: &DeviceToken,
    ) -> Result<()> {
        if self.node.is_none() {
            return Ok(());
        }
        let is_shared: bool = self.sql.one(
            "SELECT EXISTS (SELECT 1 FROM tokens WHERE hash = ?1 AND account <> ?2)",
            values![hash(token), row],
            |row| row.get(0),
        )?;
        if is_shared { self.poster_changes(token) } else { Ok(()) }
    }
}

fn token_post(
    state: &mut Operation<'_>,
    hash: &[u8],
) -> Result<Option<(Option<Slot>, DeviceToken, Loaded)>> {
    let read = |row: &Row<'_>| {
        let mut loaded = Loaded::default();
        if row.get::<Option<i64>>(1)?.is_some() {
            loaded.unannounced.push(unannounced_in(row)?);
        }
        add_record(row, 3, &mut loaded)?;
        Ok((Slot::new(row.get(9)?), token_in(row, 0)?, loaded))
    };
    let statement = concat!(
        "SELECT max(t.token), max(t.pending), max(t.pending_since),
             max(t.token), max(t.accepted) IS NOT NULL, max(t.gone), max(t.gone_first), max(t.gone_until), max(t.accepted), ",
        poster!(),
        " FROM tokens t WHERE t.hash = ?1 GROUP BY t.hash"
    );
    Ok(state.sql.optional(statement, values![hash], read)?)
}

/// From the columns of the token, `pending` and `pending_since`, the first ones.
pub(super) fn unannounced_in(row: &Row<'_>) -> sql::Result<Unannounced> {
    let since = UnixTime(row.get::<Option<i64>>(2)?.unwrap_or_default());
    Ok(Unannounced { token: token_in(row, 0)?, generation: generation(row.get(1)?), since })
}
