//! SQL in a connection to PostgreSQL, for threads that may block.
//!
//! A statement whose answer nobody needs yet waits for the next one, and is sent with it: they take one round trip. Answers are
//! looked at in the order of the statements, so that the first failure is the one that counts; the server refuses what follows it
//! in the transaction.

use std::cell::RefCell;
use std::error::Error;
use std::future::{Future, ready};

use bytes::BytesMut;
use futures_util::TryStreamExt;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row, Statement};

use super::waiting::{UNDO_PART, WaitingStatement, send_with};
use super::{Result, SqlError, Value};
use crate::store::postgres::Session;

/// So many statements wait at most.
const MAX_WAITING: usize = 32;

/// A connection that is in use.
pub(in crate::store) struct PostgresSql<'a> {
    pub(in crate::store) runtime: &'a Handle,
    pub(in crate::store) session: &'a Session,
    pub(in crate::store) client: &'a Client,
    /// Statements that are sent with the next one.
    waiting: RefCell<Vec<WaitingStatement>>,
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(in crate::store) enum CommitError {
    /// The database has refused one of the last statements: nothing was written.
    Undone(SqlError),
    /// It may have been committed: the answer is missing.
    Unknown(SqlError),
}

impl<'a> PostgresSql<'a> {
    pub(in crate::store) const fn new(
        runtime: &'a Handle,
        session: &'a Session,
        client: &'a Client,
    ) -> Self {
        Self { runtime, session, client, waiting: RefCell::new(Vec::new()) }
    }

    /// Executes statements without parameters.
    pub(in crate::store) fn batch(&self, text: &str) -> Result<()> {
        self.begin_before_changes()?;
        self.together(self.client.batch_execute(text)).map_err(Failure::error)
    }

    /// Executes a statement with lists as parameters, which other databases do not have.
    pub(in crate::store) fn execute_with(
        &self,
        text: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<()> {
        self.begin_before_changes()?;
        self.together(self.client.execute(text, values)).map(drop).map_err(Failure::error)
    }

    pub(super) fn execute(&self, text: &'static str, values: &[Value<'_>]) -> Result<usize> {
        let statement = self.prepared(text)?;
        self.begin_before_changes()?;
        let changed = self.together(self.client.execute_raw(&statement, values));
        Ok(usize::try_from(changed.map_err(Failure::error)?).unwrap_or(usize::MAX))
    }

    pub(super) fn rows(&self, text: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        self.begin_before_changes()?;
        self.first_rows(text, values)
    }

    /// The same, for a statement that changes nothing: it may be sent together with the beginning of the transaction.
    pub(super) fn first_rows(&self, text: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let statement = self.prepared(text)?;
        let rows = async { self.client.query_raw(&statement, values).await?.try_collect().await };
        self.together(rows).map_err(Failure::error)
    }

    /// Executes a change together with the next statement, whose failure may be that of the change.
    pub(super) fn execute_later(&self, text: &'static str, values: &[Value<'_>]) -> Result<()> {
        let statement = self.prepared(text)?;
        self.begin_before_changes()?;
        if self.waiting.borrow().len() >= MAX_WAITING {
            self.settle()?;
        }
        let values = values.iter().map(Into::into).collect();
        self.waiting.borrow_mut().push(WaitingStatement::Change { statement, values });
        Ok(())
    }

    fn prepared(&self, text: &'static str) -> Result<Statement> {
        if let Some(known) = self.session.prepared(text) {
            return Ok(known);
        }
        let statement = self.wait(self.client.prepare(&text.replace('?', "$")))?;
        self.session.keep_prepared(text, &statement);
        Ok(statement)
    }

    /// Sends the waiting statements, and then this one, and waits for all.
    fn together<T>(
        &self,
        last: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        self.send(last, 1)
    }

    /// Sends the waiting statements, and waits for all.
    fn flush(&self) -> Result<()> {
        self.send(ready(Ok(())), 0).map_err(Failure::error)
    }

    fn send<T>(
        &self,
        last: impl Future<Output = Result<T, tokio_postgres::Error>>,
        statements: usize,
    ) -> Result<T, Failure> {
        let waiting = self.waiting.take();
        self.session.sends(waiting.len().saturating_add(statements));
        let answer = self.wait(async { Ok(send_with(self.client, &waiting, last).await) });
        let (number, error) = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failed)) => failed,
            Err(error) => return Err(Failure { error, is_last: false }),
        };
        match waiting.get(number) {
            None => Err(Failure { error: error.into(), is_last: true }),
            Some(WaitingStatement::Change { .. }) => {
                Err(Failure { error: error.into(), is_last: false })
            }
            // It is not clear which transaction the others were in.
            Some(
                WaitingStatement::Begin | WaitingStatement::BeginPart | WaitingStatement::EndPart,
            ) => {
                self.session.discard();
                Err(Failure { error: SqlError::Transaction(error), is_last: false })
            }
        }
    }

    /// Waits for an answer. A connection whose answer is late is ended: later ones would be taken for it.
    fn wait<T>(
        &self,
        answer: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match self.runtime.block_on(async { timeout(self.session.limit, answer).await }) {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.session.discard();
                Err(SqlError::Late)
            }
        }
    }
}

