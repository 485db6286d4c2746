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
    /// The mail server's news of a message. Its header follows the line. The answer is a [`NewsAnswer`] as JSON.
    News(AskedNews),
}

impl ControlQuestion {
    /// The length of the header that follows the question, in bytes.
    pub(super) fn header_bytes(&self) -> usize {
        match self {
            Self::News(told) => told.header_bytes,
            _ => 0,
        }
    }
}

/// The mail server's news, without the header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedNews {
    /// The account: its user at the mail server, or one of its addresses.
    pub name: String,
    /// The mailbox of the message; empty for INBOX.
    #[serde(default)]
    pub mailbox: String,
    /// The UID of the message.
    pub uid: Option<u64>,
    /// UIDVALIDITY of the mailbox.
    pub uid_validity: Option<u64>,
    /// The sender's address, in place of a header.
    pub from: Option<String>,
    /// The length of the header, in bytes; 0 if it is not known.
    #[serde(default)]
    pub header_bytes: usize,
}

impl AskedNews {
    /// News of an account with this name, and no more.
    #[must_use]
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// The outcome of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewsAnswer {
    /// It is accepted, with this effect, in words.
    Accepted(String),
    /// It is not accepted.
    Refused {
        /// The kind of reason.
        kind: NewsRefusal,
        /// The reason and the remedy.
        words: String,
    },
}

/// A kind of reason for which news is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewsRefusal {
    /// It makes no sense.
    Invalid,
    /// The configuration does not permit it.
    NotConfigured,
    /// It can be accepted later.
    Later,
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
