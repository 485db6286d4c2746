//! The protocol transcript of a session: who said what, with secrets masked.
//!
//! What is secret is known from the parser's state where the bytes pass, never guessed from the text: the caller says
//! [`Piece::Masked`] instead of handing the bytes over.

mod printer;
mod sink;
#[cfg(test)]
pub(crate) mod testing;

use crate::parser::framer::{Fragment, Framer, LineEnd};
use crate::parser::response::may_have_literals;

pub use printer::Printer;
pub use sink::Sink;

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

/// What deltapush did with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Handed on byte for byte; said by the other peer.
    Relayed,
    /// Kept: the other peer does not see it.
    Kept,
    /// What the other peer got in its place.
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
    /// So many bytes of a literal: shown as their size.
    Literal(usize),
}

/// Receives a session's transcript piece by piece.
pub trait Transcript {
    /// A piece. A line is complete when a text ends with its line feed.
    fn piece(&mut self, speaker: Speaker, mark: Mark, piece: Piece<'_>);

    /// Whole lines without literals.
    fn lines(&mut self, speaker: Speaker, mark: Mark, lines: &[u8]) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.piece(speaker, mark, Piece::Text(line));
        }
    }

    /// A whole response, its literals as their sizes.
    fn response(&mut self, speaker: Speaker, mark: Mark, response: &[u8]) {
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
                Fragment::Literal { bytes, .. } => self.piece(speaker, mark, Piece::Literal(bytes.len())),
            }
        }
    }
}
