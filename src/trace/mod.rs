//! The trace: the protocol of sessions for people to read, with secrets masked.
//!
//! Secrets are recognized by the parser's state at the place where the bytes pass, never guessed from the text: the caller
//! gives [`Piece::Masked`] instead of the bytes. A [`Recorder`] in each session makes lines of it as long as somebody
//! follows it; the shared [`Tracer`] knows the followers, and each [`Followed`] is one reader with a queue of its own.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod answers;
pub mod export;
mod files;
mod follow;
mod hub;
mod json;
mod metadata;
mod outputs;
mod queue;
mod record;
mod recorder;
#[cfg(test)]
mod redaction_tests;
mod selection;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod tracer;

use crate::parser::command::Disclosure;
use crate::parser::framer::{Fragment, Framer, LineEnd};
use crate::parser::metadata::values;
use crate::parser::response::{ResponseHead, head, may_have_literals};

pub use follow::Followed;

pub use json::MalformedLine;

pub use metadata::show_metadata;

pub use record::{ConnectionSide, LinePart, NoSession, Record, SessionId, TraceEntry};

pub use recorder::Recorder;

pub use selection::{Audience, TraceSelection};

pub use text::Renderer;

pub use tracer::Tracer;

/// On which side of deltapush something was said, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The client, to deltapush. Shown as `C:`.
    Client,
    /// deltapush, to the client. Shown as `S:`.
    ToClient,
    /// deltapush, to the upstream. Shown as `U>`.
    ToUpstream,
    /// The upstream, to deltapush. Shown as `U<`.
    Upstream,
}

/// deltapush's treatment of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Handed on byte for byte; said by the other peer.
    Relayed,
    /// Kept: the other peer does not see it.
    Kept,
    /// Kept, and what follows was handed on in its place, marked as [`Mark::Changed`].
    Replaced,
    /// The line that the other peer got in its place.
    Changed,
    /// Said by deltapush on its own.
    Own,
}

/// A piece of what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Part of a line, with or without its line end.
    Text(&'a [u8]),
    /// So many bytes that must not be shown.
    Masked(usize),
    /// Part of a literal: shown as its size, and itself only to who asks for that. Never a secret.
    Literal(&'a [u8]),
}

/// Something for a [`Transcript`], as the action of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceEvent<'a> {
    /// [`Transcript::piece`].
    Piece(Speaker, Mark, Piece<'a>),
    /// [`Transcript::command`].
    Command(&'a [u8], Disclosure),
    /// [`Transcript::note`].
    Note(&'a str),
}

impl TraceEvent<'_> {
    /// Shows it.
    pub fn show(self, transcript: &mut dyn Transcript) {
        match self {
            Self::Piece(speaker, mark, piece) => transcript.piece(speaker, mark, piece),
            Self::Command(tag, disclosure) => transcript.command(tag, disclosure),
            Self::Note(words) => transcript.note(words),
        }
    }
}

/// Receives a session's transcript piece by piece.
pub trait Transcript {
    /// A piece. A line is complete when a text ends with its line feed.
    fn piece(&mut self, speaker: Speaker, mark: Mark, piece: Piece<'_>);

    /// A command of the client's with this tag begins, of which so much may be shown. It holds for its answer too.
    fn command(&mut self, _tag: &[u8], _disclosure: Disclosure) {}

    /// Something that happened and that nobody said, in words without secrets.
    fn note(&mut self, _words: &str) {}

    /// Whole lines without literals.
    fn lines(&mut self, speaker: Speaker, mark: Mark, lines: &[u8]) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.piece(speaker, mark, Piece::Text(line));
        }
    }

    /// A whole response, its literals as such, and nothing of metadata that may be a token.
    fn response(&mut self, speaker: Speaker, mark: Mark, response: &[u8]) {
        if head(response) == Some(ResponseHead::Metadata) {
            if let Some(values) = values(response) {
                return metadata::show_values(self, speaker, mark, &values);
            }
            self.piece(speaker, mark, Piece::Masked(response.trim_ascii_end().len()));
            return self.piece(speaker, mark, Piece::Text(b"\r\n"));
        }
        let has_literals = may_have_literals(response);
        let mut framer = Framer::new();
        let mut rest = response;
        while let Some((fragment, after)) = framer.next(rest) {
            rest = after;
            match fragment {
                Fragment::Line { bytes, end } => {
                    self.piece(speaker, mark, Piece::Text(bytes));
                    if let (Some(LineEnd::Literal(announced)), true) = (end, has_literals) {
                        framer.begin_literal(announced.size);
                    }
                }
                Fragment::Literal { bytes, .. } => self.piece(speaker, mark, Piece::Literal(bytes)),
            }
        }
    }
}
