//! Loads the whole state, once, at the start.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::collections::HashSet;
use std::sync::Arc;

use super::known_logins;
use super::mailboxes::idled_of;
use super::operations::{RowId, account_in, generation, token_in, tokens_of};
use super::quarantine::token_records;
use super::seal::Sealer;
use super::sql::{self, Sql, values};
use super::{AccountRecord, Generation, Loaded, Unannounced, UnixTime, Uptime};
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::secret::Secret;

pub(super) fn load(
    sql: Sql<'_>,
    sealer: Option<&Sealer>,
    keeps_sessions: bool,
    login_key: Option<Secret>,
    now: UnixTime,
) -> sql::Result<Loaded> {
    let rows = sql.rows(
        "SELECT name, upstream, id, credentials, called, watched FROM accounts ORDER BY id",
        values![],
        |row| {
            let called = row.get::<Option<i64>>(4)?.map(UnixTime);
            let (account, id) = (account_in(row, 0)?, row.get::<RowId>(2)?);
            Ok((account, id, row.get::<Vec<u8>>(3)?, called, row.get(5)?))
        },
    )?;
    let mut accounts = Vec::with_capacity(rows.len());
    // Accounts of one mail server share its name.
    let mut upstreams: HashSet<Arc<str>> = HashSet::new();
    for (mut account, row, sealed, called, is_watched) in rows {
        match upstreams.get(&account.upstream) {
            Some(known) => account.upstream = Arc::clone(known),
            None => _ = upstreams.insert(Arc::clone(&account.upstream)),
        }
        let credentials = sealer.and_then(|sealer| unseal(sealer, &account, &sealed));
        let (tokens, idled) = (tokens_of(sql, row)?, idled_of(sql, row)?);
        accounts.push(AccountRecord { account, credentials, tokens, idled, called, is_watched });
    }
    let mut unannounced = unannounced(sql)?;
    // With kept sessions, their pool calls devices back, at a pace of its own.
    if !keeps_sessions {
        call_back(&accounts, &mut unannounced, now);
    }
    let known_logins = known_logins::load(sql)?;
    let tokens = token_records(sql)?;
    Ok(Loaded {
        accounts,
        unannounced,
        tokens,
        accepted: Vec::new(),
        served: served(sql)?,
        known_logins,
        login_key,
    })
}

pub(super) fn unseal(
    sealer: &Sealer,
    account: &AccountId,
    sealed: &[u8],
) -> Option<Arc<Credentials>> {
    if sealed.is_empty() {
        return None;
    }
    let credentials = sealer.unseal(account, sealed);
    if let Err(error) = &credentials {
        tracing::warn!("{account:?} is not watched until its client logs in: {error}");
    }
    credentials.ok().map(Arc::new)
}

fn unannounced(sql: Sql<'_>) -> sql::Result<Vec<Unannounced>> {
    sql.rows(
        "SELECT max(token), max(pending), max(pending_since) FROM tokens WHERE pending IS NOT NULL
         GROUP BY hash ORDER BY min(pending)",
        values![],
        |row| {
            Ok(Unannounced {
                token: token_in(row, 0)?,
                generation: generation(row.get(1)?),
                since: UnixTime(row.get::<Option<i64>>(2)?.unwrap_or_default()),
            })
        },
    )
}

/// Without credentials an account cannot be watched: its tokens are posted, so that its devices come back and log in. It need
/// not be on disk: as long as they have not, every start finds the same.
fn call_back(accounts: &[AccountRecord], unannounced: &mut Vec<Unannounced>, now: UnixTime) {
    let waiting = accounts.iter().filter(|record| record.is_waiting());
    let tokens: HashSet<_> =
        waiting.flat_map(|record| &record.tokens).map(|seen| seen.token.clone()).collect();
    let newest = unannounced.iter().map(|found| found.generation.0).max().unwrap_or_default();
    let generation = Generation(newest.saturating_add(1));
    unannounced.retain(|found| !tokens.contains(&found.token));
    unannounced.extend(tokens.into_iter().map(|token| Unannounced {
        token,
        generation,
        since: now,
    }));
}

/// The running time in the state. Rarely stored values may be older than those stored with a token or a mailbox: a machine alone
/// takes them from there. Of several nodes one or another stores it, and there may be too many tokens to look at all.
pub(super) fn served(sql: Sql<'_>) -> sql::Result<Uptime> {
    let statement = match sql {
        Sql::Sqlite(_) => {
            "SELECT coalesce(max(seconds), 0) FROM (
                 SELECT seconds FROM served UNION ALL SELECT max(last_served) FROM tokens UNION ALL
                 SELECT max(last_idled) FROM idled) counts"
        }
        Sql::Postgres(_) => "SELECT coalesce(max(seconds), 0) FROM served",
    };
    sql.one(statement, values![], |row| row.get(0).map(Uptime))
}

/// Erases all sealed credentials. Returns true if there were any.
pub(super) fn erase_credentials(sql: Sql<'_>) -> sql::Result<bool> {
    let erased = sql.execute(
        "UPDATE accounts SET credentials = ?1 WHERE length(credentials) > 0",
        values![[0_u8; 0]],
    )?;
    Ok(erased > 0)
}
