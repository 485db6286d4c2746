//! Requests of the control socket and the first line of the answer: one line of JSON each.

use serde::{Deserialize, Serialize};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum ControlQuestion {
    /// How everything is: a [`StatusReport`](super::report::StatusReport) as JSON.
    Status {
        /// Only the accounts in whose name or server one of these stands; none for all.
        #[serde(default)]
        names: Vec<String>,
    },
    /// What happened to an account lately: an [`AccountHistory`](super::timeline::AccountHistory) as JSON.
    Account(AccountName),
    /// Erase all that is kept of an account.
    Forget(AccountName),
    /// Begin the watch of an account anew. The answer is a line of [`TaskProgress`] for each thing that happens.
    Rewatch(AccountName),
    /// Wake devices of an account, and wait until they connect. The answer is as that of `Rewatch`.
    PushTest {
        /// Which account.
        #[serde(flatten)]
        account: AccountName,
        /// Only the device whose token's short hash begins so.
        device: Option<String>,
        /// How long to wait for it, in seconds.
        seconds: u64,
    },
    /// The protocol of running sessions as JSON Lines, until whoever asks hangs up.
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

/// How something goes that takes a while. The last one says how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskProgress {
    /// What has happened, for a person.
    pub words: String,
    /// Whether it came about, once that is known.
    pub done: Option<bool>,
}

/// What of the protocol is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedTrace {
    /// A login name: only sessions of accounts that go by it.
    pub account: Option<String>,
    /// A session, as the trace calls it: only that one.
    pub session: Option<String>,
    /// One side only.
    pub side: Option<AskedSide>,
    /// What stands in literals too.
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

/// The first line of an answer. What was asked for follows, up to the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlVerdict {
    /// It follows.
    Ok,
    /// It cannot be answered, for this reason in words.
    No(String),
}
