//! What comes of a POST: the answer, and what it means.

use std::time::Duration;

use crate::store::Generation;

/// How a POST ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The server took it (2xx).
    Accepted,
    /// The server says that the token is gone (410).
    Gone,
    /// The server refuses what was sent, and would again (other 4xx).
    Refused(u16),
    /// Something that may heal.
    Failed {
        /// What it was.
        failure: Failure,
        /// How long the server wants to be left alone (`Retry-After`, RFC 9110 section 10.2.3).
        retry_after: Option<Duration>,
    },
}

/// What may heal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Answered with this status.
    Status(u16),
    /// Not answered in time.
    TimedOut,
    /// No connection, or one that broke.
    Unreachable,
}

impl Failure {
    /// The status, if the failure may be the token's own.
    pub(super) fn of_the_token(self) -> Option<u16> {
        match self {
            Self::Status(status) if !self.is_the_servers() => Some(status),
            _ => None,
        }
    }

    /// Whether it has nothing to do with the token. A 500 may: the notification server answers so to a malformed token.
    pub(super) fn is_the_servers(self) -> bool {
        matches!(self, Self::TimedOut | Self::Unreachable | Self::Status(429 | 502..=504))
    }
}

/// Why an announcement was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GivenUp {
    /// Nothing was accepted for as long as [`PATIENCE`](super::PATIENCE).
    #[error("not accepted within five hours")]
    TooLate,
    /// It fails for this token, and has failed so for hours while others were accepted: one attempt was enough.
    #[error("the notification server fails for this token alone, again with status {0}")]
    Hopeless(u16),
    /// The server refused it for good.
    #[error("the notification server refuses the token with status {0}")]
    Refused(u16),
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Announced up to this generation.
    Accepted(Generation),
    /// The token is to be forgotten everywhere.
    Forget,
    /// It is tried again, at this time unless the server is down or there is news.
    Retry(Duration),
    /// Given up up to this generation.
    GaveUp(Generation, GivenUp),
    /// Nobody wants it announced any more: the token was forgotten meanwhile.
    Dropped,
}
