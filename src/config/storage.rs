//! The persistent state: folder, database, stored credentials, key.

use std::path::PathBuf;

use serde::Deserialize;

use super::Postgres;

/// Storage of accounts, tokens, mailbox positions and sealed passwords.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Made with mode 0700 at the first start.
    pub directory: PathBuf,
    /// The database that several nodes share. Default: none, the state is in the directory.
    pub postgres: Option<Postgres>,
    /// Storage of passwords.
    pub credentials: Keep,
    /// The path of the key that seals passwords, if not in the directory. See [`Storage::key_path`].
    pub key_file: Option<PathBuf>,
}

/// Storage of the passwords for watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// On disk, sealed with a key that is not part of the state.
    Sealed,
    /// In memory only: after a restart each device has to log in once.
    Memory,
    /// Not stored: the client's own session is kept and watched after the client hung up. See docs/keeping.md.
    None,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            directory: "state".into(),
            postgres: None,
            credentials: Keep::Sealed,
            key_file: None,
        }
    }
}

impl Storage {
    /// The path of the sealing key, if systemd or the environment provide none: `key_file`, or `seal.key` in the
    /// directory.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.directory.join("seal.key"))
    }
}
