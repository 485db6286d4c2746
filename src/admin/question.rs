//! What an operator's command may ask of a running deltapush, and how the answer begins: a line of JSON each.

use serde::{Deserialize, Serialize};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Question {
    /// How everything is, in words.
    Status,
    /// The protocol of running sessions as JSON Lines, until whoever asks hangs up.
    Trace(AskedTrace),
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
pub enum Verdict {
    /// It follows.
    Ok,
    /// It cannot be answered, for this reason in words.
    No(String),
}
