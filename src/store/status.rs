//! The state for `status` and other reports, in SQL.

use std::collections::HashMap;

use super::habit::habit_in;
use super::mailboxes::position_in;
use super::operations::{Operation, Result, RowId, account_in, token_in};
use super::quarantine::quarantine_in;
use super::sql::values;
use super::{AccountStatus, Position, TokenStatus, UnixTime};
use crate::mailbox_name::MailboxName;

impl Operation<'_> {
    pub(super) fn status(&mut self) -> Result<Vec<AccountStatus>> {
        let (mut tokens, mut mailboxes) = (self.tokens_by_account()?, self.positions_by_account()?);
        Ok(self.sql.rows(
            "SELECT name, upstream, id, length(credentials) > 0 FROM accounts ORDER BY name, upstream",
            values![],
            |row| {
                let id: RowId = row.get(2)?;
                Ok(AccountStatus {
                    account: account_in(row, 0)?,
                    tokens: tokens.remove(&id).unwrap_or_default(),
                    mailboxes: mailboxes.remove(&id).unwrap_or_default(),
                    has_credentials: row.get(3)?,
                    unusable: None,
                    refused: false,
                })
            },
        )?)
    }

    fn tokens_by_account(&self) -> Result<HashMap<RowId, Vec<TokenStatus>>> {
        let mut found: HashMap<RowId, Vec<_>> = HashMap::new();
        self.sql.each(
            "SELECT account, token, first_seen, last_seen, pending IS NOT NULL, accepted, given_up, given_up_reason,
                 gone, gone_first, gone_until, fetched_plain, left_plain, left_senders
             FROM tokens ORDER BY id",
            values![],
            |row| {
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
            },
        )?;
        Ok(found)
    }

    fn positions_by_account(&self) -> Result<HashMap<RowId, Vec<(MailboxName, Position)>>> {
        let mut found: HashMap<RowId, Vec<_>> = HashMap::new();
        self.sql.each(
            "SELECT account, name, uid_validity, uid_next FROM mailboxes ORDER BY account, name",
            values![],
            |row| {
                let mailbox = (row.get::<String>(1)?.into(), position_in(row, 2)?);
                found.entry(row.get(0)?).or_default().push(mailbox);
                Ok(())
            },
        )?;
        Ok(found)
    }
}
