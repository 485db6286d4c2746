//! Loads of accounts: by slots when they are taken over, and one by one when another node has changed it or a client comes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::habit::habit_in;
use super::super::load::unseal;
use super::super::operations::{Operation, Result, RowId, account_in, token_in};
use super::super::quarantine::record_in;
use super::super::sql::{self, Row, Sql, SqlError, Value, values};
use super::super::{
    AccountRecord, Idled, Loaded, Store, StoreError, StoredToken, UnixTime, Uptime,
};
use super::posters::{poster, unannounced_in};
use crate::account::AccountId;
use crate::ownership::Slot;

/// POSTs that were accepted within these seconds are loaded with their tokens.
const RECENT: i64 = 2 * 3600;

/// The accounts of slots, whose numbers are the parameter.
macro_rules! of_slots {
    () => {
        "WHERE slot = ANY (CAST(string_to_array(CAST(?1 AS TEXT), ',') AS BIGINT[]))"
    };
}
/// One account, by its names.
macro_rules! of_names {
    () => {
        "WHERE name = ?1 AND upstream = ?2"
    };
}
/// The statements that load accounts.
macro_rules! loads {
    ($condition:expr) => {
        Statements {
            accounts: concat!(
                "SELECT name, upstream, id, credentials, called, watched FROM accounts ",
                $condition,
                " ORDER BY id"
            ),
            tokens: concat!(
                "SELECT account, token, last_seen, fetched_plain, left_plain, left_senders FROM tokens
                 WHERE account IN (SELECT id FROM accounts ",
                $condition,
                ") ORDER BY id"
            ),
            idled: concat!(
                "SELECT account, name, last_idled FROM idled WHERE account IN (SELECT id FROM accounts ",
                $condition,
                ") ORDER BY last_idled DESC, name"
            ),
            records: concat!(
                "SELECT max(token), max(accepted) IS NOT NULL, max(gone), max(gone_first), max(gone_until), max(accepted)
                 FROM tokens WHERE hash IN (SELECT t.hash FROM tokens t WHERE t.account IN (SELECT id FROM accounts ",
                $condition,
                ")) AND (accepted IS NOT NULL OR gone > 0) GROUP BY hash"
            ),
        }
    };
}

struct Statements {
    accounts: &'static str,
    tokens: &'static str,
    idled: &'static str,
    records: &'static str,
}

impl Store {
    /// The accounts of the slots, and what is known of their tokens. Nothing to announce: see [`Store::pending`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load_slots(&self, slots: &[Slot]) -> Result<Loaded, StoreError> {
        let slots = numbers(slots);
        let load =
            move |state: &mut Operation<'_>| accounts(state, &loads!(of_slots!()), values![slots]);
        self.shared()?.reader.read(load).await
    }

    /// One account, if it is there, and what is known of its tokens.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load_account(&self, account: &AccountId) -> Result<Loaded, StoreError> {
        let account = account.clone();
        let load = move |state: &mut Operation<'_>| {
            accounts(state, &loads!(of_names!()), values![account.user, account.upstream])
        };
        self.shared()?.reader.read(load).await
    }

    /// The tokens of the accounts of these slots: those of which their owner has something to announce, the longest waiting first,
    /// what may have become known of any lately, and when they were last posted. No accounts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pending(&self, slots: &[Slot]) -> Result<Loaded, StoreError> {
        let slots = numbers(slots);
        self.shared()?.reader.look(move |state| pending(state.sql, &slots)).await
    }
}

/// The slots as one parameter.
pub(super) fn numbers(slots: &[Slot]) -> String {
    let numbers: Vec<_> = slots.iter().map(|slot| slot.number().to_string()).collect();
    numbers.join(",")
}

