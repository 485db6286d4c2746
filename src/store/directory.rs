//! The state's folder: made for its owner only, used by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::OpenError;

/// Makes the folder if it is not there, and claims it for this process. The claim ends when the file is dropped, also by
/// the death of the process.
pub(super) fn claim(directory: &Path) -> Result<File, OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(OpenError::io(directory))?;
    let lock = private_file(&directory.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::io(directory)(error)),
    }
}

/// Opens a file for writing, and makes it with mode 0600 if it is not there.
pub(super) fn private_file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(OpenError::io(path))
}
