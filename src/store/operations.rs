//! Operations on accounts, their credentials and their tokens, in SQL.

use std::sync::Arc;

use super::habit::habit_in;
use super::postgres::{NodeWrites, StoredEvent};
use super::seal::Sealer;
use super::sql::{self, Row, Sql, SqlError, Value, no_limit, values};
use super::{
    Change, DualTime, Generation, MAX_TOKENS, StoreError, StoredToken, TokenRecord, UnixTime,
};
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::ownership::Slot;
use crate::secret::DeviceToken;
use aws_lc_rs::digest::{Digest, SHA256, digest};

pub(super) type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An account's row.
pub(super) type RowId = i64;

/// One change of the state, as its whole definition: what it writes, and what it tells the copy in memory. It is written within
/// a savepoint of its own: if it fails, nothing has changed.
///
/// It may run again: databases that several nodes share undo a transaction that collides with another.
pub trait StateChange<T>:
    FnMut(&mut Operation<'_>) -> Result<T, StoreError> + Send + 'static
{
}

impl<T, F> StateChange<T> for F where
    F: FnMut(&mut Operation<'_>) -> Result<T, StoreError> + Send + 'static
{
}

/// One operation's view of the state, within its savepoint.
pub struct Operation<'a> {
    pub(super) sql: Sql<'a>,
    /// None if credentials are in memory only.
    pub(super) sealer: Option<&'a Sealer>,
    /// The newest generation that was given out.
    pub(super) generation: &'a mut i64,
    /// The changes of the operation, in order.
    pub(super) changes: &'a mut Vec<Change>,
    /// This node, where several share the state.
    pub(super) node: Option<NodeWrites<'a>>,
}

/// A change of what belongs to an account, in the account's row. Does nothing for an account that is not known.
pub(super) fn of_known<T, C>(account: &AccountId, mut change: C) -> impl StateChange<T> + use<T, C>
where
    T: Default + 'static,
    C: FnMut(&mut Operation<'_>, RowId, &AccountId) -> Result<T> + Send + 'static,
{
    let account = account.clone();
    move |state: &mut Operation<'_>| match state.row(&account)? {
        Some(row) => change(state, row, &account),
        None => Ok(T::default()),
    }
}

/// Takes a token of an account over, with the credentials of the session that handed it over, if any are kept. Both may be
/// known. A new account `is_watched` from now on, or is not.
#[must_use]
pub fn register(
    account: &AccountId,
    credentials: Option<Arc<Credentials>>,
    token: &DeviceToken,
    is_watched: bool,
    now: DualTime,
) -> impl StateChange<()> + use<> {
    let (account, token) = (account.clone(), token.clone());
    move |state: &mut Operation<'_>| {
        let sealed = state.seal(&account, credentials.as_deref())?;
        let row = state.insert_account(&account, &sealed, is_watched, now)?;
        state.forget_erased(&account)?;
        let is_new = !state.has_token(row, &token)?;
        state.sql.execute(
            "INSERT INTO tokens (account, hash, token, first_seen, last_seen, last_served) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
             ON CONFLICT (account, hash)
             DO UPDATE SET last_seen = excluded.last_seen, last_served = excluded.last_served",
            values![row, hash(&token), token.expose(), now.wall.0, now.served.0],
        )?;
        state.handed_over(&token, now)?;
        if is_new {
            state.token_is_added(row, &token)?;
            state.replace(row, &token)?;
        }
        state.drop_surplus(row, &token)?;
        let tokens = state.tokens(row)?;
        state.tell(StoredEvent::Account(account.clone()))?;
        let (account, credentials) = (account.clone(), credentials.clone());
        state.changes.push(Change::Tokens { account, credentials, tokens });
        Ok(())
    }
}

/// Removes one token of an account, which erases the account if it was the last one.
#[must_use]
pub fn remove_token(account: &AccountId, token: &DeviceToken) -> impl StateChange<()> + use<> {
    let token = token.clone();
    of_known(account, move |state, row, account| state.remove_token(row, account, &token))
}

/// Removes an account with its tokens, credentials and positions.
#[must_use]
pub fn remove_account(account: &AccountId) -> impl StateChange<()> + use<> {
    let account = account.clone();
    move |state: &mut Operation<'_>| {
        let Some(row) = state.row(&account)? else {
            // The answer to an earlier attempt may have been lost: the copy in memory goes, too.
            let tokens = Vec::new();
            let account = account.clone();
            state.changes.push(Change::Tokens { account, credentials: None, tokens });
            return Ok(());
        };
        state.lock_account(row)?;
        let tokens = state.tokens(row)?;
        state.sql.execute("DELETE FROM tokens WHERE account = ?1", values![row])?;
        tokens.into_iter().try_for_each(|seen| state.left(seen.token))?;
        state.publish_or_erase(row, &account)
    }
}

