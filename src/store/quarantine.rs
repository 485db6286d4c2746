//! Tokens that the notification server says are gone, and the accounts that are erased because of them, in SQL.

use super::operations::{Operation, Result, RowId, StateChange, account_in, hash, token_in};
use super::sql::{self, Row, Sql, values};
use super::{Change, DualTime, Erased, MAX_ERASED, QuarantineRecord, TokenRecord, UnixTime};
use crate::account::AccountId;
use crate::secret::DeviceToken;

/// A token is removed after so many answers,
const ANSWERS: u32 = 3;
/// over so many seconds of running time.
const DAY: i64 = 24 * 3600;
/// A token that a client hands over again may be posted so many seconds after the last answer.
const HANDED_OVER_PAUSE: i64 = 600;
/// A token is taken for replaced by another one after so many answers.
const REPLACED_ANSWERS: u32 = 2;
/// An accepted POST of another account is looked for among this many of the newest tokens, and as many behind the token itself.
/// Usually there is one among the first; if none was accepted, a search among all would be long, at each answer.
const LOOKED_AT: usize = 1000;
/// Erased accounts are remembered for so many seconds.
const MEMORY: i64 = 30 * DAY;

/// The notification server says for the `answers`th time that the token is gone: it is not posted before `until`. It is
/// removed from all accounts if the server said so often enough, for a day, and accepted a POST of another account since the
/// last time. Returns whether it was removed.
#[must_use]
pub fn quarantined(
    token: &DeviceToken,
    answers: u32,
    until: UnixTime,
    now: DualTime,
) -> impl StateChange<bool> + use<> {
    let token = token.clone();
    move |state: &mut Operation<'_>| {
        if !state.fence_token(&token)? {
            return Ok(false);
        }
        let key = hash(&token);
        if answers >= ANSWERS && state.is_over(&token, now)? {
            let reason = "the notification server said for at least a day that the app's token is gone (410)";
            state.forget_token(&token, reason, now.wall)?;
            return Ok(true);
        }
        state.sql.execute(
            "UPDATE tokens SET gone = ?2, gone_first = coalesce(gone_first, ?3), gone_last = ?3, gone_until = ?4,
                 gone_served = coalesce(gone_served, ?5)
             WHERE hash = ?1",
            values![key, answers, now.wall.0, until.0, now.served.0],
        )?;
        state.publish_token(&token)?;
        Ok(false)
    }
}

