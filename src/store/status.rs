//! The state for `status` and other reports, in SQL.

use std::collections::HashMap;

use super::habit::habit_in;
use super::mailboxes::position_in;
use super::operations::{Operation, Result, RowId, account_in, token_in};
use super::quarantine::quarantine_in;
use super::sql::{self, Row, Value, values};
use super::{AccountStatus, Position, TokenStatus, UnixTime};
use crate::account::AccountId;
use crate::mailbox_name::MailboxName;

/// Tokens by the row of their account.
type Tokens = HashMap<RowId, Vec<TokenStatus>>;
/// Mailboxes by the row of their account.
type Mailboxes = HashMap<RowId, Vec<(MailboxName, Position)>>;

/// The columns of a token's status.
macro_rules! tokens {
    ($condition:expr) => {
        concat!(
            "SELECT account, token, first_seen, last_seen, pending IS NOT NULL, accepted, given_up, given_up_reason,
                 gone, gone_first, gone_until, fetched_plain, left_plain, left_senders
             FROM tokens ",
            $condition,
            " ORDER BY id"
        )
    };
}

/// The columns of a mailbox's position.
macro_rules! mailboxes {
    ($condition:expr) => {
        concat!(
            "SELECT account, name, uid_validity, uid_next FROM mailboxes ",
            $condition,
            " ORDER BY account, name"
        )
    };
}

/// Rows of accounts, whose numbers are the parameter, in PostgreSQL.
macro_rules! of_accounts {
    () => {
        "WHERE account = ANY (CAST(string_to_array(CAST(?1 AS TEXT), ',') AS BIGINT[]))"
    };
}

impl Operation<'_> {
    pub(super) fn status(&mut self) -> Result<Vec<AccountStatus>> {
        let mut tokens = self.tokens_of(tokens!(""), values![])?;
        let mut mailboxes = self.mailboxes_of(mailboxes!(""), values![])?;
        Ok(self.sql.rows(
            "SELECT name, upstream, id, length(credentials) > 0 FROM accounts ORDER BY name, upstream",
            values![],
            |row| account_status(row, &mut tokens, &mut mailboxes),
        )?)
    }

    /// These accounts, those that are there, by name. PostgreSQL only.
    pub(super) fn status_of(&mut self, accounts: &[AccountId]) -> Result<Vec<AccountStatus>> {
        let names = accounts.iter().map(|account| [&*account.user, &*account.upstream]);
        // PostgreSQL has no NUL in a text.
        let names: Vec<_> = names.filter(|names| !names.concat().contains('\0')).collect();
        let names = serde_json::json!(names).to_string();
        let wanted = "SELECT a.name, a.upstream, a.id, length(a.credentials) > 0 FROM accounts a
             JOIN json_array_elements(CAST(CAST(?1 AS TEXT) AS JSON)) names
                 ON a.name = names->>0 AND a.upstream = names->>1
             ORDER BY a.name, a.upstream";
        let ids: Vec<RowId> = self.sql.rows(wanted, values![names], |row| row.get(2))?;
        let ids: Vec<String> = ids.iter().map(RowId::to_string).collect();
        let ids = ids.join(",");
        let mut tokens = self.tokens_of(tokens!(of_accounts!()), values![ids])?;
        let mut mailboxes = self.mailboxes_of(mailboxes!(of_accounts!()), values![ids])?;
        let found = self
            .sql
            .rows(wanted, values![names], |row| account_status(row, &mut tokens, &mut mailboxes))?;
        Ok(found)
    }

    fn tokens_of(&self, statement: &'static str, values: &[Value<'_>]) -> Result<Tokens> {
        let mut found = Tokens::new();
        self.sql.each(statement, values, |row| {
            let given_up: Option<i64> = row.get(6)?;
            let reason: Option<String> = row.get(7)?;
            let token = TokenStatus {
                fingerprint: token_in(row, 1)?.fingerprint(),
                first_seen: UnixTime(row.get(2)?),
                last_seen: UnixTime(row.get(3)?),
                habit: habit_in(row, 11)?,
                pending: row.get(4)?,
                accepted: row.get::<Option<i64>>(5)?.map(UnixTime),
                given_up: given_up.map(|at| (UnixTime(at), reason.unwrap_or_default())),
                quarantine: quarantine_in(row, 8)?,
            };
            found.entry(row.get(0)?).or_default().push(token);
            Ok(())
        })?;
        Ok(found)
    }

    fn mailboxes_of(&self, statement: &'static str, values: &[Value<'_>]) -> Result<Mailboxes> {
        let mut found = Mailboxes::new();
        self.sql.each(statement, values, |row| {
            let mailbox = (row.get::<String>(1)?.into(), position_in(row, 2)?);
            found.entry(row.get(0)?).or_default().push(mailbox);
            Ok(())
        })?;
        Ok(found)
    }
}

/// An account in a row of its names, its number, and the fact that it has credentials.
fn account_status(
    row: &Row<'_>,
    tokens: &mut Tokens,
    mailboxes: &mut Mailboxes,
) -> sql::Result<AccountStatus> {
    let id: RowId = row.get(2)?;
    Ok(AccountStatus {
        account: account_in(row, 0)?,
        tokens: tokens.remove(&id).unwrap_or_default(),
        mailboxes: mailboxes.remove(&id).unwrap_or_default(),
        has_credentials: row.get(3)?,
        unusable: None,
        refused: false,
    })
}
