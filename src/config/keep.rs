//! Kept sessions: clients' sessions after the client hung up, with `storage.credentials: none`.

use std::time::Duration;

use serde::Deserialize;

use super::units;
use super::watch::Rate;

/// Kept sessions and call-backs of devices. Without effect where passwords are stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepSettings {
    /// Sessions that are kept at once, over all accounts. Of each account it is the newest.
    #[serde(deserialize_with = "units::count")]
    pub sessions: usize,
    /// While a client waits for mail itself: how long its own FETCH is waited for, by which new mail is judged; zero for a push
    /// to the account's other devices at once.
    #[serde(deserialize_with = "units::duration_or_none")]
    pub wait_for_fetch: Duration,
    /// True if a client that returns with the same password resumes the kept session.
    pub hand_back: bool,
    /// The least time between two calls to the devices of an account whose session has ended.
    #[serde(deserialize_with = "units::duration")]
    pub call_again: Duration,
    /// Number of accounts whose devices are called per time, in all.
    pub calls: Rate,
}

impl Default for KeepSettings {
    fn default() -> Self {
        Self {
            sessions: 20_000,
            wait_for_fetch: Duration::from_secs(10),
            hand_back: true,
            call_again: Duration::from_secs(3600),
            calls: Rate::per_second(10),
        }
    }
}
