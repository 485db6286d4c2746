//! What can be done to the state, in SQL.

use std::sync::Arc;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::seal::Sealer;
use super::{
    AccountRecord, Change, Generation, Loaded, MAX_TOKENS, OpenError, Position, Seen, StoreError, Unannounced, UnixTime,
};
use crate::account::AccountId;
use crate::secret::{Credentials, DeviceToken};

type Result<T> = std::result::Result<T, StoreError>;

/// An account's row.
type RowId = i64;

/// One operation's view of the state, within its savepoint.
pub(super) struct Operation<'a> {
    pub(super) connection: &'a Connection,
    /// The newest generation that was given out.
    pub(super) generation: &'a mut i64,
    /// What the operation changed, in order.
    pub(super) changes: &'a mut Vec<Change>,
}

impl Operation<'_> {
    pub(super) fn register(
        &mut self,
        account: &AccountId,
        credentials: Arc<Credentials>,
        sealed: &[u8],
        token: &DeviceToken,
        now: UnixTime,
    ) -> Result<()> {
        let row: RowId = self
            .cached(
                "INSERT INTO accounts (user, upstream, credentials, created) VALUES (?, ?, ?, ?)
                 ON CONFLICT (user, upstream) DO UPDATE SET credentials = excluded.credentials RETURNING id",
            )?
            .query_row(params![account.user, account.upstream, sealed, now.0], |row| row.get(0))?;
        self.cached(
            "INSERT INTO tokens (account, hash, token, first_seen, last_seen) VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (account, hash) DO UPDATE SET last_seen = excluded.last_seen",
        )?
        .execute(params![row, hash(token).as_ref(), token.expose(), now.0])?;
        self.drop_surplus(row, token)?;
        let tokens = self.tokens(row)?;
        self.changes.push(Change::Tokens { account: account.clone(), credentials: Some(credentials), tokens });
        Ok(())
    }

    fn drop_surplus(&mut self, row: RowId, newest: &DeviceToken) -> Result<()> {
        let surplus = self
            .cached(
                "DELETE FROM tokens WHERE id IN (
                     SELECT id FROM tokens WHERE account = ? ORDER BY hash = ? DESC, last_seen DESC, id DESC
                     LIMIT -1 OFFSET ?)
                 RETURNING token",
            )?
            .query_map(params![row, hash(newest).as_ref(), i64::try_from(MAX_TOKENS).unwrap_or(i64::MAX)], |row| {
                row.get::<_, String>(0)
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        surplus.iter().filter_map(|text| DeviceToken::new(text.as_bytes()).ok()).try_for_each(|token| self.left(token))
    }

    pub(super) fn remove_token(&mut self, account: &AccountId, token: &DeviceToken) -> Result<()> {
        let Some(row) = self.row(account)? else { return Ok(()) };
        let removed = self
            .cached("DELETE FROM tokens WHERE account = ? AND hash = ?")?
            .execute(params![row, hash(token).as_ref()])?;
        if removed > 0 {
            self.left(token.clone())?;
            self.tell_or_erase(row, account)?;
        }
        Ok(())
    }

    pub(super) fn remove_account(&mut self, account: &AccountId) -> Result<()> {
        let Some(row) = self.row(account)? else { return Ok(()) };
        let tokens = self.tokens(row)?;
        self.cached("DELETE FROM tokens WHERE account = ?")?.execute([row])?;
        tokens.into_iter().try_for_each(|seen| self.left(seen.token))?;
        self.tell_or_erase(row, account)
    }

    pub(super) fn forget_token(&mut self, token: &DeviceToken) -> Result<()> {
        let accounts = self
            .cached("SELECT id, user, upstream FROM accounts WHERE id IN (SELECT account FROM tokens WHERE hash = ?)")?
            .query_map([hash(token).as_ref()], |row| Ok((row.get(0)?, account_in(row, 1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        self.cached("DELETE FROM tokens WHERE hash = ?")?.execute([hash(token).as_ref()])?;
        self.left(token.clone())?;
        accounts.iter().try_for_each(|(row, account)| self.tell_or_erase(*row, account))
    }

    pub(super) fn expire_tokens(&mut self, limit: UnixTime) -> Result<usize> {
        let expired = self
            .cached(
                "SELECT a.user, a.upstream, t.token FROM tokens t JOIN accounts a ON a.id = t.account
                 WHERE t.last_seen < ?",
            )?
            .query_map([limit.0], |row| Ok((account_in(row, 0)?, row.get::<_, String>(2)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for (account, token) in &expired {
            if let Ok(token) = DeviceToken::new(token.as_bytes()) {
                self.remove_token(account, &token)?;
            }
        }
        Ok(expired.len())
    }

    pub(super) fn credentials_changed(
        &mut self,
        account: &AccountId,
        credentials: Arc<Credentials>,
        sealed: &[u8],
    ) -> Result<()> {
        let known = self
            .cached("UPDATE accounts SET credentials = ? WHERE user = ? AND upstream = ?")?
            .execute(params![sealed, account.user, account.upstream])?;
        if known > 0 {
            self.changes.push(Change::Credentials { account: account.clone(), credentials });
        }
        Ok(())
    }

    pub(super) fn noticed(
        &mut self,
        account: &AccountId,
        mailbox: &str,
        position: Position,
        announce: bool,
        now: UnixTime,
    ) -> Result<()> {
        let Some(row) = self.row(account)? else { return Ok(()) };
        self.cached(
            "INSERT INTO mailboxes (account, name, uid_validity, uid_next) VALUES (?, ?, ?, ?)
             ON CONFLICT (account, name)
             DO UPDATE SET uid_validity = excluded.uid_validity, uid_next = excluded.uid_next",
        )?
        .execute(params![row, mailbox, position.uid_validity, position.uid_next])?;
        if announce {
            *self.generation = self.generation.saturating_add(1);
            self.cached("UPDATE tokens SET pending = ?, pending_since = ? WHERE account = ?")?.execute(params![
                *self.generation,
                now.0,
                row
            ])?;
            let tokens = self.tokens(row)?.into_iter().map(|seen| seen.token).collect();
            self.changes.push(Change::Pending { tokens, generation: generation(*self.generation) });
        }
        Ok(())
    }

    pub(super) fn positions(&mut self, account: &AccountId) -> Result<Vec<(String, Position)>> {
        let Some(row) = self.row(account)? else { return Ok(Vec::new()) };
        let positions = self
            .cached("SELECT name, uid_validity, uid_next FROM mailboxes WHERE account = ? ORDER BY name")?
            .query_map([row], |row| Ok((row.get(0)?, Position { uid_validity: row.get(1)?, uid_next: row.get(2)? })))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(positions)
    }

    pub(super) fn announced(&mut self, token: &DeviceToken, generation: Generation, now: UnixTime) -> Result<()> {
        self.cached(
            "UPDATE tokens SET accepted = ?, given_up = NULL, given_up_reason = NULL,
                 pending = CASE WHEN pending > ? THEN pending END
             WHERE hash = ?",
        )?
        .execute(params![now.0, number(generation), hash(token).as_ref()])?;
        Ok(())
    }

    pub(super) fn gave_up(
        &mut self,
        token: &DeviceToken,
        generation: Generation,
        reason: &str,
        now: UnixTime,
    ) -> Result<()> {
        self.cached(
            "UPDATE tokens SET given_up = ?, given_up_reason = ?, pending = CASE WHEN pending > ? THEN pending END
             WHERE hash = ?",
        )?
        .execute(params![now.0, reason, number(generation), hash(token).as_ref()])?;
        Ok(())
    }

    /// After tokens of an account were removed: says what is left, or erases the account if nothing is.
    fn tell_or_erase(&mut self, row: RowId, account: &AccountId) -> Result<()> {
        let tokens = self.tokens(row)?;
        if tokens.is_empty() {
            self.cached("DELETE FROM accounts WHERE id = ?")?.execute([row])?;
        }
        self.changes.push(Change::Tokens { account: account.clone(), credentials: None, tokens });
        Ok(())
    }

    /// After a token was removed from an account: says so if no other account has it.
    fn left(&mut self, token: DeviceToken) -> Result<()> {
        let elsewhere: bool = self
            .cached("SELECT EXISTS (SELECT 1 FROM tokens WHERE hash = ?)")?
            .query_row([hash(&token).as_ref()], |row| row.get(0))?;
        if !elsewhere {
            self.changes.push(Change::Gone { token });
        }
        Ok(())
    }

    fn row(&self, account: &AccountId) -> Result<Option<RowId>> {
        let row = self
            .cached("SELECT id FROM accounts WHERE user = ? AND upstream = ?")?
            .query_row(params![account.user, account.upstream], |row| row.get(0))
            .optional()?;
        Ok(row)
    }

    fn tokens(&self, row: RowId) -> Result<Vec<Seen>> {
        Ok(tokens_of(self.connection, row)?)
    }

    fn cached(&self, sql: &str) -> Result<CachedStatement<'_>> {
        Ok(self.connection.prepare_cached(sql)?)
    }
}

/// Reads everything, once, at the start.
pub(super) fn load(connection: &Connection, sealer: &Sealer) -> std::result::Result<Loaded, OpenError> {
    let rows = connection
        .prepare("SELECT user, upstream, id, credentials FROM accounts ORDER BY id")?
        .query_map([], |row| Ok((account_in(row, 0)?, row.get::<_, RowId>(2)?, row.get::<_, Vec<u8>>(3)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut accounts = Vec::with_capacity(rows.len());
    for (account, row, sealed) in rows {
        let credentials = sealer.unseal(&account, &sealed).map(Arc::new);
        if let Err(error) = &credentials {
            tracing::warn!("{account:?} is not watched until its client logs in: {error}");
        }
        let tokens = tokens_of(connection, row)?;
        accounts.push(AccountRecord { account, credentials: credentials.ok(), tokens });
    }
    Ok(Loaded { accounts, unannounced: unannounced(connection)? })
}

fn unannounced(connection: &Connection) -> rusqlite::Result<Vec<Unannounced>> {
    connection
        .prepare(
            "SELECT token, max(pending), max(pending_since) FROM tokens WHERE pending IS NOT NULL
             GROUP BY hash ORDER BY min(pending)",
        )?
        .query_map([], |row| {
            Ok(Unannounced {
                token: token_in(row, 0)?,
                generation: generation(row.get(1)?),
                since: UnixTime(row.get::<_, Option<i64>>(2)?.unwrap_or_default()),
            })
        })?
        .collect()
}

fn tokens_of(connection: &Connection, row: RowId) -> rusqlite::Result<Vec<Seen>> {
    connection
        .prepare_cached("SELECT token, last_seen FROM tokens WHERE account = ? ORDER BY id")?
        .query_map([row], |row| Ok(Seen { token: token_in(row, 0)?, last_seen: UnixTime(row.get(1)?) }))?
        .collect()
}

fn account_in(row: &Row<'_>, first: usize) -> rusqlite::Result<AccountId> {
    Ok(AccountId { user: row.get::<_, Arc<str>>(first)?, upstream: row.get::<_, Arc<str>>(first.saturating_add(1))? })
}

fn token_in(row: &Row<'_>, index: usize) -> rusqlite::Result<DeviceToken> {
    let text = row.get_ref(index)?.as_bytes()?;
    DeviceToken::new(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error)))
}

fn generation(value: i64) -> Generation {
    Generation(u64::try_from(value).unwrap_or_default())
}

fn number(generation: Generation) -> i64 {
    i64::try_from(generation.0).unwrap_or(i64::MAX)
}

fn hash(token: &DeviceToken) -> Digest {
    digest(&SHA256, token.expose().as_bytes())
}
