//! The key that seals credentials: where it comes from, the check that it is the right one, and its file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

use super::OpenError;
use super::directory::{put_new, sync_folder_of, with_suffix};
use super::seal::{KEY_LEN, SealError, Sealer};
use super::settings::KeySource;
use super::sql::{self, Sql, values};
use crate::encoding::utf8;

pub(super) type SealingKey = Zeroizing<[u8; KEY_LEN]>;

/// The sealed text by which a key is recognized.
const CHECK: &[u8] = b"deltapush key check";

/// The sealer with the key from `source`. A new key is made, and a new one taken over, only while nothing is sealed. A
/// rotation that was interrupted is brought to its end.
pub(super) fn sealer(sql: Sql<'_>, source: &KeySource) -> Result<Sealer, OpenError> {
    match (look(sql, source)?, source) {
        (Some(MatchingKey::Waiting(sealer)), KeySource::File(path)) => {
            put_in_place(path)?;
            return Ok(sealer);
        }
        (Some(MatchingKey::InPlace(sealer) | MatchingKey::Waiting(sealer)), _) => {
            return Ok(sealer);
        }
        (None, _) => {}
    }
    if any_sealed(sql)? {
        return Err(unfit(source)?);
    }
    let key = match (present(source)?, source) {
        (Some(key), _) => key,
        (None, KeySource::File(path)) => make(path)?,
        (None, _) => return Err(OpenError::KeyMalformed { place: source.to_string() }),
    };
    let sealer = Sealer::new(&key)?;
    note_check(sql, &sealer)?;
    Ok(sealer)
}

/// The same, where several nodes seal with one key: only the first one makes it or brings it, and the others have to have the
/// same. The caller holds the lock of the tables.
pub(super) fn shared_sealer(sql: Sql<'_>, source: &KeySource) -> Result<Sealer, OpenError> {
    if check(sql)?.is_none() {
        return sealer(sql, source);
    }
    match (look(sql, source)?, source) {
        (Some(MatchingKey::InPlace(sealer)), _) => Ok(sealer),
        (Some(MatchingKey::Waiting(sealer)), KeySource::File(path)) => {
            put_in_place(path)?;
            Ok(sealer)
        }
        _ => Err(shared_unfit(source)?),
    }
}

/// The key that the nodes seal with. Changes nothing.
pub(super) fn shared_fitting(sql: Sql<'_>, source: &KeySource) -> Result<MatchingKey, OpenError> {
    look(sql, source)?.map_or_else(|| Err(shared_unfit(source)?), Ok)
}

/// Why the content of `source` cannot be the key that the nodes seal with.
fn shared_unfit(source: &KeySource) -> Result<OpenError, OpenError> {
    Ok(match unfit(source)? {
        OpenError::KeyMissing { path } => OpenError::SharedKeyMissing { path },
        _ => OpenError::SharedKeyWrong { place: source.to_string() },
    })
}

/// A key that the check was made with.
pub(super) enum MatchingKey {
    /// At its place.
    InPlace(Sealer),
    /// In the file of a rotation that was interrupted.
    Waiting(Sealer),
}

impl MatchingKey {
    pub(super) fn sealer(&self) -> &Sealer {
        match self {
            Self::InPlace(sealer) | Self::Waiting(sealer) => sealer,
        }
    }
}

/// Looks for the key that the check was made with, and changes nothing.
pub(super) fn look(sql: Sql<'_>, source: &KeySource) -> Result<Option<MatchingKey>, OpenError> {
    let waiting = match source {
        KeySource::File(path) => Some(waiting_path(path)).filter(|path| path.exists()),
        _ => None,
    };
    // A file in its place that is no key is no reason yet to stop: the right one may be waiting.
    let present = match present(source) {
        Err(OpenError::KeyMalformed { .. }) if waiting.is_some() => None,
        present => present?,
    };
    if let Some(sealer) = fitting(sql, present)? {
        return Ok(Some(MatchingKey::InPlace(sealer)));
    }
    // The file was not renamed before its content was on disk, so that what is malformed here was never in use.
    let key = waiting.and_then(|path| read(&path).ok().flatten());
    Ok(fitting(sql, key)?.map(MatchingKey::Waiting))
}

fn fitting(sql: Sql<'_>, key: Option<SealingKey>) -> Result<Option<Sealer>, OpenError> {
    let Some(key) = key else { return Ok(None) };
    let sealer = Sealer::new(&key)?;
    let fits = check(sql)?.is_some_and(|check| opens(&sealer, &check));
    Ok(fits.then_some(sealer))
}

/// The sealed text by which the key is recognized, if a key was ever in use.
pub(super) fn check(sql: Sql<'_>) -> sql::Result<Option<Vec<u8>>> {
    sql.optional("SELECT value FROM meta WHERE name = 'key_check'", values![], |row| row.get(0))
}

/// Why what is in `source` cannot be the key.
pub(super) fn unfit(source: &KeySource) -> Result<OpenError, OpenError> {
    Ok(match (present(source)?, source) {
        (None, KeySource::File(path)) => OpenError::KeyMissing { path: path.clone() },
        _ => OpenError::KeyWrong { place: source.to_string() },
    })
}