/// Replaces the credentials of an account. Does nothing for an account that is not known.
#[must_use]
pub fn credentials_changed(
    account: &AccountId,
    credentials: Arc<Credentials>,
) -> impl StateChange<()> + use<> {
    let account = account.clone();
    move |state: &mut Operation<'_>| {
        let sealed = state.seal(&account, Some(&credentials))?;
        let known = state.sql.execute(
            "UPDATE accounts SET credentials = ?1 WHERE name = ?2 AND upstream = ?3",
            values![sealed, account.user, account.upstream],
        )?;
        if known > 0 {
            state.tell(StoredEvent::Account(account.clone()))?;
            let (account, credentials) = (account.clone(), Arc::clone(&credentials));
            state.changes.push(Change::Credentials { account, credentials });
        }
        Ok(())
    }
}

/// Assignments for a token of which a POST was accepted, at the time `?1`.
macro_rules! is_good {
    () => {
        "accepted = ?1, given_up = NULL, given_up_reason = NULL,
         gone = 0, gone_first = NULL, gone_last = NULL, gone_until = NULL, gone_served = NULL"
    };
}

/// A POST of the token that an operator asked for has been accepted, by whichever node: the token is good. News that it has
/// to announce waits on.
#[must_use]
pub fn proved(token: &DeviceToken, now: UnixTime) -> impl StateChange<()> + use<> {
    let token = token.clone();
    move |state: &mut Operation<'_>| {
        let known = state.sql.execute(
            concat!("UPDATE tokens SET ", is_good!(), " WHERE hash = ?2"),
            values![now.0, hash(&token)],
        )?;
        if known > 0 {
            state.publish_token(&token)?;
            state.poster_changes(&token)?;
        }
        Ok(())
    }
}

/// A POST of the token that was made for `generation` has been accepted: unless something newer came meanwhile, the
/// token has nothing more to announce.
#[must_use]
pub fn announced(
    token: &DeviceToken,
    generation: Generation,
    now: UnixTime,
) -> impl StateChange<()> + use<> {
    let token = token.clone();
    move |state: &mut Operation<'_>| {
        if !state.fence_token(&token)? {
            return Ok(());
        }
        let known = state.sql.execute_later(
            concat!(
                "UPDATE tokens SET ",
                is_good!(),
                ", pending = CASE WHEN pending > ?2 THEN pending END WHERE hash = ?3"
            ),
            values![now.0, number(generation), hash(&token)],
        )?;
        if known != Some(0) {
            let record = TokenRecord { accepted: true, quarantine: None };
            state.changes.push(Change::Token { token: token.clone(), record });
        }
        Ok(())
    }
}

/// Announcements of the token up to `generation` were given up, for a reason that is stored.
#[must_use]
pub fn gave_up(
    token: &DeviceToken,
    generation: Generation,
    reason: &str,
    now: UnixTime,
) -> impl StateChange<()> + use<> {
    let (token, reason) = (token.clone(), reason.to_owned());
    move |state: &mut Operation<'_>| {
        if !state.fence_token(&token)? {
            return Ok(());
        }
        state.sql.execute_later(
            "UPDATE tokens SET given_up = ?1, given_up_reason = ?2, pending = CASE WHEN pending > ?3 THEN pending END
             WHERE hash = ?4",
            values![now.0, reason, number(generation), hash(&token)],
        )?;
        Ok(())
    }
}

