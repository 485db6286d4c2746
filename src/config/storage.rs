//! What survives a restart, and where it lies.

use std::path::PathBuf;

use serde::Deserialize;

/// Where accounts, tokens, mailbox positions and sealed passwords are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Made with mode 0700 at the first start.
    pub directory: PathBuf,
    /// The key that seals passwords, if it is to lie elsewhere than in the directory. See [`Storage::key_path`].
    pub key_file: Option<PathBuf>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { directory: "state".into(), key_file: None }
    }
}

impl Storage {
    /// Where the sealing key lies: `key_file`, or `seal.key` in the directory.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.directory.join("seal.key"))
    }
}
