//! Settings of the state: its directory or database, and the storage of credentials.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::postgres_settings::PostgresSettings;
use crate::config::{Keep, Storage};
use crate::secret::Secret;

/// The credential's name for systemd (`LoadCredential=`, systemd.exec(5)).
const CREDENTIAL: &str = "deltapush-seal-key";
/// The environment variable that may hold the key.
const VARIABLE: &str = "DELTAPUSH_SEAL_KEY";

/// Place and form of the state.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The folder of the state file, made with mode 0700 if it is not there.
    pub directory: PathBuf,
    /// The database that has the state in place of the file, for several nodes.
    pub postgres: Option<PostgresSettings>,
    /// Storage of credentials.
    pub credentials: CredentialStorage,
}

/// Storage of credentials.
#[derive(Debug, Clone)]
pub enum CredentialStorage {
    /// They are sealed with the key from there.
    Sealed(KeySource),
    /// They are in memory only.
    Memory,
    /// There are none: clients' own sessions are kept instead.
    None,
}

/// Source of the key that seals credentials.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A file of deltapush's own, made if it is not there.
    File(PathBuf),
    /// The file that systemd made of a credential.
    Credential(PathBuf),
    /// The value of the environment variable.
    Environment(Secret),
}

impl StoreSettings {
    /// The settings from the configuration and this process's environment.
    #[must_use]
    pub fn new(storage: &Storage) -> Self {
        let credentials = match storage.credentials {
            Keep::Sealed => {
                CredentialStorage::Sealed(KeySource::find(storage.key_path(), |name| {
                    std::env::var_os(name)
                }))
            }
            Keep::Memory => CredentialStorage::Memory,
            Keep::None => CredentialStorage::None,
        };
        let postgres = storage.postgres.as_ref().map(PostgresSettings::new);
        Self { directory: storage.directory.clone(), postgres, credentials }
    }

    /// A state with its key in the same folder.
    #[must_use]
    pub fn sealed(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let key = KeySource::File(directory.join("seal.key"));
        Self { directory, postgres: None, credentials: CredentialStorage::Sealed(key) }
    }

    /// A state without credentials.
    #[must_use]
    pub fn memory(directory: impl Into<PathBuf>) -> Self {
        let credentials = CredentialStorage::Memory;
        Self { directory: directory.into(), postgres: None, credentials }
    }

    /// A state without credentials, of accounts whose clients' sessions are kept.
    #[must_use]
    pub fn none(directory: impl Into<PathBuf>) -> Self {
        let credentials = CredentialStorage::None;
        Self { directory: directory.into(), postgres: None, credentials }
    }

    /// Reports if clients' sessions are kept, and no credentials.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        matches!(self.credentials, CredentialStorage::None)
    }
}

impl KeySource {
    /// The first that is there of systemd's credential, the environment variable, and the file.
    fn find(file: PathBuf, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let credential = variable("CREDENTIALS_DIRECTORY")
            .map(|directory| Path::new(&directory).join(CREDENTIAL));
        match (credential.filter(|path| path.exists()), variable(VARIABLE)) {
            (Some(path), _) => Self::Credential(path),
            (None, Some(value)) => Self::Environment(Secret::new(value.into_vec())),
            (None, None) => Self::File(file),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Credential(path) => write!(f, "systemd's credential {}", path.display()),
            Self::Environment(_) => write!(f, "the environment variable {VARIABLE}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_source_that_is_there_counts() {
        let directory = tempfile::tempdir().unwrap();
        let find = |set: &[(&str, &str)]| {
            let set: Vec<_> = set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
                .collect();
            let variable = |name: &str| {
                set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            };
            KeySource::find("/etc/seal.key".into(), variable).to_string()
        };
        let credentials = ("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap());
        let environment = ("DELTAPUSH_SEAL_KEY", "sesame");
        assert_eq!(find(&[]), "/etc/seal.key");
        assert_eq!(find(&[credentials]), "/etc/seal.key", "the folder may hold other credentials");
        assert_eq!(
            find(&[credentials, environment]),
            "the environment variable DELTAPUSH_SEAL_KEY"
        );
        let path = directory.path().join("deltapush-seal-key");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(
            find(&[credentials, environment]),
            format!("systemd's credential {}", path.display())
        );
    }
}
