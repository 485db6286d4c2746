//! Reasons why there is no authenticated session with a mail server.

use std::io;
use std::time::Duration;

use super::discovery::DiscoveryError;
use super::login_machine::LoginError;
use super::refusal::{LoginRefusal, classify_bye};
use crate::parser::reader::ResponseTooLong;

/// Why there is no session with an upstream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("cannot reach the mail server: {0}")]
    Unreachable(#[source] io::Error),
    /// The TLS handshake failed, perhaps because of the certificate.
    #[error("the TLS handshake with the mail server failed: {}", in_words(.0))]
    Tls(#[source] io::Error),
    /// The connection broke.
    #[error("the connection to the mail server broke: {}", in_words(.0))]
    Broken(#[source] io::Error),
    /// It took too long.
    #[error("the mail server did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// A response was too long, or there were too many.
    #[error("the mail server sent too much data before the login was complete")]
    TooMuch,
    /// Plaintext came after the answer to STARTTLS: somebody may have put it there.
    #[error(
        "the mail server sent plaintext after its answer to STARTTLS, which an attacker on the way could have added"
    )]
    Injected,
    /// The server refused.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The server's place is not known.
    #[error(transparent)]
    NotFound(#[from] DiscoveryError),
    /// It ended without an answer, after the server had complained.
    #[error("the mail server said \"{words}\"; then: {end}")]
    Complaint {
        /// Its words.
        words: String,
        /// Its end.
        end: Box<ConnectError>,
    },
    /// There was no [`Permit`](super::permit::Permit): nothing was said to the server.
    #[error("other logins at this mail server go before this one, try again in a moment")]
    NoPermit,
}

impl ConnectError {
    /// Reports if another address may lead to the server although this one did not.
    pub(super) fn is_about_the_way(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Tls(_) | Self::Broken(_) | Self::TimedOut(_))
    }

    /// Reports if the server did not answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.end(), Self::TimedOut(_))
    }

    /// Reports if the server ended the connection without a reason that would also hold for the next one.
    pub(super) fn is_cut_off(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Login(LoginError::Bye(words)) => classify_bye(words) == LoginRefusal::Unclear,
            _ => false,
        }
    }

    /// The same, with what the server had complained of before, where it says nothing of that itself.
    pub(super) fn after(self, complaint: Option<String>) -> Self {
        match (self, complaint) {
            (
                end @ (Self::Broken(_)
                | Self::TimedOut(_)
                | Self::TooMuch
                | Self::Login(LoginError::Bye(_) | LoginError::Protocol(_))),
                Some(words),
            ) => Self::Complaint { words, end: Box::new(end) },
            (error, _) => error,
        }
    }

    /// The error that ended it, without the server's earlier complaints.
    #[must_use]
    pub fn end(&self) -> &Self {
        match self {
            Self::Complaint { end, .. } => end.end(),
            _ => self,
        }
    }
}

/// An I/O error in words for a person: rustls explains a connection that just ends at length.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection".into(),
        _ => error.to_string(),
    }
}

impl From<ResponseTooLong> for ConnectError {
    fn from(_: ResponseTooLong) -> Self {
        Self::TooMuch
    }
}
