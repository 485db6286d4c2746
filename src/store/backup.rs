//! A copy of the state file, also while a deltapush works with it.

use std::fs::File;
use std::io;
use std::path::Path;

use super::{OpenError, StoreSettings, directory, schema};

/// Writes a copy of the state into a new file of mode 0600. The key that seals credentials is not in it.
///
/// It is the state of one instant, and the owner of the state can write meanwhile. Blocks for as long as the disk takes.
///
/// # Errors
/// [`OpenError`]; there is no file then, or the one that was there already.
pub fn backup(settings: &StoreSettings, file: &Path) -> Result<(), OpenError> {
    if settings.postgres.is_some() {
        return Err(OpenError::BackupByDatabase);
    }
    let connection = schema::look(&settings.directory)?;
    let copy = |draft: &Path, _: &mut File| {
        // SQLite takes a file that is there as long as it is empty, and leaves its mode alone.
        let name = draft.to_str().ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
        connection.execute("VACUUM INTO ?", [name])?;
        Ok(())
    };
    directory::put_new(file, copy).map_err(|error| match error {
        CopyError::Io(source) => OpenError::Backup { path: file.to_owned(), source },
        CopyError::Database(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) =>
        {
            OpenError::Backup { path: file.to_owned(), source: io::ErrorKind::StorageFull.into() }
        }
        CopyError::Database(error) => error.into(),
    })
}

#[derive(Debug)]
enum CopyError {
    Io(io::Error),
    Database(rusqlite::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rusqlite::Error> for CopyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
