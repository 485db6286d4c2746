//! What an operator's command may ask of a running deltapush, and how the answer begins: a line of JSON each.

use serde::{Deserialize, Serialize};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Question {
    /// How everything is: a [`Report`](super::report::Report) as JSON.
    Status {
        /// Only the accounts in whose name or server one of these stands; none for all.
        #[serde(default)]
        names: Vec<String>,
    },
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
