//! The move of a state from its file into a database that nodes share, or back.
//!
//! All rows are copied in one transaction of the target and read back before it is committed. Only then the source is marked as
//! moved, so that a kill at any instant leaves one state at least that works. A kill between the two commits leaves the same state
//! twice: the next attempt finds them equal, and marks the source.

mod digest;
mod places;
mod report;
mod tables;
mod waiting;

use rusqlite::{Connection, TransactionBehavior};

use super::key;
use super::mark::{self, Place};
use super::postgres::{MissingTables, commit, offline};
use super::seal::Sealer;
use super::shared::{self, SharedValue};
use super::sql::{PostgresSql, Sql, Value, values};
use super::{CredentialStorage, KeySource, OpenError, StoreSettings, check, directory, schema};
use crate::account::AccountId;
use crate::secret::Secret;
use places::StatePlace;
pub use report::MoveReport;
use tables::{ACCOUNTS, TABLES};

/// The files of certificates, which are no rows of the state.
pub trait CertificateFiles: Send + 'static {
    /// The files that all nodes are to have, as values that they share.
    ///
    /// # Errors
    /// In words.
    fn read(&self) -> Result<Vec<(String, Secret)>, String>;

    /// Writes the files among the values that nodes shared. Returns their number.
    ///
    /// # Errors
    /// In words.
    fn write(&self, values: &[SharedValue]) -> Result<usize, String>;
}

/// Moves the state to `target`: from the file in `settings.directory` to the database, or back. `machine` is the name of this one.
///
/// Blocks for as long as disk and database take.
///
/// # Errors
/// [`OpenError`]: one of the two is in use, damaged, moved already, or has another key; or the target has accounts. The source is
/// as it was, and so is the target, unless the error is [`OpenError::Unconfirmed`] or [`OpenError::NotMarked`].
pub fn move_state(
    settings: &StoreSettings,
    target: Place,
    machine: &str,
    certificates: impl CertificateFiles,
) -> Result<MoveReport, OpenError> {
    let moving = Moving::new(settings, machine)?;
    let lock = directory::claim(&settings.directory)?;
    let missing = match target {
        Place::Database => MissingTables::Make,
        Place::File => MissingTables::Refuse,
    };
    let moved = offline(settings, missing, move |database| {
        let mut file = moving.open_file(target)?;
        let file = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&file)?;
        match target {
            Place::Database => {
                let report = moving.to_database(&file, database, certificates)?;
                file.commit().map_err(|error| OpenError::NotMarked {
                    place: moving.file.clone(),
                    source: Box::new(error.into()),
                })?;
                Ok(report)
            }
            Place::File => {
                let report = moving.to_file(&file, database)?;
                file.commit()?;
                moving.leave_database(database, certificates, report)
            }
        }
    })?;
    schema::truncate_journal(&schema::connect(&settings.directory)?)?;
    drop(lock);
    Ok(moved)
}

/// Uses the source of an earlier move to `target` again, as it was then: takes its mark off. Returns its place, in words.
///
/// # Errors
/// [`OpenError`]; nothing has changed then.
pub fn undo_move(
    settings: &StoreSettings,
    target: Place,
    machine: &str,
) -> Result<String, OpenError> {
    let moving = Moving::new(settings, machine)?;
    match target {
        Place::Database => {
            let _lock = directory::claim(&settings.directory)?;
            let file = moving.open_file(target)?;
            if !mark::remove(Sql::Sqlite(&file))? {
                return Err(OpenError::NotMoved { place: moving.file });
            }
            Ok(moving.file)
        }
        Place::File => offline(settings, MissingTables::Refuse, move |database| {
            if !mark::remove(Sql::Postgres(database))? {
                return Err(OpenError::NotMoved { place: moving.database });
            }
            commit(database)?;
            Ok(moving.database)
        }),
    }
}

/// The settings of a move, and the places in words.
struct Moving {
    settings: StoreSettings,
    source: KeySource,
    file: String,
    database: String,
}

impl Moving {
    fn new(settings: &StoreSettings, machine: &str) -> Result<Self, OpenError> {
        let Some(postgres) = &settings.postgres else { return Err(OpenError::NoDatabase) };
        let CredentialStorage::Sealed(source) = &settings.credentials else {
            return Err(OpenError::NotSealed);
        };
        Ok(Self {
            settings: settings.clone(),
            source: source.clone(),
            file: format!("{} on {machine}", settings.directory.display()),
            database: postgres.url.to_string(),
        })
    }

    /// The file: as the source it has to be there and sound.
    fn open_file(&self, target: Place) -> Result<Connection, OpenError> {
        let folder = &self.settings.directory;
        if target == Place::Database {
            let file = schema::look(folder)?;
            if schema::version(&file)? == 0 {
                return Err(OpenError::Absent { path: folder.clone() });
            }
            check::integrity(&file)?;
        }
        schema::connect(folder)
    }

