//! The file with the key that seals credentials, and the check that it is the right one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use rusqlite::{Connection, OptionalExtension};
use zeroize::{Zeroize, Zeroizing};

use super::OpenError;
use super::seal::{KEY_LEN, SealError, Sealer};

type Key = Zeroizing<[u8; KEY_LEN]>;

/// What is sealed to know a key again.
const CHECK: &[u8] = b"deltapush key check";

/// The sealer with the key in `path`. A new key is made, and a new one taken over, only while nothing is sealed.
pub(super) fn sealer(connection: &Connection, path: &Path) -> Result<Sealer, OpenError> {
    let any_sealed: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM accounts)", [], |row| row.get(0))?;
    let key = match read(path)? {
        Some(key) => key,
        None if any_sealed => return Err(OpenError::KeyMissing { path: path.to_owned() }),
        None => make(path)?,
    };
    let sealer = Sealer::new(&key)?;
    if !is_known(connection, &sealer)? {
        if any_sealed {
            return Err(OpenError::KeyWrong { path: path.to_owned() });
        }
        let check = sealer.seal_bytes(CHECK, CHECK)?;
        connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('key_check', ?)", [check])?;
    }
    Ok(sealer)
}

fn is_known(connection: &Connection, sealer: &Sealer) -> Result<bool, OpenError> {
    let check: Option<Vec<u8>> =
        connection.query_row("SELECT value FROM meta WHERE name = 'key_check'", [], |row| row.get(0)).optional()?;
    Ok(check.is_some_and(|check| sealer.unseal_bytes(CHECK, &check).is_ok_and(|plain| *plain == CHECK)))
}

fn read(path: &Path) -> Result<Option<Key>, OpenError> {
    let text = match fs::read(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io(path)(error)),
    };
    let mode = fs::metadata(path).map_err(OpenError::io(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("others may read the key file {}: give it mode 0600", path.display());
    }
    // With room to spare, so that decoding anything else fails by its length and not by the buffer's.
    let mut bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim_ascii()).unwrap_or_default());
    let key = <[u8; KEY_LEN]>::try_from(bytes.as_slice()).map(Zeroizing::new);
    bytes.zeroize();
    key.map(Some).map_err(|_| OpenError::KeyMalformed { path: path.to_owned() })
}

fn make(path: &Path) -> Result<Key, OpenError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    aws_lc_rs::rand::fill(&mut *key).map_err(|_| SealError::System)?;
    write_new(path, &key).map_err(OpenError::io(path))?;
    Ok(key)
}

/// The file appears whole or not at all, and an existing one is never replaced: a key lost is every credential lost.
fn write_new(path: &Path, key: &Key) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = directory.join(name);
    let result = write_draft(&draft, key).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft).ok();
    result?;
    fs::File::open(directory)?.sync_all()
}

fn write_draft(draft: &Path, key: &Key) -> io::Result<()> {
    let mut text = Zeroizing::new(BASE64_STANDARD.encode(**key));
    text.push('\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        assert!(read(&path).unwrap().is_none());
        let key = make(&path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(make(&path).is_err(), "an existing key must not be replaced");
        assert_eq!(read(&path).unwrap().unwrap(), key);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        for text in ["", "c2hvcnQ=", "%%%"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(OpenError::KeyMalformed { .. })), "{text}");
        }
    }
}
