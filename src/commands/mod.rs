//! The commands other than `run`, and their output.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;

pub mod account;
mod capability_words;
pub mod check;
pub mod doctor;
mod findings;
pub mod init;
pub mod news;
mod password;
pub mod progress;
pub mod push_test;
pub mod qr;
pub mod state;
pub mod status;
pub mod trace;

/// The configuration of the service, if it is there.
#[must_use]
pub fn service_config() -> Option<PathBuf> {
    let file = PathBuf::from(findings::systemd::SERVICE_CONFIG);
    file.exists().then_some(file)
}

/// Writes `text` to standard output. A reader that has closed the pipe, as `head` does, is no error.
///
/// # Errors
/// If standard output does not take it.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print")
        }
        _ => Ok(()),
    }
}

/// The requested action was tried without success, for this reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfulfilled(pub(crate) String);

/// Failure of a command: the problem and the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// For a person.
    pub message: String,
    /// The kind of fault.
    pub fault: Fault,
}

/// The kind of fault behind a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command line or the input is wrong.
    Usage,
    /// The configuration, or a file that it names, is wrong.
    Configuration,
    /// A server is missing.
    Unavailable,
    /// The operating system refused.
    System,
    /// The input makes no sense.
    Data,
    /// It may succeed later.
    Later,
    /// The user may not do it.
    Permission,
}

impl Fault {
    fn because(self, message: impl Into<String>) -> CommandError {
        CommandError { message: printable(&message.into()), fault: self }
    }
}

/// Text with foreign parts for a terminal, with control characters escaped.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_words_cannot_steer_a_terminal() {
        assert_eq!(Fault::Usage.because("no\x1b[2J\r\nway").message, "no\u{fffd}[2J\u{fffd}\nway");
    }
}
