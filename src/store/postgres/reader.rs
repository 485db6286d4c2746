//! Reads, in a connection of their own: they wait for no change, and no change for them.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::super::operations::{Operation, Result};
use super::super::sql::{PostgresSql, Sql};
use super::super::{StoreError, seal::Sealer};
use super::link::Link;

/// The connection for reads. One at a time.
pub(super) struct Reader {
    pub(super) link: Link,
    pub(super) sealer: Option<Arc<Sealer>>,
}

impl Reader {
    /// Reads within one transaction, which sees one state of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Operation<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(|connection, operation| {
            connection.batch("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
            let found = read(operation);
            if connection.batch(if found.is_ok() { "COMMIT" } else { "ROLLBACK" }).is_err() {
                connection.session.discard();
            }
            found
        })
        .await
    }

    /// Reads without a transaction: each statement sees its own state of the database.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Operation<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(|_, operation| look(operation)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PostgresSql<'_>, &mut Operation<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let session = self.link.session().await?;
        let (runtime, sealer) = (Handle::current(), self.sealer.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let client = session.client.blocking_lock();
            let connection = PostgresSql::new(&runtime, &session, &client);
            let mut operation = Operation {
                sql: Sql::Postgres(&connection),
                sealer: sealer.as_deref(),
                generation: &mut 0,
                changes: &mut Vec::new(),
                node: None,
            };
            work(&connection, &mut operation)
        });
        reading.await.unwrap_or(Err(StoreError::NotWritten))
    }
}
