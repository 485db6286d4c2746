//! What failed logins may cost: the person who mistypes, the account that is guessed at, and the server that would ban us.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// How failed logins are slowed down and, beyond a number, refused for a while.
///
/// The upstream sees one address for all clients, ours. The defaults stay below what bans it where nobody has changed
/// anything: fail2ban (5 in 10 minutes), Stalwart (100 in a day).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailedLogins {
    /// For how long a failed login counts, except in `per_upstream_day`.
    #[serde(deserialize_with = "units::duration")]
    pub within: Duration,
    /// How long the answer to the first one waits; to each further one twice as long.
    #[serde(deserialize_with = "units::duration_or_none")]
    pub delay: Duration,
    /// Where that ends.
    #[serde(deserialize_with = "units::duration_or_none")]
    pub longest_delay: Duration,
    /// From one client address, over all accounts.
    #[serde(deserialize_with = "units::count")]
    pub per_address: usize,
    /// For one account, from all addresses.
    #[serde(deserialize_with = "units::count")]
    pub per_account: usize,
    /// At one upstream, for all accounts from all addresses: at its name, and at the address that this and others lead to.
    #[serde(deserialize_with = "units::count")]
    pub per_upstream: usize,
    /// The same in 24 hours.
    #[serde(deserialize_with = "units::count")]
    pub per_upstream_day: usize,
}

impl Default for FailedLogins {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(600),
            delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(16),
            per_address: 10,
            per_account: 3,
            per_upstream: 4,
            per_upstream_day: 90,
        }
    }
}
