//! The two places of a state, whose rows are read and written one by one: no more than a few are in memory.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use rusqlite::{Connection, params_from_iter};
use tokio::time::timeout;
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::Type;

use super::super::OpenError;
use super::super::sql::{PostgresSql, Sql, SqlError, Value};
use super::digest::{RowsDigest, RowsDigester};
use super::tables::{ACCOUNTS, Table};
use crate::account::AccountId;
use crate::ownership::Slot;

/// Time for which the database may take or give no row.
const STALL: Duration = Duration::from_secs(60);

/// Takes a row.
pub(super) type RowTaker<'a> = &'a mut dyn FnMut(&[Value<'_>]) -> Result<(), OpenError>;

/// A place of a state, within a transaction.
#[derive(Clone, Copy)]
pub(super) enum StatePlace<'a> {
    File(&'a Connection),
    Database(&'a PostgresSql<'a>),
}

impl<'a> StatePlace<'a> {
    pub(super) fn sql(self) -> Sql<'a> {
        match self {
            Self::File(connection) => Sql::Sqlite(connection),
            Self::Database(connection) => Sql::Postgres(connection),
        }
    }

    /// Executes statements.
    pub(super) fn batch(self, text: &str) -> Result<(), OpenError> {
        match self {
            Self::File(connection) => Ok(connection.execute_batch(text)?),
            Self::Database(connection) => {
                wait(connection, connection.client.batch_execute(text))?;
                Ok(())
            }
        }
    }

    /// Passes all rows of a table to `take`, in order.
    pub(super) fn each(self, table: &Table, take: RowTaker<'_>) -> Result<(), OpenError> {
        match self {
            Self::File(connection) => each_of_file(connection, table, take),
            Self::Database(connection) => each_of_database(connection, table, take),
        }
    }

    /// The digest of a table.
    pub(super) fn digest(self, table: &Table) -> Result<RowsDigest, OpenError> {
        let mut digester = RowsDigester::new();
        self.each(table, &mut |row| {
            digester.add(row);
            Ok(())
        })?;
        Ok(digester.finish())
    }

    /// Adds all rows of a table of `source`. Returns their digest.
    pub(super) fn fill(
        self,
        table: &Table,
        source: StatePlace<'_>,
    ) -> Result<RowsDigest, OpenError> {
        let mut digester = RowsDigester::new();
        match self {
            Self::File(connection) => {
                let mut insert = connection.prepare(&table.insert())?;
                source.each(table, &mut |row| {
                    digester.add(row);
                    insert.execute(params_from_iter(row))?;
                    Ok(())
                })?;
            }
            Self::Database(connection) => {
                let (columns, types) = with_slot(table);
                let text = format!("COPY {} ({columns}) FROM STDIN (FORMAT BINARY)", table.name);
                let sink = wait(connection, connection.client.copy_in::<_, Bytes>(&text))?;
                let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
                source.each(table, &mut |row| {
                    digester.add(row);
                    write_row(connection, writer.as_mut(), table, row)
                })?;
                wait(connection, writer.finish())?;
            }
        }
        Ok(digester.finish())
    }
}

fn each_of_file(
    connection: &Connection,
    table: &Table,
    take: RowTaker<'_>,
) -> Result<(), OpenError> {
    let mut statement = connection.prepare(&table.select())?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let value = |column| {
            Value::try_from(row.get_ref(column)?).map_err(|()| OpenError::Damaged {
                what: format!("table {}: {}", table.name, SqlError::Unexpected { column }),
            })
        };
        let values: Vec<Value<'_>> =
            (0..table.columns.len()).map(value).collect::<Result<_, OpenError>>()?;
        take(&values)?;
    }
    Ok(())
}

fn each_of_database(
    connection: &PostgresSql<'_>,
    table: &Table,
    take: RowTaker<'_>,
) -> Result<(), OpenError> {
    let text = format!("COPY ({}) TO STDOUT (FORMAT BINARY)", table.select());
    let types: Vec<Type> = table.columns.iter().map(|(_, kind)| kind.postgres()).collect();
    let stream = wait(connection, connection.client.copy_out(&text))?;
    let mut rows = pin!(BinaryCopyOutStream::new(stream, &types));
    let next = |rows: &mut Pin<&mut BinaryCopyOutStream>| {
        wait(connection, async { rows.next().await.transpose() })
    };
    while let Some(row) = next(&mut rows)? {
        let values: Vec<Value<'_>> = (0..types.len())
            .map(|column| row.try_get(column))
            .collect::<Result<_, _>>()
            .map_err(SqlError::from)?;
        take(&values)?;
    }
    Ok(())
}

/// The columns in a database, and their types.
fn with_slot(table: &Table) -> (String, Vec<Type>) {
    let mut types: Vec<Type> = table.columns.iter().map(|(_, kind)| kind.postgres()).collect();
    let mut columns = table.names();
    if table.name == ACCOUNTS.name {
        columns.push_str(", slot");
        types.push(Type::INT8);
    }
    (columns, types)
}

fn write_row(
    connection: &PostgresSql<'_>,
    writer: Pin<&mut BinaryCopyInWriter>,
    table: &Table,
    row: &[Value<'_>],
) -> Result<(), OpenError> {
    let mut row = row.to_vec();
    if table.name == ACCOUNTS.name {
        row.push(slot(&row));
    }
    match wait(connection, writer.write_raw(&row)) {
        Err(OpenError::Nul) => Err(OpenError::NulIn { table: table.label }),
        result => result,
    }
}

/// The slot of an account, by its row.
fn slot(row: &[Value<'_>]) -> Value<'static> {
    let [_, Value::Text(name), Value::Text(upstream), ..] = row else { return Value::Null };
    Value::Integer(Slot::of(&AccountId::new(name, upstream)).number().into())
}

/// Waits for an answer of the database.
fn wait<T>(
    connection: &PostgresSql<'_>,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, OpenError> {
    match connection.runtime.block_on(async { timeout(STALL, answer).await }) {
        Ok(answer) => Ok(answer.map_err(SqlError::from)?),
        Err(_) => {
            connection.session.discard();
            Err(SqlError::Late.into())
        }
    }
}
