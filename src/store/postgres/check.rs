//! The check of a state in a database: changes nothing, and works while nodes use it.

use tokio::runtime::{Builder, Handle};

use super::super::check::{counted, damaged};
use super::super::sql::{self, Sql, values};
use super::super::{
    CredentialStorage, KeyReport, OpenError, StateReport, StoreSettings, key, mark,
};
use super::link::{Link, Session};
use super::{Schema, open, schema};

/// Looks through the state in the database of `settings`. Blocks, in a thread of its own.
///
/// # Errors
/// [`OpenError`]: the database cannot be reached, has no tables yet, or those of another version; or the key is missing or
/// the wrong one.
pub fn check_shared(settings: &StoreSettings) -> Result<StateReport, OpenError> {
    let settings = settings.clone();
    let check = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|source| OpenError::Io { path: "a thread".into(), source })?;
        runtime.block_on(look(settings))
    });
    check.join().unwrap_or_else(|_| Err(OpenError::Unavailable("the check failed".to_owned())))
}

async fn look(settings: StoreSettings) -> Result<StateReport, OpenError> {
    let Some(postgres) = settings.postgres.clone() else { return Err(OpenError::Postgres) };
    let place = postgres.url.to_string();
    let (_link, session) = Link::for_command(postgres).await?;
    let check = move |runtime: &Handle| report(runtime, &session, &settings.credentials);
    Ok(StateReport { place, ..open::on_thread(check).await? })
}

fn report(
    runtime: &Handle,
    session: &Session,
    credentials: &CredentialStorage,
) -> Result<StateReport, OpenError> {
    open::in_transaction(runtime, session, |connection| {
        let sql = Sql::Postgres(connection);
        let (found, needed) = schema::version(sql)?;
        let known = Schema::PRESENT.newest();
        if found == 0 {
            return Err(OpenError::NoTables);
        }
        if needed > known {
            return Err(OpenError::TooOld { found, needed, known });
        }
        Ok(StateReport {
            usage: nodes(sql)?,
            key: key_report(sql, credentials)?,
            ..counted(sql, (found, known))?
        })
    })
}

/// The names of the nodes that hold a lease.
pub(super) fn living_nodes(sql: Sql<'_>) -> sql::Result<Vec<String>> {
    sql.rows(
        "SELECT name FROM nodes WHERE lease_until > clock_timestamp() ORDER BY name",
        values![],
        |row| row.get(0),
    )
}

fn nodes(sql: Sql<'_>) -> Result<String, OpenError> {
    if let Some(to) = mark::of(sql)? {
        return Ok(format!("moved to {to}"));
    }
    let names = living_nodes(sql)?;
    Ok(if names.is_empty() {
        "not in use by a deltapush".to_owned()
    } else {
        format!("in use by {}", names.join(", "))
    })
}

fn key_report(sql: Sql<'_>, credentials: &CredentialStorage) -> Result<KeyReport, OpenError> {
    let CredentialStorage::Sealed(source) = credentials else { return Ok(KeyReport::NotNeeded) };
    if !key::any_sealed(sql)? {
        return Ok(KeyReport::NothingSealed);
    }
    let found = key::shared_fitting(sql, source)?;
    let damaged = damaged(sql, false, found.sealer())?;
    Ok(KeyReport::Opens { place: source.to_string(), damaged })
}