impl Operation<'_> {
    fn insert_account(
        &mut self,
        account: &AccountId,
        sealed: &[u8],
        is_watched: bool,
        now: DualTime,
    ) -> Result<RowId> {
        let AccountId { user, upstream } = account;
        let created = now.wall.0;
        Ok(match self.sql {
            Sql::Sqlite(_) => self.sql.one(
                "INSERT INTO accounts (name, upstream, credentials, created, watched) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (name, upstream) DO UPDATE SET credentials = excluded.credentials RETURNING id",
                values![user, upstream, sealed, created, is_watched],
                |row| row.get(0),
            )?,
            Sql::Postgres(_) => self.sql.one(
                "INSERT INTO accounts (name, upstream, credentials, created, watched, slot) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (name, upstream) DO UPDATE SET credentials = excluded.credentials RETURNING id",
                values![user, upstream, sealed, created, is_watched, i64::from(Slot::of(account).number())],
                |row| row.get(0),
            )?,
        })
    }

    fn has_token(&self, row: RowId, token: &DeviceToken) -> Result<bool> {
        Ok(self.sql.one(
            "SELECT EXISTS (SELECT 1 FROM tokens WHERE account = ?1 AND hash = ?2)",
            values![row, hash(token)],
            |row| row.get(0),
        )?)
    }

    fn drop_surplus(&mut self, row: RowId, newest: &DeviceToken) -> Result<()> {
        let surplus = self.sql.rows(
            concat!(
                "DELETE FROM tokens WHERE id IN (
                     SELECT id FROM tokens WHERE account = ?1 ORDER BY hash = ?2 DESC, last_served DESC, id DESC
                     LIMIT ",
                no_limit!(),
                " OFFSET ?3)
                 RETURNING token"
            ),
            values![row, hash(newest), MAX_TOKENS],
            |row| token_in(row, 0),
        )?;
        surplus.into_iter().try_for_each(|token| self.left(token))
    }

    pub(super) fn remove_token(
        &mut self,
        row: RowId,
        account: &AccountId,
        token: &DeviceToken,
    ) -> Result<()> {
        self.lock_account(row)?;
        let removed = self.sql.execute(
            "DELETE FROM tokens WHERE account = ?1 AND hash = ?2",
            values![row, hash(token)],
        )?;
        if removed > 0 {
            self.left(token.clone())?;
            self.publish_or_erase(row, account)?;
        }
        Ok(())
    }

    /// Removes the token from all accounts. Those that have no other are erased, for this reason.
    pub(super) fn forget_token(
        &mut self,
        token: &DeviceToken,
        reason: &str,
        now: UnixTime,
    ) -> Result<()> {
        let accounts: Vec<(RowId, AccountId)> = self.sql.rows(
            "SELECT id, name, upstream FROM accounts WHERE id IN (SELECT account FROM tokens WHERE hash = ?1)",
            values![hash(token)],
            |row| Ok((row.get(0)?, account_in(row, 1)?)),
        )?;
        accounts.iter().try_for_each(|(row, _)| self.lock_account(*row))?;
        self.sql.execute("DELETE FROM tokens WHERE hash = ?1", values![hash(token)])?;
        self.left(token.clone())?;
        accounts.iter().try_for_each(|(row, account)| {
            self.publish_or_erase_because(*row, account, reason, now)
        })
    }

    /// After tokens of an account were removed: says what is left, or erases the account if nothing is.
    fn publish_or_erase(&mut self, row: RowId, account: &AccountId) -> Result<()> {
        let tokens = self.tokens(row)?;
        if tokens.is_empty() {
            self.sql.execute("DELETE FROM accounts WHERE id = ?1", values![row])?;
        }
        self.tell(StoredEvent::Account(account.clone()))?;
        self.changes.push(Change::Tokens { account: account.clone(), credentials: None, tokens });
        Ok(())
    }

    /// The same, where deltapush erases by itself: the reason is kept for a while.
    fn publish_or_erase_because(
        &mut self,
        row: RowId,
        account: &AccountId,
        reason: &str,
        now: UnixTime,
    ) -> Result<()> {
        self.publish_or_erase(row, account)?;
        if self.row(account)?.is_none() {
            self.note_erased(account, reason, now)?;
        }
        Ok(())
    }

    /// After a token was removed from an account: says so if no other account has it. If one has, another node may have to post it.
    pub(super) fn left(&mut self, token: DeviceToken) -> Result<()> {
        let elsewhere: bool = self.sql.one(
            "SELECT EXISTS (SELECT 1 FROM tokens WHERE hash = ?1)",
            values![hash(&token)],
            |row| row.get(0),
        )?;
        if elsewhere {
            return self.poster_changes(&token);
        }
        self.changes.push(Change::Gone { token });
        Ok(())
    }

    /// The bytes of credentials for the disk: none, if they are to be in memory only.
    fn seal(&self, account: &AccountId, credentials: Option<&Credentials>) -> Result<Vec<u8>> {
        let (Some(sealer), Some(credentials)) = (self.sealer, credentials) else {
            return Ok(Vec::new());
        };
        Ok(sealer.seal(account, credentials)?)
    }

    pub(super) fn row(&self, account: &AccountId) -> Result<Option<RowId>> {
        Ok(self.sql.optional(
            "SELECT id FROM accounts WHERE name = ?1 AND upstream = ?2",
            values![account.user, account.upstream],
            |row| row.get(0),
        )?)
    }

    pub(super) fn tokens(&self, row: RowId) -> Result<Vec<StoredToken>> {
        Ok(tokens_of(self.sql, row)?)
    }
}

pub(super) fn tokens_of(sql: Sql<'_>, row: RowId) -> sql::Result<Vec<StoredToken>> {
    let mut tokens = sql.rows(
        "SELECT token, last_seen, fetched_plain, left_plain, left_senders FROM tokens WHERE account = ?1 ORDER BY id",
        values![row],
        |row| Ok(StoredToken { token: token_in(row, 0)?, last_seen: UnixTime(row.get(1)?), habit: habit_in(row, 2)? }),
    )?;
    // Most accounts have one, for which the room of four was taken.
    tokens.shrink_to_fit();
    Ok(tokens)
}

pub(super) fn account_in(row: &Row<'_>, first: usize) -> sql::Result<AccountId> {
    Ok(AccountId { user: row.get(first)?, upstream: row.get(first + 1)? })
}

pub(super) fn token_in(row: &Row<'_>, column: usize) -> sql::Result<DeviceToken> {
    let unexpected = || SqlError::Unexpected { column };
    match row.value(column)? {
        Value::Text(text) => DeviceToken::new(text.as_bytes()).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}

pub(super) fn generation(value: i64) -> Generation {
    Generation(u64::try_from(value).unwrap_or_default())
}

pub(super) fn number(generation: Generation) -> i64 {
    i64::try_from(generation.0).unwrap_or(i64::MAX)
}

pub(super) fn hash(token: &DeviceToken) -> Digest {
    digest(&SHA256, token.expose().as_bytes())
}
