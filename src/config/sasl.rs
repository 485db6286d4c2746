//! Login mechanisms and refusals for clients.

use serde::Deserialize;

/// How clients log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginSettings {
    /// Whether SCRAM is among the mechanisms that are offered. It is accepted in any case, but leaves nothing to watch with.
    pub scram: bool,
    /// Whether logins with names that Delta Chat has invented, to make an account, are refused without asking the mail server.
    pub refuse_invented: bool,
}

impl Default for LoginSettings {
    fn default() -> Self {
        Self { scram: false, refuse_invented: true }
    }
}
