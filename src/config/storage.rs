//! The persistent state: folder, stored credentials, key.

use std::path::PathBuf;

use serde::Deserialize;

/// Where accounts, tokens, mailbox positions and sealed passwords are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Made with mode 0700 at the first start.
    pub directory: PathBuf,
    /// What becomes of passwords.
    pub credentials: Keep,
    /// The key that seals passwords, if it is to lie elsewhere than in the directory. See [`Storage::key_path`].
    pub key_file: Option<PathBuf>,
}

/// What becomes of the passwords that watchers log in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// On disk, sealed with a key that is no part of the state.
    Sealed,
    /// In memory only: after a restart each device has to log in once.
    Memory,
    /// Nowhere: the client's own session goes on watching when the client is gone. See docs/keeping.md.
    None,
}

impl Default for Storage {
    fn default() -> Self {
        Self { directory: "state".into(), credentials: Keep::Sealed, key_file: None }
    }
}

impl Storage {
    /// Where the sealing key lies, if nothing else gives it: `key_file`, or `seal.key` in the directory.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.directory.join("seal.key"))
    }
}
