//! The commands other than `run`, and their output.

pub mod account;
pub mod init;
mod password;
pub mod progress;
pub mod push_test;
pub mod qr;
pub mod route;
pub mod state;
pub mod status;
pub mod trace;

/// What was asked for was tried, and did not come about; for this reason in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfulfilled(pub(crate) String);

/// Why a command did not do what it was asked for: what happened, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// For a person.
    pub message: String,
    /// Whose move it is.
    pub fault: Fault,
}

/// Whose move it is after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Something else has to stand on the command line, or to be typed in.
    Usage,
    /// The configuration, or a file that it names, has to be changed.
    Configuration,
    /// A server has to be there.
    Unavailable,
    /// The system does not let it.
    System,
}

impl Fault {
    fn because(self, message: impl Into<String>) -> CommandError {
        CommandError { message: printable(&message.into()), fault: self }
    }
}

/// Text that may have a server's words in it, for a terminal: nothing in it can steer one.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_cannot_steer_a_terminal() {
        assert_eq!(Fault::Usage.because("no\x1b[2J\r\nway").message, "no\u{fffd}[2J\u{fffd}\nway");
    }
}
