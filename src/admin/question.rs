//! Requests of the control socket and the first line of the answer: one line of JSON each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest wait for a device.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum ControlQuestion {
    /// Asks if deltapush answers. Nothing follows.
    Alive,
    /// The status: a [`StatusReport`](super::report::StatusReport) as JSON.
    Status {
        /// Only the accounts whose name or server contains one of these; empty for all.
        #[serde(default)]
        names: Vec<String>,
    },
    /// The recent history of an account: an [`AccountHistory`](super::timeline::AccountHistory) as JSON.
    Account(AccountName),
    /// Erase an account.
    Forget(AccountName),
    /// Restart the watch of an account. The answer is a line of [`TaskProgress`] for each event.
    Rewatch(AccountName),
    /// Wake devices of an account, and wait until they connect. The answer is as that of `Rewatch`.
    PushTest {
        /// The account.
        #[serde(flatten)]
        account: AccountName,
        /// Only the device whose token's short hash has this prefix.
        device: Option<String>,
        /// Time to wait for it, in seconds.
        seconds: u64,
    },
    /// The protocol of running sessions as JSON Lines, until the operator's command hangs up.
    Trace(AskedTrace),
}

/// An account by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountName {
    /// Its login name, or `NAME@SERVER`.
    pub name: String,
    /// Its server, with or without the port, where the name alone is not clear.
    pub server: Option<String>,
}

/// Progress of a long action. The last one contains the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskProgress {
    /// The event, as text.
    pub words: String,
    /// The outcome, once it is known: `true` for success.
    pub done: Option<bool>,
}

/// Selection of sessions and lines to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedTrace {
    /// Only sessions of accounts with this login name.
    pub account: Option<String>,
    /// A session, as the trace calls it: only that one.
    pub session: Option<String>,
    /// One side only.
    pub side: Option<AskedSide>,
    /// Include the content of literals.
    pub literals: bool,
}

/// One side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskedSide {
    /// Between client and deltapush.
    Client,
    /// Between deltapush and upstream.
    Upstream,
}

/// The first line of an answer. The rest follows up to the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlVerdict {
    /// It follows.
    Ok,
    /// It cannot be answered, for this reason in words.
    No(String),
}
