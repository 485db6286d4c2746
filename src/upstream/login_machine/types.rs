//! Types of the login machine: its purpose, its steps, its results and its errors.

use crate::printable::printable;
use crate::secret::Secret;
use crate::upstream::capabilities::Capabilities;

/// The purpose of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A client's session.
    Client {
        /// True to ask a server with metadata if it pushes by itself.
        probe: bool,
    },
    /// A session of deltapush's own.
    Watch,
}

/// A line to the server.
pub struct OutgoingLine {
    /// The bytes, with their line end.
    pub bytes: Vec<u8>,
    /// The beginning of the secret: the text from there on is not for a transcript.
    pub secret_from: usize,
}

impl OutgoingLine {
    pub(super) fn secretly(bytes: Vec<u8>) -> Self {
        Self { bytes, secret_from: 0 }
    }
}

/// The input of the machine.
pub enum LoginInput<'a> {
    /// A whole response of the mail server.
    Response(&'a [u8]),
    /// The answer to [`LoginAction::StartTls`]: the connection has TLS.
    Secured,
    /// The answer to [`LoginAction::Challenge`], not encoded.
    ClientResponse(&'a Secret),
}

/// The tasks of the driver. An input leads to one of these at most.
pub enum LoginAction {
    /// Send this.
    Send(OutgoingLine),
    /// A TLS handshake. Bytes received after the answer to STARTTLS came in plaintext and from anybody: the driver gives up
    /// if there are any.
    StartTls,
    /// For the client, in base64. Only in a [`Purpose::Client`].
    Challenge(Vec<u8>),
    /// The session is authenticated.
    LoggedIn(LoggedIn),
    /// The login has failed.
    Failed(LoginError),
}

/// The result of a successful login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The tagged answer without its tag: condition, code, text; for the client.
    pub answer: Vec<u8>,
    /// Untagged lines that came with it, whole: for the client.
    pub untagged: Vec<u8>,
    /// The capabilities after the login.
    pub capabilities: Capabilities,
    /// The server pushes by itself.
    pub pushes: bool,
}

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server said no, with these words (condition, code, text): about the password, or about the moment.
    #[error("the mail server refused the login: {}", printable(.answer))]
    Refused {
        /// The tagged answer without its tag.
        answer: Vec<u8>,
        /// Untagged lines that came before it, whole.
        untagged: Vec<u8>,
    },
    /// The server closed the connection with these words.
    #[error("the mail server closed the connection: {0}")]
    Bye(String),
    /// It offers no way to log in with what the client gave: what is missing, and what there is.
    #[error("the mail server offers {0}")]
    NoMechanism(String),
    /// It offers no STARTTLS, and the route requires it.
    #[error("the mail server offers no STARTTLS; use `imaps://` in the route if it has a TLS port")]
    NoStartTls,
    /// It considers the connection authenticated already, as whom nobody knows.
    #[error("the mail server greets with PREAUTH, which does not name the owner of the mailbox")]
    Preauth,
    /// It said something that makes no sense.
    #[error("the mail server does not speak IMAP as expected ({0})")]
    Protocol(&'static str),
}
