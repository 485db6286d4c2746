//! Login mechanisms and refusals for clients.

use serde::Deserialize;

/// Login mechanisms and refusals for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginSettings {
    /// Offers SCRAM. It is accepted in any case, but gives no credentials for a watch.
    pub scram: bool,
    /// True if logins with invented names, by which Delta Chat creates accounts, are refused without asking the mail
    /// server.
    pub refuse_invented: bool,
}

impl Default for LoginSettings {
    fn default() -> Self {
        Self { scram: false, refuse_invented: true }
    }
}
