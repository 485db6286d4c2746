//! How clients log in.

use serde::Deserialize;

/// How clients log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// Whether SCRAM is among the mechanisms that are offered. It is accepted in any case, but leaves nothing to watch with.
    pub scram: bool,
}
