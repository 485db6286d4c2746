//! Limits on failed logins, for the user who mistypes, the account under attack, and the mail server that would
//! ban deltapush.

use std::time::Duration;

use serde::Deserialize;

use super::units;
pub use crate::policy::FailedLogins;

/// The keys of [`FailedLogins`] in the file.
#[derive(Deserialize)]
#[serde(remote = "FailedLogins", default = "FailedLogins::default", deny_unknown_fields)]
pub(super) struct FailedLoginsKeys {
    #[serde(deserialize_with = "units::duration")]
    within: Duration,
    #[serde(deserialize_with = "units::duration_or_none")]
    delay: Duration,
    #[serde(deserialize_with = "units::duration_or_none")]
    longest_delay: Duration,
    #[serde(deserialize_with = "units::count")]
    per_address: usize,
    #[serde(deserialize_with = "units::count")]
    per_account: usize,
    #[serde(deserialize_with = "units::count")]
    per_upstream: usize,
    #[serde(deserialize_with = "units::count")]
    per_upstream_day: usize,
}