fn accounts(
    state: &mut Operation<'_>,
    statements: &Statements,
    values: &[Value<'_>],
) -> Result<Loaded> {
    let sql = state.sql;
    let mut tokens: HashMap<RowId, Vec<StoredToken>> = HashMap::new();
    each_readable(sql, statements.tokens, values, |row| {
        let (last_seen, habit) = (UnixTime(row.get(2)?), habit_in(row, 3)?);
        let token = StoredToken { token: token_in(row, 1)?, last_seen, habit };
        tokens.entry(row.get(0)?).or_default().push(token);
        Ok(())
    })?;
    let mut idled: HashMap<RowId, Vec<Idled>> = HashMap::new();
    each_readable(sql, statements.idled, values, |row| {
        let found = Idled { name: row.get::<String>(1)?.into(), last: Uptime(row.get(2)?) };
        idled.entry(row.get(0)?).or_default().push(found);
        Ok(())
    })?;
    // Accounts of one mail server share its name.
    let mut upstreams: HashSet<Arc<str>> = HashSet::new();
    let mut loaded = Loaded::default();
    each_readable(sql, statements.accounts, values, |row| {
        let (mut account, id) = (account_in(row, 0)?, row.get::<RowId>(2)?);
        match upstreams.get(&account.upstream) {
            Some(known) => account.upstream = Arc::clone(known),
            None => _ = upstreams.insert(Arc::clone(&account.upstream)),
        }
        let sealed: Vec<u8> = row.get(3)?;
        let credentials = state.sealer.and_then(|sealer| unseal(sealer, &account, &sealed));
        // Each has a token, unless that cannot be read.
        let Some(mut tokens) = tokens.remove(&id) else { return Ok(()) };
        tokens.shrink_to_fit();
        loaded.accounts.push(AccountRecord {
            account,
            credentials,
            tokens,
            idled: idled.remove(&id).unwrap_or_default(),
            called: row.get::<Option<i64>>(4)?.map(UnixTime),
            is_watched: row.get(5)?,
        });
        Ok(())
    })?;
    each_readable(sql, statements.records, values, |row| add_record(row, 0, &mut loaded))?;
    Ok(loaded)
}

/// Reads the rows of a result. One that cannot be read is left out: it must not keep the others from being watched and posted.
fn each_readable(
    sql: Sql<'_>,
    statement: &'static str,
    values: &[Value<'_>],
    mut read: impl FnMut(&Row<'_>) -> sql::Result<()>,
) -> sql::Result<()> {
    let mut left_out = 0_usize;
    sql.each(statement, values, |row| match read(row) {
        Err(SqlError::Unexpected { .. }) => {
            left_out += 1;
            Ok(())
        }
        read => read,
    })?;
    if left_out > 0 {
        tracing::warn!(
            rows = left_out,
            "rows of accounts or tokens in the database cannot be read, and are left out: deltapush has not written them so"
        );
    }
    Ok(())
}

/// Begins with the accounts of the slots: however much other nodes have to announce, it takes time by the number of these.
fn pending(sql: Sql<'_>, slots: &str) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    each_readable(
        sql,
        concat!(
            "SELECT t.token, CASE WHEN t.pending IS NOT NULL AND ",
            poster!(),
            " = ANY (CAST(string_to_array(CAST(?1 AS TEXT), ',') AS BIGINT[])) THEN t.pending END, t.since,
                 t.token, t.accepted IS NOT NULL, t.gone, t.gone_first, t.gone_until, t.accepted
             FROM (SELECT hash, max(token) AS token, max(pending) AS pending, min(pending) AS first, max(pending_since) AS since,
                     max(accepted) AS accepted, max(gone) AS gone, max(gone_first) AS gone_first, max(gone_until) AS gone_until
                 FROM tokens WHERE hash IN (SELECT o.hash FROM tokens o WHERE o.account IN (SELECT id FROM accounts ",
            of_slots!(),
            ")) GROUP BY hash) t
             WHERE t.pending IS NOT NULL OR t.accepted > ?2 OR t.gone > 0 ORDER BY t.first, t.token"
        ),
        values![slots, recent().0],
        |row| {
            if row.get::<Option<i64>>(1)?.is_some() {
                loaded.unannounced.push(unannounced_in(row)?);
            }
            add_record(row, 3, &mut loaded)
        },
    )?;
    Ok(loaded)
}

/// POSTs that were accepted after this time are loaded with their tokens.
fn recent() -> UnixTime {
    UnixTime(UnixTime::now().0.saturating_sub(RECENT))
}

/// Adds what is known of a token, and when it was last posted, from its columns.
pub(super) fn add_record(row: &Row<'_>, first: usize, loaded: &mut Loaded) -> sql::Result<()> {
    let token = token_in(row, first)?;
    let accepted = row.get::<Option<i64>>(first + 5)?.map(UnixTime);
    if let Some(at) = accepted.filter(|at| *at > recent()) {
        loaded.accepted.push((token.clone(), at));
    }
    loaded.tokens.push((token, record_in(row, first + 1)?));
    Ok(())
}
