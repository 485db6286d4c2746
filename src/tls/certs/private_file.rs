//! Files that only their owner reads, and that are whole or not there.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::identity::CertificateError;

/// Takes a key away from everyone but its owner; somebody may have copied it with other permissions.
pub(super) fn tighten(path: &Path) -> Result<(), CertificateError> {
    let write_error = |source| CertificateError::Write { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(write_error)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(write_error)?;
        tracing::warn!(
            path = %path.display(),
            "other users of this machine could read the private key; deltapush has made it readable for its owner only"
        );
    }
    Ok(())
}

/// Writes a file that is there either as a whole or not at all, with `mode` from its first byte on.
pub(crate) fn write_atomically(
    path: &Path,
    mode: u32,
    content: &[u8],
) -> Result<(), CertificateError> {
    let mut temporary = path.as_os_str().to_owned();
    // Nobody else's: neither that of another write at the same time nor one that a crash has left.
    temporary.push(format!(".{:016x}.tmp", fastrand::u64(..)));
    let temporary = PathBuf::from(temporary);
    let written = write_and_rename(&temporary, path, mode, content);
    if written.is_err() {
        // It may not even have been made; the error that counts is the first.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|source| CertificateError::Write { path: path.to_owned(), source })
}

fn write_and_rename(temporary: &Path, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    // A command may run as root, and the server as the owner of the folder.
    if let Some(owner) = path.parent().and_then(|folder| fs::metadata(folder).ok())
        && owner.uid() != file.metadata()?.uid()
    {
        // Only root may give files away; those of others stay theirs.
        let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    // Without it a power cut may undo the renaming, and people would meet a new key.
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_private_from_its_first_byte_and_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_atomically(&path, 0o600, b"first").unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_atomically(&path, 0o600, b"second").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"second".to_vec()));
        assert!(write_atomically(&folder.path().join("missing/key.pem"), 0o600, b"x").is_err());
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomically(&folder.path().join("taken"), 0o600, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
}