impl Operation<'_> {
    /// Reports if the token was in quarantine for a day, and a POST of another account was accepted since the last answer.
    fn is_over(&self, token: &DeviceToken, now: DualTime) -> Result<bool> {
        Ok(self.sql.one(
            "SELECT EXISTS (
                 SELECT 1 FROM tokens WHERE hash = ?1 AND ?2 - gone_served >= ?3 AND EXISTS (
                     SELECT 1 FROM (
                         SELECT * FROM (
                             SELECT account, accepted FROM tokens o ORDER BY o.id DESC LIMIT ?4) newest
                         UNION ALL
                         SELECT * FROM (
                             SELECT account, accepted FROM tokens o WHERE o.id > tokens.id ORDER BY o.id LIMIT ?4) next) o
                     WHERE o.accepted >= tokens.gone_last
                         AND o.account NOT IN (SELECT account FROM tokens WHERE hash = ?1)))",
            values![hash(token), now.served.0, DAY, LOOKED_AT],
            |row| row.get(0),
        )?)
    }

    /// A client has handed the token over. If it is in quarantine, the app is there: the token may be posted soon, and the day
    /// before its removal begins again.
    pub(super) fn handed_over(&mut self, token: &DeviceToken, now: DualTime) -> Result<()> {
        let changed = self.sql.execute(
            "UPDATE tokens SET gone_served = ?4, gone_until = CASE
                 WHEN gone_until <= ?2 OR gone_until <= gone_last + ?3 THEN gone_until
                 WHEN gone_last + ?3 < ?2 THEN ?2
                 ELSE gone_last + ?3 END
             WHERE hash = ?1 AND gone > 0",
            values![hash(token), now.wall.0, HANDED_OVER_PAUSE, now.served.0],
        )?;
        if changed > 0 {
            self.publish_token(token)?;
            self.poster_changes(token)?;
        }
        Ok(())
    }

    /// The account has got a token that it did not have. If exactly one of its tokens is in quarantine, was in it for more
    /// than one answer, and was not handed over since, the device has replaced that one.
    pub(super) fn replace(&mut self, row: RowId, newest: &DeviceToken) -> Result<()> {
        let replaced: Vec<(DeviceToken, bool)> = self.sql.rows(
            "SELECT token, gone >= ?1 AND last_seen < gone_first FROM tokens WHERE account = ?2 AND gone > 0",
            values![REPLACED_ANSWERS, row],
            |row| Ok((token_in(row, 0)?, row.get(1)?)),
        )?;
        if let [(token, true)] = replaced.as_slice()
            && token != newest
        {
            self.sql.execute(
                "DELETE FROM tokens WHERE account = ?1 AND hash = ?2",
                values![row, hash(token)],
            )?;
            self.left(token.clone())?;
        }
        Ok(())
    }

    /// Tells what is known of a token now.
    pub(super) fn publish_token(&mut self, token: &DeviceToken) -> Result<()> {
        let record = self.sql.one(
            "SELECT max(accepted) IS NOT NULL, coalesce(max(gone), 0), max(gone_first), max(gone_until)
             FROM tokens WHERE hash = ?1",
            values![hash(token)],
            |row| record_in(row, 0),
        )?;
        self.changes.push(Change::Token { token: token.clone(), record });
        Ok(())
    }

    /// Remembers for a while that an account was erased.
    pub(super) fn note_erased(
        &mut self,
        account: &AccountId,
        reason: &str,
        now: UnixTime,
    ) -> Result<()> {
        self.sql.execute(
            "DELETE FROM erased WHERE name = ?1 AND upstream = ?2 OR at < ?3",
            values![account.user, account.upstream, now.0.saturating_sub(MEMORY)],
        )?;
        self.sql.execute(
            "INSERT INTO erased (name, upstream, at, reason) VALUES (?1, ?2, ?3, ?4)",
            values![account.user, account.upstream, now.0, reason],
        )?;
        self.sql.execute(
            "DELETE FROM erased WHERE id NOT IN (SELECT id FROM erased ORDER BY id DESC LIMIT ?1)",
            values![MAX_ERASED],
        )?;
        Ok(())
    }

    /// The account is there again.
    pub(super) fn forget_erased(&mut self, account: &AccountId) -> Result<()> {
        self.sql.execute(
            "DELETE FROM erased WHERE name = ?1 AND upstream = ?2",
            values![account.user, account.upstream],
        )?;
        Ok(())
    }

    /// The accounts erased within the last 30 days, the latest first.
    pub(super) fn erased(&mut self, now: UnixTime) -> Result<Vec<Erased>> {
        Ok(self.sql.rows(
            "SELECT name, upstream, at, reason FROM erased WHERE at >= ?1 ORDER BY id DESC",
            values![now.0.saturating_sub(MEMORY)],
            |row| {
                let (at, reason) = (UnixTime(row.get(2)?), row.get(3)?);
                Ok(Erased { account: account_in(row, 0)?, at, reason })
            },
        )?)
    }
}

/// All tokens of which something is known.
pub(super) fn token_records(sql: Sql<'_>) -> sql::Result<Vec<(DeviceToken, TokenRecord)>> {
    sql.rows(
        "SELECT max(token), max(accepted) IS NOT NULL, max(gone), max(gone_first), max(gone_until) FROM tokens
         WHERE accepted IS NOT NULL OR gone > 0 GROUP BY hash",
        values![],
        |row| Ok((token_in(row, 0)?, record_in(row, 1)?)),
    )
}

pub(super) fn record_in(row: &Row<'_>, first: usize) -> sql::Result<TokenRecord> {
    Ok(TokenRecord { accepted: row.get(first)?, quarantine: quarantine_in(row, first + 1)? })
}

/// From the columns `gone`, `gone_first` and `gone_until`.
pub(super) fn quarantine_in(row: &Row<'_>, first: usize) -> sql::Result<Option<QuarantineRecord>> {
    let answers: u32 = row.get(first)?;
    let time = |column| {
        row.get::<Option<i64>>(column).map(|seconds| UnixTime(seconds.unwrap_or_default()))
    };
    let (since, until) = (time(first + 1)?, time(first + 2)?);
    Ok((answers > 0).then_some(QuarantineRecord { answers, since, until }))
}
