//! SQL in a connection to PostgreSQL, for threads that may block.

use std::error::Error;
use std::future::Future;
use std::sync::PoisonError;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row, Statement};

use super::{Result, SqlError, Value};
use crate::store::postgres::{STATEMENT, Session};

/// A connection that is in use.
pub(in crate::store) struct PostgresSql<'a> {
    pub(in crate::store) runtime: &'a Handle,
    pub(in crate::store) session: &'a Session,
    pub(in crate::store) client: &'a Client,
}

impl PostgresSql<'_> {
    /// Executes statements without parameters.
    pub(in crate::store) fn batch(&self, text: &str) -> Result<()> {
        self.wait(self.client.batch_execute(text))
    }

    /// Executes a statement with lists as parameters, which other databases do not have.
    pub(in crate::store) fn execute_with(
        &self,
        text: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<()> {
        self.wait(self.client.execute(text, values)).map(drop)
    }

    pub(super) fn execute(&self, text: &'static str, values: &[Value<'_>]) -> Result<usize> {
        let statement = self.prepared(text)?;
        let changed = self.wait(self.client.execute_raw(&statement, values))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn rows(&self, text: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let statement = self.prepared(text)?;
        self.wait(async { self.client.query_raw(&statement, values).await?.try_collect().await })
    }

    fn prepared(&self, text: &'static str) -> Result<Statement> {
        let statements = || self.session.statements.lock().unwrap_or_else(PoisonError::into_inner);
        let known = statements().get(text).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.wait(self.client.prepare(&text.replace('?', "$")))?;
        statements().insert(text, statement.clone());
        Ok(statement)
    }

    /// Waits for an answer. A connection whose answer is late is ended: later ones would be taken for it.
    fn wait<T>(
        &self,
        answer: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match self.runtime.block_on(async { timeout(STATEMENT, answer).await }) {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.session.discard();
                Err(SqlError::Late)
            }
        }
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
