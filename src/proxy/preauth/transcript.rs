//! The transcript of a client before its login.

use crate::parser::command::{self, Disclosure, Verb};
use crate::trace::{Mark, Piece, Speaker, Transcript};

/// A command, or a line of a SASL exchange, for the transcript.
pub struct ShownCommand<'a> {
    pub(super) command: &'a [u8],
    pub(super) is_sasl: bool,
}

impl ShownCommand<'_> {
    /// Shows tag and verb of a command that has a place before the login, and the arguments of ID. A line of a SASL exchange, and
    /// whatever else, may be a password.
    pub fn show(&self, transcript: &mut dyn Transcript) {
        use Verb::{Authenticate, Id, Login};
        let Self { command, is_sasl } = *self;
        let text = command.trim_ascii_end();
        let head = command::head(command).filter(|_| !is_sasl);
        let disclosure = head.map_or(Disclosure::Nothing, |head| match head.verb {
            Id => Disclosure::All,
            _ => head.disclosure(command).min(Disclosure::Head),
        });
        let shown = match disclosure {
            Disclosure::Nothing => 0,
            Disclosure::Head => head.map_or(0, |head| head.len),
            Disclosure::All => text.len(),
        };
        if let Some(head) = head {
            // The server's answer to a login is looked through for the password before it is shown.
            let is_login = matches!(head.verb, Login | Authenticate);
            transcript.command(head.tag, if is_login { Disclosure::All } else { disclosure });
        }
        let mut piece = |piece| transcript.piece(Speaker::Client, Mark::Kept, piece);
        let (plain, secret) = text.split_at_checked(shown).unwrap_or((text, &[]));
        piece(Piece::Text(plain));
        piece(Piece::Masked(secret.len()));
        piece(Piece::Text(b"\r\n"));
    }
}
