//! Bytes to lines and literals, in any chunking and with bounded memory (RFC 9051 sections 2.2 and 4.3).
//!
//! The framer never holds a line: it hands on what it has and says whether the line ended. Between two chunks it keeps the
//! last few bytes of an unfinished line, because the announcement of a literal stands at a line's end.

/// The longest announcement with its line end, `~{18446744073709551615+}` CR LF, is 26 bytes; one more tells what precedes it.
const TAIL: usize = 27;

/// Digits of the largest number of bytes.
pub(super) const MAX_DIGITS: usize = 20;

/// A literal that the end of a line announces (RFC 9051 section 4.3, RFC 7888, RFC 3516).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Number of bytes that follow the line.
    pub size: u64,
    /// True if the sender waits for the receiver's `+` before it sends them: `{n}` as opposed to `{n+}`. Has a meaning
    /// only from client to server.
    pub synchronizing: bool,
    /// `~{n}`: the bytes may include NUL.
    pub binary: bool,
}

/// The end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// With CR LF (or a bare LF, which servers accept too) and nothing that looks like a literal.
    Plain,
    /// With an announcement. The caller knows whether a literal really follows: see [`Framer::begin_literal`].
    Literal(Announcement),
}

/// A piece of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment<'a> {
    /// Part of a line, line end included. `end` is `None` if the line goes on in the next chunk.
    Line {
        /// The piece.
        bytes: &'a [u8],
        /// The line's end, if it is in this piece.
        end: Option<LineEnd>,
    },
    /// Part of a literal. Never empty; `last` says that the literal is complete and its line goes on.
    Literal {
        /// The piece.
        bytes: &'a [u8],
        /// True if the literal ends here.
        last: bool,
    },
}

impl<'a> Fragment<'a> {
    /// The piece's bytes as they stood in the stream.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Line { bytes, .. } | Self::Literal { bytes, .. } => bytes,
        }
    }
}

/// Cuts one direction of a connection into [`Fragment`]s.
#[derive(Debug, Default)]
pub struct Framer {
    /// Bytes of the current literal that are still to come; 0 while in a line.
    literal: u64,
    /// The end of what was seen of the current, unfinished line.
    tail: Tail,
}

impl Framer {
    /// A framer at the start of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next piece of `input`, and what is left of it. `None` when `input` is empty.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Option<(Fragment<'a>, &'a [u8])> {
        if input.is_empty() {
            return None;
        }
        if self.literal > 0 {
            return Some(self.next_of_literal(input));
        }
        let Some((bytes, rest)) = split_after_newline(input) else {
            self.tail.extend(input);
            return Some((Fragment::Line { bytes: input, end: None }, &[]));
        };
        let announcement = if self.tail.is_empty() {
            announcement(bytes)
        } else {
            self.tail.extend(bytes);
            announcement(self.tail.bytes())
        };
        self.tail.clear();
        let end = announcement.map_or(LineEnd::Plain, LineEnd::Literal);
        Some((Fragment::Line { bytes, end: Some(end) }, rest))
    }

    /// Says that the line which just ended really is followed by `size` bytes of literal. Without this call the next bytes
    /// are a line: a synchronizing literal that the server refused never comes, and `{5}` at the end of a status text
    /// announces nothing.
    pub fn begin_literal(&mut self, size: u64) {
        self.literal = size;
    }

    /// Bytes of the literal under way that are still to come.
    #[must_use]
    pub fn left_of_literal(&self) -> u64 {
        self.literal
    }

    /// Reports if the next byte belongs to a literal.
    #[must_use]
    pub fn in_literal(&self) -> bool {
        self.literal > 0
    }

    fn next_of_literal<'a>(&mut self, input: &'a [u8]) -> (Fragment<'a>, &'a [u8]) {
        let wanted = usize::try_from(self.literal).unwrap_or(usize::MAX);
        let (bytes, rest) = input.split_at_checked(wanted).unwrap_or((input, &[]));
        self.literal = self.literal.saturating_sub(bytes.len() as u64);
        (Fragment::Literal { bytes, last: self.literal == 0 }, rest)
    }
}

/// The last [`TAIL`] bytes of an unfinished line.
#[derive(Debug, Default)]
struct Tail {
    bytes: [u8; TAIL],
    len: usize,
}

impl Tail {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn extend(&mut self, more: &[u8]) {
        let more = more.get(more.len().saturating_sub(TAIL)..).unwrap_or_default();
        let overflow = self.len.saturating_add(more.len()).saturating_sub(TAIL);
        self.bytes.copy_within(overflow.min(self.len)..self.len, 0);
        let kept = self.len.saturating_sub(overflow);
        self.len = kept.saturating_add(more.len());
        if let Some(place) = self.bytes.get_mut(kept..self.len) {
            place.copy_from_slice(more);
        }
    }
}

fn split_after_newline(input: &[u8]) -> Option<(&[u8], &[u8])> {
    input.split_at_checked(memchr::memchr(b'\n', input)?.saturating_add(1))
}

