//! Opening of the state in a database.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::super::directory;
use super::super::postgres_connector::PostgresConnector;
use super::super::postgres_settings::PostgresSettings;
use super::super::seal::Sealer;
use super::super::sql::{PostgresSql, Sql};
use super::super::worker::Worker;
use super::super::{
    Change, CredentialStorage, Loaded, OpenError, Store, StoreSettings, key, known_logins, load,
};
use super::Shared;
use super::backend::PostgresBackend;
use super::doubts::Doubts;
use super::link::{Link, Role, Session};
use super::reader::Reader;
use super::schema;
use crate::ownership::Ownership;

impl Store {
    /// Opens the state in the database of `settings`, as one node of several, whose number in the table `nodes` is `node`.
    /// Tables that are missing are made. `changed` is as in [`Store::open`], and is passed this node's changes only. Accounts
    /// are loaded by slots.
    ///
    /// # Errors
    /// [`OpenError`]: the database cannot be reached or refuses, its tables are another version's, or the key is not the one of
    /// the other nodes.
    pub async fn open_postgres(
        settings: &StoreSettings,
        ownership: Ownership,
        node: i64,
        changed: impl Fn(Change) + Send + 'static,
    ) -> Result<(Self, Loaded), OpenError> {
        let Some(postgres) = &settings.postgres else { return Err(OpenError::Postgres) };
        // For the socket of commands, the password of the web page, and the key.
        directory::make(&settings.directory)?;
        let connector = connector(postgres.clone()).await?;
        let (news, failing) = (watch::Sender::new(0), watch::Sender::new(false));
        // Only new connections of the writer show that it can be written.
        let (idle, none) = (watch::Sender::new(false), watch::Sender::new(0));
        let writer =
            Link::open(connector.clone(), Role::Statements, none.clone(), failing.clone()).await?;
        let session = writer.session().await.map_err(|error| unavailable(&error))?;
        let credentials = settings.credentials.clone();
        let (sealer, loaded) =
            on_thread(move |runtime| prepare(runtime, &session, &credentials)).await?;
        let link = Link::open(connector.clone(), Role::Statements, none, idle.clone()).await?;
        let reader = Reader { link, sealer: sealer.clone() };
        let listener = Link::open(connector, Role::Listener, news.clone(), idle).await?;
        let doubts = Arc::new(Doubts::new(news.clone()));
        let backend = PostgresBackend {
            doubts: Arc::clone(&doubts),
            runtime: Handle::current(),
            link: writer,
            sealer,
            ownership: ownership.clone(),
            node,
        };
        let worker = Worker::start(backend, failing, Box::new(changed))?;
        let news = news.subscribe();
        let shared = Shared { reader, listener, news, ownership, node, doubts };
        Ok((Self { worker: Arc::new(worker), shared: Some(Arc::new(shared)) }, loaded))
    }
}

fn unavailable(error: &super::super::StoreError) -> OpenError {
    OpenError::Unavailable(error.to_string())
}

/// The trusted authorities are files.
async fn connector(settings: PostgresSettings) -> Result<PostgresConnector, OpenError> {
    on_thread(move |_| {
        PostgresConnector::new(settings).map_err(|error| OpenError::Unavailable(error.to_string()))
    })
    .await
}

/// Runs what blocks.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce(&Handle) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let runtime = Handle::current();
    let done = tokio::task::spawn_blocking(move || work(&runtime)).await;
    done.unwrap_or_else(|error| Err(OpenError::Unavailable(error.to_string())))
}

/// Runs `work` in one transaction.
pub(super) fn in_transaction<T>(
    runtime: &Handle,
    session: &Session,
    work: impl FnOnce(&PostgresSql<'_>) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let client = session.client.blocking_lock();
    let connection = PostgresSql { runtime, session, client: &client };
    connection.batch("BEGIN")?;
    let done = work(&connection);
    match &done {
        Ok(_) => connection.batch("COMMIT")?,
        Err(_) => connection.batch("ROLLBACK")?,
    }
    done
}

fn prepare(
    runtime: &Handle,
    session: &Session,
    credentials: &CredentialStorage,
) -> Result<(Option<Arc<Sealer>>, Loaded), OpenError> {
    in_transaction(runtime, session, |connection| {
        schema::migrate(connection)?;
        let sql = Sql::Postgres(connection);
        let sealer = match credentials {
            CredentialStorage::Sealed(source) => Some(Arc::new(key::shared_sealer(sql, source)?)),
            CredentialStorage::Memory | CredentialStorage::None => None,
        };
        let loaded = Loaded {
            served: load::served(sql)?,
            known_logins: known_logins::load(sql)?,
            login_key: Some(known_logins::key(sql)?),
            ..Loaded::default()
        };
        Ok((sealer, loaded))
    })
}
