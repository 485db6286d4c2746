//! Limits on connections, commands and accounts.

use std::fs;
use std::time::Duration;

use serde::Deserialize;

use super::failed_logins::{FailedLogins, FailedLoginsKeys};
use super::units::{self, Size};

/// Memory for an account that is watched, in bytes, with room for its clients' sessions.
const ACCOUNT_MEMORY: u64 = 256 * 1024;

/// Accounts for which the smallest machine has room, and where its memory is not known.
const MIN_ACCOUNTS: u64 = 1000;

/// Limits of sessions. A client that exceeds one gets an answer that names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionLimits {
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
    /// Accounts with a device token. `None`: as many as the machine's memory has room for.
    #[serde(deserialize_with = "units::count_or_auto")]
    pub accounts: Option<usize>,
    /// New accounts from one address within a day, where the login's domain names the mail server.
    #[serde(deserialize_with = "units::count")]
    pub new_accounts_per_address: usize,
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
    /// The longest command that deltapush answers itself, and before the login, but there 16 KiB at most. 8 KiB at least, which
    /// clients may rely on (RFC 7162 section 4) and a device token needs.
    #[serde(deserialize_with = "units::size_from::<8192, _>")]
    pub command: Size,
    /// The longest response line that is held to be rewritten.
    #[serde(deserialize_with = "units::size_from::<8192, _>")]
    pub response: Size,
    /// The buffer in one direction for a slow peer.
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
    /// Connection to the mail server and login there.
    #[serde(deserialize_with = "units::duration")]
    pub upstream_time: Duration,
    /// The maximum silence of both sides.
    #[serde(deserialize_with = "units::duration")]
    pub idle_time: Duration,
    /// Limits on failed logins.
    #[serde(with = "FailedLoginsKeys")]
    pub failed_logins: FailedLogins,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            per_address: 256,
            before_login: 1000,
            before_login_per_address: 50,
            accounts: None,
            new_accounts_per_address: 50,
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

impl SessionLimits {
    /// Accounts that fit into half of the memory that this process may use.
    #[must_use]
    pub fn accounts_by_memory() -> usize {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
        // The memory limit of a container; absent or `max` elsewhere.
        let group = fs::read_to_string("/sys/fs/cgroup/memory.max")
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let memory = [machine, group].into_iter().flatten().min();
        usize::try_from(accounts_in(memory.unwrap_or_default())).unwrap_or(usize::MAX)
    }
}

fn accounts_in(memory: u64) -> u64 {
    (memory / 2 / ACCOUNT_MEMORY).max(MIN_ACCOUNTS)
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    Some(value.parse::<u64>().ok()?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_follow_memory() {
        assert_eq!(total("MemTotal:        2014632 kB\nMemFree: 1 kB\n"), Some(2_014_632 * 1024));
        assert_eq!(
            (accounts_in(8 << 30), accounts_in(1 << 30), accounts_in(0)),
            (16_384, 2048, 1000)
        );
        assert!(SessionLimits::accounts_by_memory() >= 1000);
    }
}
