//! News that nodes have forwarded and no owner has taken in yet: a move to a file turns it into pushes that wait.

use super::super::OpenError;
use super::super::sql::{Sql, values};

/// Takes in all forwarded news, as pending tokens of their accounts: the file has no table for it, and a phone that is woken in vain
/// loses nothing. The same rows give the same marks: a move that was cut off finds its copy equal.
///
/// # Errors
/// [`OpenError`] of the database.
pub(super) fn take_in_forwarded(database: Sql<'_>) -> Result<(), OpenError> {
    database.execute(
        "WITH taken AS (DELETE FROM forwarded RETURNING account, at)
         UPDATE tokens SET
             pending = (SELECT coalesce(max(pending), 0) + 1 FROM tokens),
             pending_since = news.since
         FROM (SELECT account, min(at) AS since FROM taken GROUP BY account) news
         WHERE tokens.account = news.account",
        values![],
    )?;
    Ok(())
}
