//! Opening of the state in a database.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::super::directory;
use super::super::node_facts::OwnFacts;
use super::super::postgres_connector::PostgresConnector;
use super::super::postgres_settings::PostgresSettings;
use super::super::seal::Sealer;
use super::super::sql::{PostgresSql, Sql, values};
use super::super::worker::Worker;
use super::super::{
    Change, CredentialStorage, Loaded, OpenError, Place, Store, StoreSettings, check, key,
    known_logins, load, mark,
};
use super::Shared;
use super::backend::PostgresBackend;
use super::doubts::Doubts;
use super::link::{Link, Role, Session};
use super::premises::Premises;
use super::reader::Reader;
use super::schema::{self, Schema};
use super::told::LastTold;
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
        Self::open_version(settings, Schema::PRESENT, ownership, node, changed).await
    }

    /// The same, as a version that knows these tables.
    pub(in crate::store) async fn open_version(
        settings: &StoreSettings,
        schema: Schema,
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
        let settings = settings.clone();
        let Prepared { sealer, premises, loaded } =
            on_thread(move |runtime| prepare(runtime, &session, schema, &settings)).await?;
        let premises = Arc::new(premises);
        let link = Link::open(connector.clone(), Role::Statements, none, idle.clone()).await?;
        let reader = Reader { link, sealer: sealer.clone() };
        let listener = Link::open(connector, Role::Listener, news.clone(), idle).await?;
        let (doubts, told) = (Arc::new(Doubts::new(news.clone())), Arc::<LastTold>::default());
        let backend = PostgresBackend {
            doubts: Arc::clone(&doubts),
            told: Arc::clone(&told),
            runtime: Handle::current(),
            link: writer,
            sealer,
            ownership: ownership.clone(),
            node,
            premises: Arc::clone(&premises),
        };
        let worker = Worker::start(backend, failing, Box::new(changed))?;
        let news = news.subscribe();
        let own = OwnFacts::default();
        let shared =
            Shared { reader, listener, news, ownership, node, doubts, schema, premises, own, told };
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
    let connection = PostgresSql::new(runtime, session, &client);
    connection.batch("BEGIN")?;
    let done = work(&connection);
    match &done {
        Ok(_) => connection.batch("COMMIT")?,
        Err(_) => connection.batch("ROLLBACK")?,
    }
    done
}

/// The findings of a node at its start.
struct Prepared {
    sealer: Option<Arc<Sealer>>,
    premises: Premises,
    loaded: Loaded,
}

fn prepare(
    runtime: &Handle,
    session: &Session,
    schema: Schema,
    settings: &StoreSettings,
) -> Result<Prepared, OpenError> {
    in_transaction(runtime, session, |connection| {
        schema::migrate(connection, schema)?;
        let sql = Sql::Postgres(connection);
        mark::refuse(sql, Place::Database)?;
        refuse_forgotten_file(sql, settings)?;
        let sealer = match &settings.credentials {
            CredentialStorage::Sealed(source) => Some(Arc::new(key::shared_sealer(sql, source)?)),
            CredentialStorage::Memory | CredentialStorage::None => None,
        };
        let loaded = Loaded {
            served: load::served(sql)?,
            known_logins: known_logins::load(sql)?,
            login_key: Some(known_logins::key(sql)?),
            ..Loaded::default()
        };
        let premises = Premises { known: schema.newest(), key_check: key::check(sql)? };
        Ok(Prepared { sealer, premises, loaded })
    })
}

/// Refuses an empty database while the folder has a state with accounts, which nobody would watch.
fn refuse_forgotten_file(sql: Sql<'_>, settings: &StoreSettings) -> Result<(), OpenError> {
    let is_empty: bool =
        sql.one("SELECT NOT EXISTS (SELECT 1 FROM accounts)", values![], |row| row.get(0))?;
    let accounts = if is_empty { check::accounts_in_file(&settings.directory) } else { 0 };
    if accounts > 0 {
        return Err(OpenError::FileNotMoved { path: settings.directory.clone(), accounts });
    }
    Ok(())
}
