//! The poster of a token that accounts of several nodes have: the owner of the first of them.
//!
//! Another account may become the first one, or another node its owner, at any moment, also while somebody marks the token. So
//! each change that may have such an effect tells all nodes to look, its own included, and they look at what is committed.

use base64::prelude::{BASE64_STANDARD, Engine};

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
}

impl Store {
    /// The posters of the tokens with these hashes, as far as an account has them, in no order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_posts(&self, hashes: &[Vec<u8>]) -> Result<Vec<TokenPost>, StoreError> {
        let shared = self.shared()?;
        let hashes: Vec<String> = hashes.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect();
        let hashes = hashes.join(",");
        let found = shared.reader.look(move |state| token_posts(state, &hashes)).await?;
        let post = |(slot, token, loaded): (Option<Slot>, DeviceToken, Loaded)| {
            let is_own = slot.is_some_and(|slot| shared.ownership.epoch(slot).is_some());
            if is_own { TokenPost::Own(loaded) } else { TokenPost::Other(token) }
        };
        Ok(found.into_iter().map(post).collect())
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

fn token_posts(
    state: &mut Operation<'_>,
    hashes: &str,
) -> Result<Vec<(Option<Slot>, DeviceToken, Loaded)>> {
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
        " FROM tokens t WHERE t.hash = ANY (
             ARRAY(SELECT decode(hash, 'base64') FROM unnest(string_to_array(CAST(?1 AS TEXT), ',')) hash))
         GROUP BY t.hash"
    );
    Ok(state.sql.rows(statement, values![hashes], read)?)
}

/// From the columns of the token, `pending` and `pending_since`, the first ones.
pub(super) fn unannounced_in(row: &Row<'_>) -> sql::Result<Unannounced> {
    let since = UnixTime(row.get::<Option<i64>>(2)?.unwrap_or_default());
    Ok(Unannounced { token: token_in(row, 0)?, generation: generation(row.get(1)?), since })
}