/// Transactions.
impl PostgresSql<'_> {
    /// Begins one, together with its first statement.
    pub(in crate::store) fn begin(&self) {
        self.waiting.borrow_mut().push(WaitingStatement::Begin);
    }

    /// Begins a part that can be undone, together with its first statement.
    pub(in crate::store) fn begin_part(&self) {
        self.waiting.borrow_mut().push(WaitingStatement::BeginPart);
    }

    /// Ends a part, after its last change was answered.
    pub(in crate::store) fn end_part(&self) -> Result<()> {
        self.settle()?;
        let mut waiting = self.waiting.borrow_mut();
        match waiting.last() {
            // Nothing was done in it.
            Some(WaitingStatement::BeginPart) => _ = waiting.pop(),
            _ => waiting.push(WaitingStatement::EndPart),
        }
        Ok(())
    }

    /// Undoes the last part.
    pub(in crate::store) fn undo_part(&self) -> Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(begin) =
            waiting.iter().position(|waiting| matches!(waiting, WaitingStatement::BeginPart))
        {
            waiting.truncate(begin);
            return Ok(());
        }
        waiting.clear();
        drop(waiting);
        self.batch(UNDO_PART)
    }

    /// Undoes the transaction.
    pub(in crate::store) fn undo(&self) -> Result<()> {
        self.waiting.take();
        self.batch("ROLLBACK")
    }

    /// Commits the transaction by `text`, together with the changes that wait.
    pub(in crate::store) fn commit(&self, text: &'static str) -> Result<(), CommitError> {
        self.together(self.client.batch_execute(text)).map_err(|Failure { error, is_last }| {
            // A transaction is undone if the database has refused one of its statements.
            if is_last || !error.is_refusal() {
                CommitError::Unknown(error)
            } else {
                CommitError::Undone(error)
            }
        })
    }

    /// Sends the changes that wait, and waits for their outcome.
    fn settle(&self) -> Result<()> {
        if !self.waiting.borrow().iter().any(WaitingStatement::is_change) {
            return Ok(());
        }
        self.flush()
    }

    /// A change outside of a transaction could not be undone. So it is sent when that has begun.
    fn begin_before_changes(&self) -> Result<()> {
        let has_begun = !matches!(self.waiting.borrow().first(), Some(WaitingStatement::Begin));
        if has_begun { Ok(()) } else { self.flush() }
    }
}

/// The failure of one of several statements.
struct Failure {
    error: SqlError,
    /// True for the last one.
    is_last: bool,
}

impl Failure {
    fn error(self) -> SqlError {
        self.error
    }
}

/// A name with a NUL character, which PostgreSQL does not store.
#[derive(Debug, thiserror::Error)]
#[error("a text contains a NUL character")]
pub(super) struct NulInText;

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        match *self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) if *ty == Type::INT8 => number.to_sql(ty, out),
            Self::Integer(number) if *ty == Type::BOOL => (number != 0).to_sql(ty, out),
            Self::Integer(number) => i32::try_from(number)?.to_sql(ty, out),
            Self::Text(text) if text.contains('\0') => Err(Box::new(NulInText)),
            Self::Text(text) => text.to_sql(ty, out),
            Self::Blob(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::BOOL | Type::INT4 | Type::INT8 | Type::TEXT | Type::BYTEA)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value<'a> {
    fn from_sql(
        ty: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *ty {
            Type::BOOL => Self::Integer(bool::from_sql(ty, raw)?.into()),
            Type::INT4 => Self::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Self::Integer(i64::from_sql(ty, raw)?),
            Type::TEXT => Self::Text(<&str>::from_sql(ty, raw)?),
            _ => Self::Blob(raw),
        })
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        <Self as ToSql>::accepts(ty)
    }
}