/// The literal that a line announces at its end, if it does. Before the brace only what the grammar allows before a literal
/// counts (a space, an opening parenthesis, the line's start): sloppy servers send mailbox names such as `a{5}` bare.
fn announcement(line: &[u8]) -> Option<Announcement> {
    let line = line.strip_suffix(b"\n")?;
    let inner = line.strip_suffix(b"\r").unwrap_or(line).strip_suffix(b"}")?;
    let (inner, synchronizing) = match inner.strip_suffix(b"+") {
        Some(inner) => (inner, false),
        None => (inner, true),
    };
    let digits = inner.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    // Leading zeros without end: of a line that came in pieces they would not be here.
    if digits == 0 || digits > MAX_DIGITS {
        return None;
    }
    let (before, number) = inner.split_at_checked(inner.len().checked_sub(digits)?)?;
    let before = before.strip_suffix(b"{")?;
    let (before, binary) = match before.strip_suffix(b"~") {
        Some(before) => (before, true),
        None => (before, false),
    };
    if !matches!(before.last(), None | Some(b' ' | b'(')) {
        return None;
    }
    let size = number.iter().try_fold(0_u64, |size, digit| {
        size.checked_mul(10)?.checked_add(u64::from(digit & 0x0f))
    })?;
    Some(Announcement { size, synchronizing, binary })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announced(line: &str) -> Option<Announcement> {
        announcement(line.as_bytes())
    }

    #[test]
    fn all_forms_of_announcement_are_known() {
        let literal =
            |size, synchronizing, binary| Some(Announcement { size, synchronizing, binary });
        assert_eq!(announced("a LOGIN {5}\r\n"), literal(5, true, false));
        assert_eq!(announced("a LOGIN {5+}\r\n"), literal(5, false, false));
        assert_eq!(announced("a APPEND x ~{0}\r\n"), literal(0, true, true));
        assert_eq!(announced("a APPEND x ~{12+}\n"), literal(12, false, true));
        assert_eq!(announced("* 1 FETCH (BODY[HEADER.FIELDS ({3}\r\n"), literal(3, true, false));
        assert_eq!(announced("{4294967296}\r\n"), literal(1 << 32, true, false));
        assert_eq!(announced("x {18446744073709551615}\r\n"), literal(u64::MAX, true, false));
    }

    #[test]
    fn text_that_looks_like_a_literal_is_none() {
        for line in [
            "x {18446744073709551616}\r\n",
            "x {000000000000000000005}\r\n",
            "x {5} \r\n",
            "x {}\r\n",
            "x {-1}\r\n",
            "x {5++}\r\n",
            "x 5}\r\n",
            "x {5a}\r\n",
            "x {+}\r\n",
            "* LIST () \"/\" a{5}\r\n",
            "x \"{5}\"\r\n",
            "x {5}\r\r\n",
            "x {5}",
        ] {
            assert_eq!(announced(line), None, "{line:?}");
        }
    }

    #[test]
    fn literal_comes_only_when_the_caller_says_so() {
        let mut framer = Framer::new();
        let (_, rest) = framer.next(b"* OK text {3}\r\nabc\r\n").unwrap();
        assert_eq!(
            framer.next(rest).unwrap().0,
            Fragment::Line { bytes: b"abc\r\n", end: Some(LineEnd::Plain) }
        );
        framer.begin_literal(3);
        let (fragment, rest) = framer.next(b"abcd\r\n").unwrap();
        assert_eq!(fragment, Fragment::Literal { bytes: b"abc", last: true });
        assert_eq!(framer.next(rest).unwrap().0.bytes(), b"d\r\n");
    }

    /// Lines and literals with adjacent chunks of the same piece joined: what must not depend on chunking.
    fn pieces(chunks: &[&[u8]]) -> Vec<(Vec<u8>, Option<LineEnd>, bool)> {
        let mut framer = Framer::new();
        let mut pieces: Vec<(Vec<u8>, Option<LineEnd>, bool)> = vec![];
        let mut open = false;
        for chunk in chunks {
            let mut input = *chunk;
            while let Some((fragment, rest)) = framer.next(input) {
                input = rest;
                let (end, literal, complete) = match fragment {
                    Fragment::Line { end, .. } => (end, false, end.is_some()),
                    Fragment::Literal { last, .. } => (None, true, last),
                };
                if let Some(LineEnd::Literal(announcement)) = end {
                    framer.begin_literal(announcement.size);
                }
                match pieces.last_mut().filter(|_| open) {
                    Some(piece) => {
                        piece.0.extend_from_slice(fragment.bytes());
                        piece.1 = end;
                    }
                    None => pieces.push((fragment.bytes().to_vec(), end, literal)),
                }
                open = !complete;
            }
        }
        pieces
    }

    fn dialogue() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[ -~]{0,40}\r\n".prop_map(String::into_bytes),
            "[ -~]{0,8}\n".prop_map(String::into_bytes),
            ("[ -~]{0,30}", 0u64..40, any::<bool>(), any::<bool>()).prop_map(
                |(text, size, plus, binary)| {
                    let mut bytes = format!(
                        "{text} {}{{{size}{}}}\r\n",
                        if binary { "~" } else { "" },
                        if plus { "+" } else { "" }
                    )
                    .into_bytes();
                    bytes.extend((0..size).map(|n| b"\r\n{}\0"[n as usize % 5]));
                    bytes
                }
            ),
            proptest::collection::vec(any::<u8>(), 0..20),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_pieces(stream in dialogue(), cuts in proptest::collection::vec(0usize..500, 0..20)) {
            let whole = pieces(&[&stream]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < stream.len()).collect();
            cuts.sort_unstable();
            let mut chunks = vec![];
            let mut from = 0;
            for cut in cuts.into_iter().chain([stream.len()]) {
                chunks.push(&stream[from..cut]);
                from = cut;
            }
            prop_assert_eq!(&pieces(&chunks), &whole);
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&pieces(&single), &whole);
            prop_assert_eq!(whole.iter().flat_map(|piece| piece.0.clone()).collect::<Vec<u8>>(), stream);
        }
    }
}
