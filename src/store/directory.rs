//! The state's folder: made for its owner only, used by one process at a time; and files that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::OpenError;

const LOCK: &str = "lock";
/// Number of attempts to claim the folder, and the pause between them: `deltapush state check` holds the lock for an
/// instant.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Makes the folder if it is not there.
pub(super) fn make(directory: &Path) -> Result<(), OpenError> {
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700).create(directory).map_err(OpenError::io(directory))
}

/// Makes the folder if it is not there, and claims it for this process. The claim ends when the file is dropped, also by
/// the death of the process.
pub(super) fn claim(directory: &Path) -> Result<File, OpenError> {
    make(directory)?;
    let lock = private_file(&directory.join(LOCK))?;
    for _ in 0..ATTEMPTS {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(OpenError::io(directory)(error)),
        }
    }
    Err(OpenError::InUse { path: directory.to_owned() })
}

/// Reports if a process has claimed the folder. Creates nothing.
pub(super) fn is_claimed(directory: &Path) -> bool {
    let lock = File::open(directory.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens a file for writing, and makes it with mode 0600 if it is not there. It belongs to the owner of its folder: a command may
/// run as root, and the server as another user.
pub(super) fn private_file(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    let io = |error| OpenError::io(path)(error);
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            give_to_owner_of_folder(path, &file);
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(path).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

/// Only root may give files away; those of others stay theirs.
fn give_to_owner_of_folder(path: &Path, file: &File) {
    if let Some(owner) = path.parent().and_then(|folder| fs::metadata(folder).ok()) {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Makes a file of mode 0600 that is not there yet, with what `write` puts in. It appears whole and on disk or not at
/// all, and an existing one is never replaced.
pub(crate) fn put_new<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&Path, &mut File) -> Result<(), E>,
) -> Result<(), E> {
    if path.exists() {
        let words = "a file of this name exists already: name a new one";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, words).into());
    }
    let draft = with_suffix(path, &format!(".{}.draft", std::process::id()));
    let result = write_draft(&draft, write).and_then(|()| Ok(fs::hard_link(&draft, path)?));
    fs::remove_file(&draft).ok();
    result?;
    Ok(sync_folder_of(path)?)
}

fn write_draft<E: From<io::Error>>(
    draft: &Path,
    write: impl FnOnce(&Path, &mut File) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    write(draft, &mut file)?;
    Ok(file.sync_all()?)
}

/// Makes what was done to the names in the folder of `path` last.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The path with something after its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let put = |text: &str, fails: bool| {
            put_new(&path, |_, file| {
                file.write_all(text.as_bytes())?;
                if fails { Err(io::Error::other("in the middle")) } else { Ok(()) }
            })
        };
        put("half", true).unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "no draft is left behind");
        put("whole", false).unwrap();
        assert_eq!(put("another", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// As root the folder is that of another user.
    #[test]
    fn files_belong_to_the_owner_of_their_folder() {
        let directory = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(65_534), Some(65_534)).unwrap();
        }
        let owner = fs::metadata(directory.path()).unwrap().uid();
        let lock = claim(directory.path()).unwrap();
        assert_eq!(lock.metadata().unwrap().uid(), owner);
        let path = directory.path().join("state.sqlite");
        for _ in 0..2 {
            assert_eq!(private_file(&path).unwrap().metadata().unwrap().uid(), owner);
        }
    }

    #[test]
    fn looking_whether_it_is_claimed_claims_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_claimed(directory.path()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let claim_of_mine = claim(directory.path()).unwrap();
        assert!(is_claimed(directory.path()));
        drop(claim_of_mine);
        assert!(!is_claimed(directory.path()));
        drop(claim(directory.path()).unwrap());
    }
}