pub(super) fn any_sealed(sql: Sql<'_>) -> sql::Result<bool> {
    sql.one(
        "SELECT EXISTS (SELECT 1 FROM accounts WHERE length(credentials) > 0)",
        values![],
        |row| row.get(0),
    )
}

/// Refuses a place for a state without accounts, where another key was in use: values that nodes share are sealed with it. A copy
/// that a move has left is replaced as a whole.
pub(super) fn refuse_other(sql: Sql<'_>, sealer: &Sealer, is_copy: bool) -> Result<(), OpenError> {
    let is_other = |check: Vec<u8>| !opens(sealer, &check);
    if !is_copy && check(sql)?.is_some_and(is_other) {
        return Err(OpenError::OtherKey);
    }
    Ok(())
}

fn opens(sealer: &Sealer, check: &[u8]) -> bool {
    sealer.unseal_bytes(CHECK, check).is_ok_and(|plain| plain == CHECK)
}

pub(super) fn note_check(sql: Sql<'_>, sealer: &Sealer) -> Result<(), OpenError> {
    let check = sealer.seal_bytes(CHECK, CHECK)?;
    sql.execute(
        "INSERT INTO meta (name, value) VALUES ('key_check', ?1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        values![check],
    )?;
    Ok(())
}

/// The key in its place, if there is one.
fn present(source: &KeySource) -> Result<Option<SealingKey>, OpenError> {
    match source {
        KeySource::File(path) => read(path),
        KeySource::Credential(path) => {
            let text = fs::read(path).map_err(OpenError::io(path))?;
            parse(&text, source).map(Some)
        }
        KeySource::Environment(value) => parse(value.expose(), source).map(Some),
    }
}

/// The key in a file, if the file is there.
pub(super) fn read(path: &Path) -> Result<Option<SealingKey>, OpenError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io(path)(error)),
    };
    let mode = fs::metadata(path).map_err(OpenError::io(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("other users may read the key file {}: give it mode 0600", path.display());
    }
    parse(&text, path.display()).map(Some)
}

fn parse(text: &[u8], place: impl ToString) -> Result<SealingKey, OpenError> {
    let bytes = BASE64_STANDARD.decode(utf8(text).trim_ascii()).unwrap_or_default();
    let key = <[u8; KEY_LEN]>::try_from(bytes.as_slice()).map(Zeroizing::new);
    key.map_err(|_| OpenError::KeyMalformed { place: place.to_string() })
}

/// A key that nobody has yet.
pub(super) fn random() -> Result<SealingKey, OpenError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    aws_lc_rs::rand::fill(&mut *key).map_err(|_| SealError::System)?;
    Ok(key)
}

fn make(path: &Path) -> Result<SealingKey, OpenError> {
    let key = random()?;
    put_new(path, |_, file| file.write_all(encode(&key).as_bytes()))
        .map_err(OpenError::io(path))?;
    Ok(key)
}

fn encode(key: &SealingKey) -> String {
    let mut text = String::with_capacity(KEY_LEN * 2);
    BASE64_STANDARD.encode_string(**key, &mut text);
    text.push('\n');
    text
}

/// The file of a new key until the state is sealed with it.
pub(super) fn waiting_path(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

/// Puts a new key on disk, to wait until the state is sealed with it. One that waited in vain is dropped: the caller has
/// seen that the state is not sealed with it.
pub(super) fn let_wait(path: &Path, key: &SealingKey) -> Result<(), OpenError> {
    let waiting = waiting_path(path);
    let io = |error| OpenError::io(&waiting)(error);
    match fs::remove_file(&waiting) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let owner = fs::metadata(path).ok();
    put_new(&waiting, |_, file| {
        // The rotation may run as root, and the server as another user.
        if let Some(owner) = &owner {
            fchown(&*file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(encode(key).as_bytes())
    })
    .map_err(io)
}

/// Replaces the key in its place by the one that waits. Only for a state that is sealed with that one.
pub(super) fn put_in_place(path: &Path) -> Result<(), OpenError> {
    fs::rename(waiting_path(path), path)
        .and_then(|()| sync_folder_of(path))
        .map_err(OpenError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_made_once_for_its_owner_only() {
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
    fn key_file_may_have_a_mark_other_line_ends_or_utf16() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        let key = make(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace('\n', "\r\n");
        let utf16 =
            |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for content in [format!("\u{feff}{text}").into_bytes(), utf16(&format!("\u{feff}{text}"))] {
            fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), key, "{content:x?}");
        }
    }

    #[test]
    fn file_that_is_not_a_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        for text in ["", "c2hvcnQ=", "%%%"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(OpenError::KeyMalformed { .. })), "{text}");
            let variable = KeySource::Environment(crate::secret::Secret::new(text.into()));
            let error = present(&variable).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("the environment variable DELTAPUSH_SEAL_KEY does not hold"),
                "{error}"
            );
        }
    }
}
