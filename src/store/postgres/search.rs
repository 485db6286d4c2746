//! Accounts for people, where several nodes share the state: a bounded number, however many there are.

use super::super::operations::{Operation, account_in};
use super::super::sql::{self, Sql, values};
use super::super::{AccountStatus, Store, StoreError};
use crate::account::AccountId;

/// Time limit of a search that may have to look at each account, in milliseconds.
const SEARCH_LIMIT: &str = "2000";

/// Tokens with something to announce are counted up to here.
const MOST_PENDING: usize = 10_000;

/// Accounts that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundAccounts {
    /// By name, each once.
    pub accounts: Vec<AccountId>,
    /// True if there may be more.
    pub is_cut: bool,
}

impl Store {
    /// The first accounts by name, `limit` at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn first_accounts(&self, limit: usize) -> Result<FoundAccounts, StoreError> {
        let read = move |state: &mut Operation<'_>| {
            let statement = "SELECT name, upstream FROM accounts ORDER BY name, upstream LIMIT ?1";
            let rows = state.sql.rows(statement, values![limit + 1], |row| account_in(row, 0))?;
            Ok(FoundAccounts::of(rows, limit))
        };
        self.shared()?.reader.read(read).await
    }

    /// The accounts with one of these login names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accounts_named(&self, names: Vec<String>) -> Result<Vec<AccountId>, StoreError> {
        let read = move |state: &mut Operation<'_>| Ok(named(state.sql, &names)?);
        self.shared()?.reader.read(read).await
    }

    /// Accounts whose login name or mail server contains one of `parts`, in whatever case, `limit` at most: those with such a
    /// login name first. A search that takes too long ends with what was found.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accounts_like(
        &self,
        parts: Vec<String>,
        limit: usize,
    ) -> Result<FoundAccounts, StoreError> {
        let names = parts.clone();
        let exact = self.accounts_named(names).await?;
        let read = move |state: &mut Operation<'_>| Ok(like(state.sql, &parts, limit)?);
        let mut found = match self.shared()?.reader.read(read).await {
            Ok(rows) => FoundAccounts::of(rows, limit),
            // Too many accounts to look at in the time.
            Err(_) => FoundAccounts { is_cut: true, ..FoundAccounts::default() },
        };
        found.accounts.retain(|account| !exact.contains(account));
        found.accounts.splice(0..0, exact);
        found.accounts.truncate(limit);
        Ok(found)
    }

    /// The number of tokens with something to announce, up to ten thousand.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_pending(&self) -> Result<usize, StoreError> {
        let read = |state: &mut Operation<'_>| {
            let statement = "SELECT count(*) FROM
                 (SELECT 1 FROM tokens WHERE pending IS NOT NULL LIMIT ?1) pending";
            let count = state.sql.one(statement, values![MOST_PENDING], |row| row.get::<i64>(0))?;
            Ok(usize::try_from(count).unwrap_or_default())
        };
        self.shared()?.reader.read(read).await
    }

    /// These accounts as a person is shown them, those that are there, by name. Nothing is said to be refused: that is in the
    /// memory of their owners.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status_of(
        &self,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<AccountStatus>, StoreError> {
        self.shared()?.reader.read(move |state| state.status_of(&accounts)).await
    }
}

impl FoundAccounts {
    fn of(mut accounts: Vec<AccountId>, limit: usize) -> Self {
        let is_cut = accounts.len() > limit;
        accounts.truncate(limit);
        Self { accounts, is_cut }
    }
}

/// A list of texts as one parameter. PostgreSQL has no NUL in a text, so nothing is called so.
fn list<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let texts: Vec<_> = texts.filter(|text| !text.contains('\0')).collect();
    serde_json::json!(texts).to_string()
}

fn named(sql: Sql<'_>, names: &[String]) -> sql::Result<Vec<AccountId>> {
    sql.rows(
        "SELECT name, upstream FROM accounts
         WHERE name IN (SELECT json_array_elements_text(CAST(CAST(?1 AS TEXT) AS JSON)))
         ORDER BY name, upstream",
        values![list(names.iter())],
        |row| account_in(row, 0),
    )
}

fn like(sql: Sql<'_>, parts: &[String], limit: usize) -> sql::Result<Vec<AccountId>> {
    let lower: Vec<String> = parts.iter().map(|part| part.to_lowercase()).collect();
    let limited = "SELECT set_config('statement_timeout', ?1, TRUE)";
    sql.one(limited, values![SEARCH_LIMIT], |_| Ok(()))?;
    sql.rows(
        "SELECT DISTINCT a.name, a.upstream FROM accounts a
         JOIN json_array_elements_text(CAST(CAST(?1 AS TEXT) AS JSON)) part
             ON strpos(lower(a.name COLLATE \"default\"), part) > 0 OR strpos(lower(a.upstream), part) > 0
         ORDER BY a.name, a.upstream LIMIT ?2",
        values![list(lower.iter()), limit + 1],
        |row| account_in(row, 0),
    )
}
