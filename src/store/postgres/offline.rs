//! Work of a command on the database while no node uses it: one transaction, which keeps nodes from starting and from writing.

use tokio::runtime::{Builder, Handle};

use super::super::sql::{PostgresSql, Sql, values};
use super::super::{OpenError, StoreSettings};
use super::link::Link;
use super::schema::{self, Schema};
use super::{check, open};

/// The tables of a database that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum MissingTables {
    /// They are made.
    Make,
    /// [`OpenError::NoTables`].
    Refuse,
}

/// Time for which the transaction may wait for the command's other work.
const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10min'";

/// Nodes that stand still write no more when they go on: `events` comes with all that they acknowledge.
const LOCK: &str = "LOCK TABLE nodes, events, accounts, tokens, shared IN EXCLUSIVE MODE";

/// Runs `work` in a transaction, which it has to [`commit`]. Blocks, in a thread of its own.
///
/// # Errors
/// [`OpenError`]: the database cannot be reached, has tables of another version, or is in use; or that of `work`. Nothing has
/// changed then, unless `work` has committed.
pub(in crate::store) fn offline<T: Send + 'static>(
    settings: &StoreSettings,
    missing: MissingTables,
    work: impl FnOnce(&PostgresSql<'_>) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let settings = settings.clone();
    let task = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|source| OpenError::Io { path: "a thread".into(), source })?;
        runtime.block_on(connected(settings, missing, work))
    });
    task.join().unwrap_or_else(|_| Err(OpenError::Unavailable("the command failed".to_owned())))
}

async fn connected<T: Send + 'static>(
    settings: StoreSettings,
    missing: MissingTables,
    work: impl FnOnce(&PostgresSql<'_>) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let Some(postgres) = settings.postgres else { return Err(OpenError::NoDatabase) };
    let (_link, session) = Link::for_command(postgres).await?;
    let locked = move |runtime: &Handle| {
        let client = session.client.blocking_lock();
        let connection = PostgresSql::new(runtime, &session, &client);
        let done = lock(&connection, missing).and_then(|()| work(&connection));
        if done.is_err() {
            // Of a transaction that has ended, or whose connection has.
            connection.batch("ROLLBACK").ok();
        }
        done
    };
    open::on_thread(locked).await
}

fn lock(connection: &PostgresSql<'_>, missing: MissingTables) -> Result<(), OpenError> {
    connection.batch(BEGIN)?;
    connection.batch(schema::LOCK)?;
    let sql = Sql::Postgres(connection);
    let (found, known) = (schema::version(sql)?.0, Schema::PRESENT.newest());
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    if found == 0 && missing == MissingTables::Refuse {
        return Err(OpenError::NoTables);
    }
    schema::migrate(connection, Schema::PRESENT)?;
    connection.batch(LOCK)?;
    let nodes = check::living_nodes(sql)?;
    if !nodes.is_empty() {
        return Err(OpenError::NodesRun { nodes: nodes.join(", ") });
    }
    // Rows of dead nodes, whose slots belong to nobody from now on.
    sql.execute("DELETE FROM nodes", values![])?;
    sql.execute("UPDATE slots SET owner = NULL, heir = NULL, epoch = epoch + 1", values![])?;
    Ok(())
}

/// Commits the transaction.
///
/// # Errors
/// [`OpenError::Unconfirmed`]: it may have been committed all the same.
pub(in crate::store) fn commit(connection: &PostgresSql<'_>) -> Result<(), OpenError> {
    let unconfirmed = |error: super::super::sql::SqlError| {
        OpenError::Unconfirmed(OpenError::from(error).to_string())
    };
    connection.batch("COMMIT").map_err(unconfirmed)
}
