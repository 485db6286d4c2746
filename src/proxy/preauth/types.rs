//! Types of the machine before the login: its limits, its inputs and its actions.

use std::time::{Duration, Instant};

use super::{NotAuthenticated, ShownCommand};
use crate::credentials::Credentials;
use crate::machine::Machine;
use crate::parser::sasl::SaslLine;
use crate::trace::{Mark, Speaker, Transcript};

/// The bounds of a client before its login.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// The longest command, in bytes.
    pub command: usize,
    /// Commands in all.
    pub commands: u32,
    /// Commands among them that may be wrong.
    pub wrong: u32,
    /// Logins: each costs a connection to the upstream, and guesses a password there.
    pub logins: u32,
    /// The longest login name, in bytes.
    pub login_name: usize,
    /// Time limit of a command, from its first byte to its last.
    pub command_time: Duration,
}

/// The protection of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS is on.
    Tls,
    /// TLS is offered, and required before the login.
    StartTls,
    /// There is none, and the configuration wants it so.
    None,
}

/// The input of the machine.
#[derive(Debug, Clone, Copy)]
pub enum PreauthInput<'a> {
    /// The connection is ready. First of all, and once.
    Start,
    /// Bytes of the client, from the first on that was not used before.
    Received(&'a [u8]),
    /// Nothing but time.
    Tick,
    /// The client is sent a challenge of the upstream's: its next line is a [`PreauthEvent::Response`].
    Challenge,
    /// The last login was refused, with these lines for the client.
    Refused(&'a [u8]),
}

/// The driver's next step.
pub enum PreauthAction<'a> {
    /// For the transcript: the client has sent this.
    Show(ShownCommand<'a>),
    /// Send these lines to the client.
    Send(&'a [u8]),
    /// So many bytes of the input were used. The rest is to be given again, to this machine or to its successor.
    Used(usize),
    /// After all else was done: what only the driver can do.
    Event(PreauthEvent),
}

/// Events that need the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum PreauthEvent {
    /// A TLS handshake, and a new machine on top of it. Bytes that the client sent in plaintext are to be thrown away.
    StartTls,
    /// Find out whether the upstream accepts these; the answer goes under this tag, and if it is a refusal through
    /// [`PreauthInput::Refused`].
    Login {
        /// The command's tag.
        tag: Vec<u8>,
        /// The client's credentials.
        credentials: Credentials,
    },
    /// The client's answer to a challenge of the upstream's.
    Response(SaslLine),
    /// Close the connection.
    Close,
    /// The same, because the client took too long.
    TimedOut,
}

/// The actions of one input, gathered: answers that go out in one write, and what is to be done after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PreauthTurn {
    /// The number of input bytes that were used.
    pub used: usize,
    /// Lines for the client.
    pub answer: Vec<u8>,
    /// The event after the answers, if there is one.
    pub event: Option<PreauthEvent>,
}

impl PreauthTurn {
    /// Gives the machine an input, and shows the transcript what is said.
    pub fn of(
        machine: &mut NotAuthenticated,
        input: PreauthInput<'_>,
        now: Instant,
        mut transcript: Option<&mut dyn Transcript>,
    ) -> Self {
        let mut turn = Self::default();
        let mut take = |action: PreauthAction<'_>| match action {
            PreauthAction::Show(command) => {
                if let Some(transcript) = transcript.as_deref_mut() {
                    command.show(transcript);
                }
            }
            PreauthAction::Send(lines) => {
                if let Some(transcript) = transcript.as_deref_mut() {
                    transcript.lines(Speaker::ToClient, Mark::Own, lines);
                }
                turn.answer.extend_from_slice(lines);
            }
            PreauthAction::Used(used) => turn.used = used,
            PreauthAction::Event(event) => turn.event = Some(event),
        };
        machine.handle(input, now, &mut take);
        turn
    }
}
