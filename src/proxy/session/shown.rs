//! The session's part of the trace: pieces of lines as actions, masked where they are secret.

use super::{Session, SessionAction};
use crate::machine::Actions;
use crate::parser::command::Disclosure;
use crate::trace::{Mark, Piece, Speaker, TraceEvent, Transcript};

/// A transcript of which each piece is an action.
pub(super) struct ActionTranscript<'a, A>(pub(super) &'a mut A);

impl<A: Actions<Session>> Transcript for ActionTranscript<'_, A> {
    fn piece(&mut self, speaker: Speaker, mark: Mark, piece: Piece<'_>) {
        self.0.push(SessionAction::Trace(TraceEvent::Piece(speaker, mark, piece)));
    }

    fn command(&mut self, tag: &[u8], disclosure: Disclosure) {
        self.0.push(SessionAction::Trace(TraceEvent::Command(tag, disclosure)));
    }
}

impl Session {
    /// The last [`SessionInput::Traced`](super::SessionInput::Traced).
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.traced
    }

    /// The transcript, if somebody follows it.
    #[inline]
    pub(super) fn transcript<'a, A: Actions<Self>>(
        &self,
        out: &'a mut A,
    ) -> Option<ActionTranscript<'a, A>> {
        self.traced.then_some(ActionTranscript(out))
    }

    /// Shows a piece of a line that is handed on, masked where it is secret.
    #[inline]
    pub(super) fn show(
        &self,
        out: &mut impl Actions<Self>,
        speaker: Speaker,
        mark: Mark,
        bytes: &[u8],
        secret: bool,
    ) {
        if let Some(mut transcript) = self.transcript(out) {
            show_in(&mut transcript, speaker, mark, bytes, secret);
        }
    }
}

#[cold]
pub(super) fn show_in(
    transcript: &mut dyn Transcript,
    speaker: Speaker,
    mark: Mark,
    bytes: &[u8],
    secret: bool,
) {
    if secret {
        show_masked(transcript, speaker, mark, bytes);
    } else {
        transcript.piece(speaker, mark, Piece::Text(bytes));
    }
}

/// Shows how long a piece of a line is, and whether it ends the line.
fn show_masked(transcript: &mut dyn Transcript, speaker: Speaker, mark: Mark, bytes: &[u8]) {
    let text = bytes.trim_ascii_end();
    transcript.piece(speaker, mark, Piece::Masked(text.len()));
    if bytes.ends_with(b"\n") {
        transcript.piece(speaker, mark, Piece::Text(b"\r\n"));
    }
}
