//! News of the mail server: how it reaches deltapush.

use std::path::PathBuf;

use serde::Deserialize;

/// The ways in which the mail server's news reaches deltapush.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewsSettings {
    /// The Unix socket for `deltapush news`, open to every user of the machine. Default: none.
    pub socket: Option<PathBuf>,
}
