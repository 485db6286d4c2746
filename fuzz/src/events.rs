//! The form of an input: events, one after the other, separated by a byte that IMAP has no use for. There are no lengths in
//! it, so that a mutation somewhere leaves the rest as it was, and a person can read it.

/// Stands before each event but the first.
const SEPARATOR: u8 = 0xfe;

/// The events: the kind is an event's first byte, the rest is what is said.
pub(crate) fn events(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    data.split(|byte| *byte == SEPARATOR)
        .filter_map(|event| event.split_first())
        .map(|(kind, said)| (*kind, said))
}

/// The first byte, for settings, and the rest.
pub(crate) fn settings(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Reports if `haystack` has `needle` in it.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

/// A transcript that keeps what may be seen.
#[derive(Default)]
pub(crate) struct Shown(pub(crate) Vec<u8>);

impl deltapush::trace::Transcript for Shown {
    fn piece(
        &mut self,
        _: deltapush::trace::Speaker,
        _: deltapush::trace::Mark,
        piece: deltapush::trace::Piece<'_>,
    ) {
        if let deltapush::trace::Piece::Text(text) = piece {
            self.0.extend_from_slice(text);
        }
    }
}