    fn to_database(
        &self,
        file: &Connection,
        database: &PostgresSql<'_>,
        certificates: impl CertificateFiles,
    ) -> Result<MoveReport, OpenError> {
        mark::refuse(Sql::Sqlite(file), Place::File)?;
        let (source, target) = (StatePlace::File(file), StatePlace::Database(database));
        let sealer = key::sealer(source.sql(), &self.source)?;
        let report = self.report(Place::Database);
        let report = self.copy(source, target, &sealer, report)?;
        let files = certificates.read().map_err(OpenError::CertificateFiles)?;
        shared::replace_all(target.sql(), &sealer, &files)?;
        commit(database)?;
        mark::set(source.sql(), &self.database)?;
        Ok(MoveReport { certificates: files.len(), ..report })
    }

    fn to_file(
        &self,
        file: &Connection,
        database: &PostgresSql<'_>,
    ) -> Result<MoveReport, OpenError> {
        mark::refuse(Sql::Postgres(database), Place::Database)?;
        let (source, target) = (StatePlace::Database(database), StatePlace::File(file));
        let sealer = key::shared_sealer(source.sql(), &self.source)?;
        waiting::take_in_forwarded(source.sql())?;
        self.copy(source, target, &sealer, self.report(Place::File))
    }

    /// The file has the state: what is left in the database is a copy.
    fn leave_database(
        &self,
        database: &PostgresSql<'_>,
        certificates: impl CertificateFiles,
        report: MoveReport,
    ) -> Result<MoveReport, OpenError> {
        let sql = Sql::Postgres(database);
        let sealer = key::shared_sealer(sql, &self.source)?;
        let values = shared::all(sql, &sealer)?;
        let certificates = certificates.write(&values).map_err(OpenError::CertificateFiles)?;
        mark::set(sql, &self.file)?;
        commit(database)?;
        Ok(MoveReport { certificates, ..report })
    }

    fn report(&self, target: Place) -> MoveReport {
        MoveReport {
            target,
            file: self.file.clone(),
            database: self.database.clone(),
            key: self.source.to_string(),
            ..MoveReport::default()
        }
    }

    /// Copies all rows into a target that has no accounts, and compares them. A target that has the same rows already is left
    /// alone: an earlier move to it was cut off before the source was marked.
    fn copy(
        &self,
        source: StatePlace<'_>,
        target: StatePlace<'_>,
        sealer: &Sealer,
        mut report: MoveReport,
    ) -> Result<MoveReport, OpenError> {
        let is_copy = mark::remove(target.sql())?;
        report.was_there = !is_copy && has_accounts(target.sql())?;
        if report.was_there {
            self.compare(source, target, &mut report)?;
        } else {
            key::refuse_other(target.sql(), sealer, is_copy)?;
            for table in TABLES.iter().rev() {
                target.batch(&table.clear())?;
            }
            for table in TABLES {
                let digest = target.fill(table, source)?;
                if target.digest(table)? != digest {
                    return Err(OpenError::NotTheSame { table: table.label });
                }
                report.rows.push((table.label, digest.rows));
            }
            key::note_check(target.sql(), sealer)?;
        }
        if let StatePlace::Database(_) = target {
            target.batch(COUNT_ON)?;
        }
        (report.opened, report.damaged) = opened(target, sealer)?;
        Ok(report)
    }

    fn compare(
        &self,
        source: StatePlace<'_>,
        target: StatePlace<'_>,
        report: &mut MoveReport,
    ) -> Result<(), OpenError> {
        for table in TABLES {
            let digest = source.digest(table)?;
            if target.digest(table)? != digest {
                let place = match target {
                    StatePlace::File(_) => self.file.clone(),
                    StatePlace::Database(_) => self.database.clone(),
                };
                return Err(OpenError::NotEmpty { place });
            }
            report.rows.push((table.label, digest.rows));
        }
        Ok(())
    }
}

/// Numbers that a database gives out begin behind those that came with the rows.
const COUNT_ON: &str = "
    SELECT setval(pg_get_serial_sequence('accounts', 'id'), max(id)) FROM accounts HAVING max(id) > 0;
    SELECT setval(pg_get_serial_sequence('tokens', 'id'), max(id)) FROM tokens HAVING max(id) > 0;
    SELECT setval(pg_get_serial_sequence('erased', 'id'), max(id)) FROM erased HAVING max(id) > 0;
    SELECT setval('generations', greatest(max(pending), (SELECT last_value FROM generations)))
        FROM tokens HAVING max(pending) > 0";

fn has_accounts(sql: Sql<'_>) -> Result<bool, OpenError> {
    Ok(sql.one("SELECT EXISTS (SELECT 1 FROM accounts)", values![], |row| row.get(0))?)
}

/// The numbers of accounts whose credentials the key opens, and does not. What is sealed is bound to the names in its row.
fn opened(place: StatePlace<'_>, sealer: &Sealer) -> Result<(u64, u64), OpenError> {
    let (mut opened, mut damaged) = (0_u64, 0_u64);
    place.each(ACCOUNTS, &mut |row| {
        let [_, Value::Text(name), Value::Text(upstream), Value::Blob(sealed), ..] = row else {
            return Ok(());
        };
        if sealed.is_empty() {
            return Ok(());
        }
        match sealer.unseal(&AccountId::new(name, upstream), sealed) {
            Ok(_) => opened += 1,
            Err(_) => damaged += 1,
        }
        Ok(())
    })?;
    Ok((opened, damaged))
}

#[cfg(test)]
mod tests;
