//! What one connection may cost.

use std::time::Duration;

use serde::Deserialize;

use super::failed_logins::FailedLogins;
use super::units::{self, Size};

/// The bounds of a session. Beyond one of them the client gets an answer that says so.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections from clients at once.
    #[serde(deserialize_with = "units::count")]
    pub connections: usize,
    /// Of these, from one address. IPv6 counts by /64, what one customer has.
    #[serde(deserialize_with = "units::count")]
    pub per_address: usize,
    /// Connections that are not logged in, at once.
    #[serde(deserialize_with = "units::count")]
    pub before_login: usize,
    /// Of these, from one address.
    #[serde(deserialize_with = "units::count")]
    pub before_login_per_address: usize,
    /// Commands that a client may send before its login.
    #[serde(deserialize_with = "units::count")]
    pub commands_before_login: u32,
    /// Commands among them that may be wrong.
    #[serde(deserialize_with = "units::count")]
    pub wrong_commands: u32,
    /// Logins that one connection may try.
    #[serde(deserialize_with = "units::count")]
    pub logins: u32,
    /// The longest login name, 1,024 bytes at most. A mail address has 320 (RFC 3696).
    #[serde(deserialize_with = "units::size_between::<64, 1024, _>")]
    pub login_name: Size,
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
    /// For the TLS handshake with a client.
    #[serde(deserialize_with = "units::duration")]
    pub handshake_time: Duration,
    /// From the first byte of a command to its last: before the login, and after it where deltapush holds the command.
    #[serde(deserialize_with = "units::duration")]
    pub command_time: Duration,
    /// From connection to login.
    #[serde(deserialize_with = "units::duration")]
    pub login_time: Duration,
    /// Reaching the account's own server and logging in there.
    #[serde(deserialize_with = "units::duration")]
    pub upstream_time: Duration,
    /// How long both sides may be silent.
    #[serde(deserialize_with = "units::duration")]
    pub idle_time: Duration,
    /// What failed logins may cost.
    pub failed_logins: FailedLogins,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            per_address: 256,
            before_login: 1000,
            before_login_per_address: 50,
            commands_before_login: 100,
            wrong_commands: 10,
            logins: 5,
            login_name: Size::new(320),
            command: Size::kib(64),
            response: Size::kib(256),
            buffer: Size::kib(64),
            handshake_time: Duration::from_secs(20),
            command_time: Duration::from_secs(30),
            login_time: Duration::from_secs(60),
            upstream_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(35 * 60),
            failed_logins: FailedLogins::default(),
        }
    }
}
