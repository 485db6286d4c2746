//! Result of a POST: the server's answer, and the schedule's conclusion.

use std::fmt;
use std::time::Duration;

use crate::store::Generation;

/// The outcome of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostAnswer {
    /// The server took it (2xx).
    Accepted,
    /// The server says that the token is gone (410).
    Gone,
    /// The server refuses what was sent (other 4xx).
    Refused(u16),
    /// Something that may heal.
    Failed {
        /// The kind of failure.
        failure: TransientFailure,
        /// Time for which the server asks for no POST (`Retry-After`, RFC 9110 section 10.2.3).
        retry_after: Option<Duration>,
    },
}

/// A failure that may heal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransientFailure {
    /// Answered with this status.
    Status(u16),
    /// Not answered in time.
    TimedOut,
    /// No connection, or one that broke.
    Unreachable,
}

impl TransientFailure {
    /// Reports if the server is the likely cause. A 500 may be the token's: the notification server answers so to a
    /// malformed one. The other statuses and a time-out may come from the token's endpoint as well, as others' answers
    /// show then.
    pub(super) fn is_the_servers(self) -> bool {
        matches!(self, Self::TimedOut | Self::Unreachable | Self::Status(429 | 502..=504))
    }
}

impl fmt::Display for TransientFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Unreachable => f.write_str("no connection"),
        }
    }
}

/// Why an announcement was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GiveUpReason {
    /// Nothing was accepted for as long as [`PATIENCE`](super::PATIENCE).
    #[error("not accepted within five hours")]
    TooLate,
    /// It fails for this token, and has failed so for hours while others were accepted: one attempt was enough.
    #[error("the notification server fails for this token alone, again with {0}")]
    Hopeless(TransientFailure),
    /// The server refused it several times while it accepted others.
    #[error("the notification server refuses the token with status {0}")]
    Refused(u16),
    /// The server says that the token is gone, and said so for at least a day.
    #[error("the notification server says that the token is gone (410)")]
    Gone,
}

/// Conclusion from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostConclusion {
    /// Announced up to this generation.
    Accepted(Generation),
    /// The token is in quarantine: the server says that it is gone.
    Quarantined {
        /// Number of these answers.
        answers: u32,
        /// The next attempt, if there is something to announce then.
        until: Duration,
        /// Up to which generation the announcement was given up, if it was.
        gave_up: Option<Generation>,
    },
    /// It is tried again, at this time unless the server is down or there is news.
    Retry(Duration),
    /// Given up up to this generation.
    GaveUp(Generation, GiveUpReason),
    /// The token was forgotten meanwhile.
    Dropped,
}
