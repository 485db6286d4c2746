//! `parser::framer`: bytes are conserved, and any chunking gives the same pieces.

use deltapush::parser::framer::{Announcement, Fragment, Framer, LineEnd};

use super::events;

/// A piece, with what came of it in several chunks joined: they follow on each other, so that its length says which bytes.
#[derive(Debug, PartialEq)]
struct Piece {
    len: usize,
    is_literal: bool,
    end: Option<LineEnd>,
}

pub(crate) fn check(data: &[u8]) {
    let (settings, stream) = events::settings(data);
    // The caller knows whether a literal follows: here one does for every announcement, or for those of one kind.
    let follows = |announced: Announcement| settings & 1 == 0 || !announced.synchronizing;
    let step = usize::from(settings >> 1).max(2);
    let whole = pieces(stream.chunks(stream.len().max(1)), follows);
    assert_eq!(pieces(stream.chunks(1), follows), whole, "byte by byte");
    assert_eq!(pieces(stream.chunks(step), follows), whole, "in chunks of {step}");
    assert_eq!(
        whole.iter().map(|piece| piece.len).sum::<usize>(),
        stream.len(),
        "a byte was lost or made up"
    );
    let mut rest = stream;
    for (index, piece) in whole.iter().enumerate() {
        let (bytes, after) = rest.split_at(piece.len);
        rest = after;
        let is_last = index + 1 == whole.len();
        assert!(
            piece.is_literal || is_last || piece.end.is_some(),
            "only the last line may be unfinished"
        );
        assert!(
            piece.is_literal || piece.end.is_some() == bytes.ends_with(b"\n"),
            "a line ends with its line feed"
        );
    }
}

fn pieces<'a>(
    chunks: impl Iterator<Item = &'a [u8]>,
    follows: impl Fn(Announcement) -> bool,
) -> Vec<Piece> {
    let mut framer = Framer::new();
    let mut pieces: Vec<Piece> = vec![];
    let mut is_open = false;
    for chunk in chunks {
        let mut input = chunk;
        while let Some((fragment, rest)) = framer.next(input) {
            assert_eq!(fragment.bytes().as_ptr(), input.as_ptr(), "pieces follow on each other");
            assert_eq!(fragment.bytes().len() + rest.len(), input.len());
            assert!(!fragment.bytes().is_empty(), "a step that takes nothing would go on for ever");
            input = rest;
            let (is_literal, end, is_complete) = match fragment {
                Fragment::Line { end, .. } => (false, end, end.is_some()),
                Fragment::Literal { last, .. } => (true, None, last),
            };
            match pieces.last_mut().filter(|_| is_open) {
                Some(piece) => {
                    assert_eq!(piece.is_literal, is_literal);
                    piece.len += fragment.bytes().len();
                    piece.end = end;
                }
                None => pieces.push(Piece { len: fragment.bytes().len(), is_literal, end }),
            }
            is_open = !is_complete;
            if let Some(LineEnd::Literal(announced)) = end
                && follows(announced)
            {
                framer.begin_literal(announced.size);
            }
            assert_eq!(framer.in_literal(), is_literal && !is_complete || begins(end, &follows));
        }
    }
    pieces
}

fn begins(end: Option<LineEnd>, follows: impl Fn(Announcement) -> bool) -> bool {
    matches!(end, Some(LineEnd::Literal(announced)) if announced.size > 0 && follows(announced))
}
