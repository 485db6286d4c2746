//! FETCH, EXISTS and STATUS responses by the grammar, as imap-proto reads it. For evidence only: a response that does not
//! fit the grammar says nothing. [`data`](super::data) reads with tolerance, for cases in which a missed response is a
//! missed message.

use super::framer::{Fragment, Framer, LineEnd};

/// The deepest nesting of parentheses that is parsed. deltapush asks for two levels.
const MAX_DEPTH: usize = 8;

/// The untagged response of a whole line, as imap-proto understands it: a number's (EXISTS, EXPUNGE, FETCH), STATUS, or OK;
/// `None` for any other, and for what it does not understand.
///
/// Hides from imap-proto the input on which it panics: an OK whose text is not ASCII (it cuts the text after its first
/// byte), a METADATA that is not UTF-8, and input that `is_harmless` rules out.
#[must_use]
pub fn parse(response: &[u8]) -> Option<imap_proto::Response<'_>> {
    let untagged = response.strip_prefix(b"* ")?;
    let begins = |name: &[u8]| {
        untagged.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let is_wanted = untagged.first().is_some_and(u8::is_ascii_digit)
        || begins(b"STATUS ")
        || begins(b"OK ") && untagged.is_ascii();
    if !is_wanted || !is_harmless(response) {
        return None;
    }
    match imap_proto::Response::parse(response) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    }
}

/// Reports if imap-proto can parse a response safely: it follows nested parentheses by recursion without a bound, and a
/// stack that overflows ends the process; on a date that is NIL it panics. Literals do not count; quoted strings do,
/// because the wanted responses have neither.
fn is_harmless(response: &[u8]) -> bool {
    const NO_DATE: &[u8] = b"INTERNALDATE NIL";
    let mut framer = Framer::new();
    let mut rest = response;
    let mut depth: usize = 0;
    while let Some((fragment, after)) = framer.next(rest) {
        rest = after;
        let Fragment::Line { bytes, end } = fragment else { continue };
        for byte in bytes {
            match byte {
                b'(' => depth = depth.saturating_add(1),
                b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > MAX_DEPTH {
                return false;
            }
        }
        if bytes.windows(NO_DATE.len()).any(|window| window.eq_ignore_ascii_case(NO_DATE)) {
            return false;
        }
        if let Some(LineEnd::Literal(announced)) = end {
            framer.begin_literal(announced.size);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_without_end_is_not_followed() {
        let fetch = |depth: usize| format!("* 1 FETCH (BODYSTRUCTURE {}\r\n", "(".repeat(depth));
        assert!(parse(fetch(60_000).as_bytes()).is_none());
        assert!(!is_harmless(fetch(8).as_bytes()) && is_harmless(fetch(7).as_bytes()));
        assert!(is_harmless(b"* 1 FETCH (X {12}\r\n(((((((((((()\r\n"));
        assert!(
            parse(
                b"* 1 FETCH (UID 3 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM)]<0> {2}\r\n\r\n)\r\n"
            )
            .is_some()
        );
    }

    #[test]
    fn input_that_makes_imap_proto_panic_does_not_reach_it() {
        for line in [
            "* OK [ALERT]é\r\n".as_bytes(),
            "* ok [UIDNEXT 3]é\r\n".as_bytes(),
            "w1 BYE [ALERT]é\r\n".as_bytes(),
            "+ [ALERT]é\r\n".as_bytes(),
            b"* METADATA \"\xff\" (/shared/comment \"\xff\")\r\n",
            b"* 1 FETCH (UID 3 internaldate nil)\r\n",
        ] {
            assert!(parse(line).is_none(), "{line:?}");
        }
        assert!(parse(b"* OK [UIDNEXT 3] ok\r\n").is_some());
        assert!(parse(b"* STATUS INBOX (UIDNEXT 3)\r\n").is_some());
    }
}
