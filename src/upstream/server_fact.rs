//! Facts about mail servers, in the form in which nodes of one service tell one another.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A fact about a mail server, or about the mail servers of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFact {
    /// The login method that works where the usual one does not.
    Method(MethodFact),
    /// The servers of a domain, as it names them.
    Servers(DomainFact),
    /// Whether the server sends push notifications itself.
    Pushes {
        /// The name of the route's target.
        server: String,
        /// True if it does.
        pushes: bool,
    },
}

/// A login method of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodFact {
    pub(super) host: String,
    pub(super) port: u16,
    /// For access tokens; else for passwords.
    pub(super) is_token: bool,
    /// The SASL mechanism; `None` for the LOGIN command.
    pub(super) mechanism: Option<String>,
    /// Its first message goes into the command's line.
    pub(super) initial: bool,
}

/// The servers of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainFact {
    pub(super) domain: String,
    /// The terms under which they were looked for: a hash that differs between versions of the program, at most.
    pub(super) terms: u64,
    pub(super) servers: Vec<ServerOffer>,
    /// Lifetime of the answer, from when it was found.
    pub(super) lasts: Duration,
}

/// A server as its domain names it, and the name that its certificate must be made out for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOffer {
    pub(super) host: String,
    pub(super) port: u16,
    /// TLS from the first byte; else STARTTLS.
    pub(super) is_tls: bool,
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) by_local_part: bool,
    pub(super) identity: String,
}

/// A fact, and how long ago it was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedFact {
    /// The fact.
    pub fact: ServerFact,
    /// Its age.
    pub age: Duration,
}

impl ServerFact {
    /// Its subject: a later fact of the same name replaces it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Method(MethodFact { host, port, is_token, .. }) => {
                format!("method {host}:{port} {}", if *is_token { "token" } else { "password" })
            }
            Self::Servers(DomainFact { domain, terms, .. }) => format!("domain {domain} {terms:x}"),
            Self::Pushes { server, .. } => format!("pushes {server}"),
        }
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers: nothing that JSON has no form for.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From these bytes. None if another version has written them in a form of its own.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}
