//! The database that several nodes share: its URL, trusted authorities and password file.

use std::path::PathBuf;

use serde::Deserialize;

use super::error::ConfigProblem;
use super::{Config, Keep, Located, PostgresUrl, Trust};

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Hosts, database and user.
    pub url: Located<PostgresUrl>,
    /// Trusted authorities for the servers' certificates.
    #[serde(default = "system")]
    pub ca: Trust,
    /// The file with the password. Default: see `store::PasswordSource`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

fn system() -> Trust {
    Trust::System
}

/// Conflicts with other keys.
pub(super) fn problems(config: &Config) -> impl Iterator<Item = ConfigProblem> {
    let storage = &config.startup.storage;
    let problem = storage.postgres.as_ref().and_then(|postgres| {
        let reason = match storage.credentials {
            Keep::Sealed => return None,
            Keep::Memory => {
                "`credentials: memory` and `postgres` do not go together: a node that takes over has no passwords"
            }
            Keep::None => {
                "`credentials: none` and `postgres` do not go together: a kept session cannot move to another node"
            }
        };
        let message = format!("{reason}; use `credentials: sealed`, with the same key on each node");
        Some(ConfigProblem::new(postgres.url.place(), message))
    });
    problem.into_iter()
}
