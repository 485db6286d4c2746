//! What one connection may cost.

use std::time::Duration;

use serde::Deserialize;

use super::units::{self, Size};

/// The bounds of a session. Beyond one of them the client gets an answer that says so.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections from clients at once.
    #[serde(deserialize_with = "units::count")]
    pub connections: usize,
    /// The longest command line before login, and the longest command that deltapush answers itself. 8 KiB at least, which
    /// clients may rely on (RFC 7162 section 4) and a device token needs.
    #[serde(deserialize_with = "units::size_from::<8192, _>")]
    pub command: Size,
    /// The longest response line that is held to be rewritten.
    #[serde(deserialize_with = "units::size_from::<8192, _>")]
    pub response: Size,
    /// What may wait in one direction for a peer that reads slowly.
    #[serde(deserialize_with = "units::size_from::<4096, _>")]
    pub buffer: Size,
    /// From connection to login.
    #[serde(deserialize_with = "units::duration")]
    pub login_time: Duration,
    /// Reaching the account's own server and logging in there.
    #[serde(deserialize_with = "units::duration")]
    pub upstream_time: Duration,
    /// How long both sides may be silent.
    #[serde(deserialize_with = "units::duration")]
    pub idle_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            command: Size::kib(64),
            response: Size::kib(256),
            buffer: Size::kib(64),
            login_time: Duration::from_secs(60),
            upstream_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(35 * 60),
        }
    }
}
