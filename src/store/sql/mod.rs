//! SQL for the operations on the state, the same for each database: statements, their parameters and rows.
//!
//! A statement has one text for all databases. Its parameters are numbered (`?1`), its integers have 64 bits, and flags are
//! integers.

mod error;
mod postgres;
mod value;
mod waiting;

use rusqlite::{Connection, OptionalExtension, params_from_iter};

pub(super) use error::{Meaning, Result, SqlError, meaning};
pub(super) use postgres::{CommitError, PostgresSql};
pub(super) use value::{AsValue, FromValue, Value};

/// The parameters of a statement, in order.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::store::sql::AsValue::as_value(&$value)),*]
    };
}
pub(super) use values;

/// The largest limit of rows, for a statement that needs one before its offset.
macro_rules! no_limit {
    () => {
        "9223372036854775807"
    };
}
pub(super) use no_limit;

/// A database, within a transaction of the caller.
#[derive(Clone, Copy)]
pub(super) enum Sql<'a> {
    /// A state file.
    Sqlite(&'a Connection),
    /// A database that several nodes share.
    Postgres(&'a PostgresSql<'a>),
}

impl<'a> Sql<'a> {
    /// The state file.
    #[cfg(test)]
    pub(super) fn sqlite(self) -> &'a Connection {
        match self {
            Self::Sqlite(connection) => connection,
            Self::Postgres(_) => panic!("not a state file"),
        }
    }

    /// Executes a statement and returns the number of rows that it changed.
    pub(super) fn execute(self, text: &'static str, values: &[Value<'_>]) -> Result<usize> {
        match self {
            Self::Sqlite(connection) => {
                Ok(connection.prepare_cached(text)?.execute(params_from_iter(values))?)
            }
            Self::Postgres(connection) => connection.execute(text, values),
        }
    }

    /// Executes a change whose outcome nothing else in the transaction depends on: in PostgreSQL together with the next
    /// statement, or with the end of the transaction. Returns the number of rows that it changed, if that is known yet.
    pub(super) fn execute_later(
        self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<usize>> {
        match self {
            Self::Sqlite(_) => self.execute(text, values).map(Some),
            Self::Postgres(connection) => connection.execute_later(text, values).map(|()| None),
        }
    }

    /// Passes each row of the result to `read`.
    pub(super) fn each(
        self,
        text: &'static str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(text)?;
                let mut rows = statement.query(params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    read(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Self::Postgres(connection) => {
                let rows = connection.rows(text, values)?;
                rows.iter().try_for_each(|row| read(&Row::Postgres(row)))
            }
        }
    }

    /// The same for the first statement of a change, which changes nothing: PostgreSQL begins the transaction together with it.
    pub(super) fn first_rows(
        self,
        text: &'static str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.each(text, values, read),
            Self::Postgres(connection) => {
                let rows = connection.first_rows(text, values)?;
                rows.iter().try_for_each(|row| read(&Row::Postgres(row)))
            }
        }
    }

    /// All rows of the result.
    pub(super) fn rows<T>(
        self,
        text: &'static str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.each(text, values, |row| {
            found.push(read(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The first row of the result, if there is one.
    pub(super) fn optional<T>(
        self,
        text: &'static str,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(text)?;
                let found = statement
                    .query_row(params_from_iter(values), |row| Ok(read(&Row::Sqlite(row))))
                    .optional()?;
                found.transpose()
            }
            Self::Postgres(connection) => {
                let rows = connection.rows(text, values)?;
                rows.first().map(|row| read(&Row::Postgres(row))).transpose()
            }
        }
    }

    /// The only row of the result.
    pub(super) fn one<T>(
        self,
        text: &'static str,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.optional(text, values, read)?.ok_or(SqlError::NoRow)
    }
}

/// A row of a result.
pub(super) enum Row<'a> {
    /// Of a state file.
    Sqlite(&'a rusqlite::Row<'a>),
    /// Of a database that several nodes share.
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// The value in a column, counted from zero.
    pub(super) fn value(&self, column: usize) -> Result<Value<'_>> {
        match self {
            Self::Sqlite(row) => {
                Value::try_from(row.get_ref(column)?).map_err(|()| SqlError::Unexpected { column })
            }
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// The value in a column as this type.
    pub(super) fn get<T: FromValue>(&self, column: usize) -> Result<T> {
        T::from_value(self.value(column)?).ok_or(SqlError::Unexpected { column })
    }
}
