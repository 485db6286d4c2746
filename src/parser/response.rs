//! The kind of response that a line begins (RFC 9051 section 7), recognized from as few bytes as possible.

use super::syntax;
use crate::printable::printable;

/// The longest beginning of a line that is held to tell its kind. A line of which that many bytes tell nothing is data.
pub const HEAD_LIMIT: usize = 512;

/// The condition in a status response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It worked, or is well.
    Ok,
    /// It failed.
    No,
    /// It was not understood.
    Bad,
    /// The server closes the connection (untagged only).
    Bye,
    /// The connection is authenticated already (greeting only).
    Preauth,
}

/// The possible response code of a status response, recognized from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeKind {
    /// A capability list.
    Capability,
    /// Perhaps a referral (RFC 2221, RFC 2193): it begins with `[R`.
    Referral,
    /// Any other, or none.
    Other,
}

/// The beginning of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseHead<'a> {
    /// `+`: the server waits for more of a command.
    Continuation,
    /// `A1 + idling`: the same with the tag of a command before it, as some servers say it.
    TaggedContinuation {
        /// The client's tag, as the server gave it back.
        tag: &'a [u8],
    },
    /// The end of the command with this tag.
    Tagged {
        /// The client's tag, as the server gave it back.
        tag: &'a [u8],
        /// The command's outcome.
        condition: Condition,
        /// Its possible response code.
        code: CodeKind,
    },
    /// `* OK` and its like.
    Status {
        /// The condition.
        condition: Condition,
        /// Its possible response code.
        code: CodeKind,
    },
    /// `* CAPABILITY …`
    Capability,
    /// `* METADATA …` (RFC 5464)
    Metadata,
    /// Any other line: data, with literals where it announces them.
    Data,
}

/// The kind of the line that begins with `start`; `None` if it takes more to tell.
#[must_use]
pub fn head(start: &[u8]) -> Option<ResponseHead<'_>> {
    // Bytes beyond the limit must not change what was decided within it: the chunks may be of any size.
    let start = start.get(..HEAD_LIMIT).unwrap_or(start);
    // A line's end is at the end of what is given; in whole responses with literals it is further in front.
    let complete = start.ends_with(b"\n")
        || start.len() >= HEAD_LIMIT
        || memchr::memchr(b'\n', start).is_some();
    let start = without_spaces(start);
    // Some servers leave out the space. No tag begins like this.
    if start.first() == Some(&b'+') {
        return Some(ResponseHead::Continuation);
    }
    let Some((first, rest)) = word(start, complete) else {
        return complete.then_some(ResponseHead::Data);
    };
    match first {
        b"*" => untagged(rest, complete),
        tag => tagged(tag, rest, complete),
    }
}

fn untagged(rest: &[u8], complete: bool) -> Option<ResponseHead<'_>> {
    // `* 23 FETCH`: by far the most frequent, and decided by its first digit.
    if rest.first().is_some_and(u8::is_ascii_digit) {
        return Some(ResponseHead::Data);
    }
    let Some((name, rest)) = word(rest, complete) else {
        return complete.then_some(ResponseHead::Data);
    };
    if let Some(condition) = condition(name) {
        return Some(ResponseHead::Status { condition, code: code(rest, complete)? });
    }
    Some(match name {
        name if name.eq_ignore_ascii_case(b"CAPABILITY") => ResponseHead::Capability,
        name if name.eq_ignore_ascii_case(b"METADATA") => ResponseHead::Metadata,
        _ => ResponseHead::Data,
    })
}

fn tagged<'a>(tag: &'a [u8], rest: &'a [u8], complete: bool) -> Option<ResponseHead<'a>> {
    if rest.first() == Some(&b'+') {
        return Some(ResponseHead::TaggedContinuation { tag });
    }
    let Some((name, rest)) = word(rest, complete) else {
        return complete.then_some(ResponseHead::Data);
    };
    match condition(name) {
        Some(condition @ (Condition::Ok | Condition::No | Condition::Bad)) => {
            Some(ResponseHead::Tagged { tag, condition, code: code(rest, complete)? })
        }
        _ => Some(ResponseHead::Data),
    }
}

/// The first word of `line` and what follows the spaces after it: some servers pad. `None` if the word may go on.
fn word(line: &[u8], complete: bool) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let end = end.or(complete.then_some(line.len()))?;
    let (word, rest) = line.split_at_checked(end)?;
    Some((word, without_spaces(rest)))
}

fn without_spaces(mut line: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = line {
        line = rest;
    }
    line
}

fn condition(name: &[u8]) -> Option<Condition> {
    match name {
        [b'O' | b'o', b'K' | b'k'] => Some(Condition::Ok),
        [b'N' | b'n', b'O' | b'o'] => Some(Condition::No),
        [b'B' | b'b', b'A' | b'a', b'D' | b'd'] => Some(Condition::Bad),
        [b'B' | b'b', b'Y' | b'y', b'E' | b'e'] => Some(Condition::Bye),
        name if name.eq_ignore_ascii_case(b"PREAUTH") => Some(Condition::Preauth),
        _ => None,
    }
}

/// The possible response code at the beginning of `text`; `None` if more bytes are needed.
fn code(text: &[u8], complete: bool) -> Option<CodeKind> {
    const CAPABILITY: &[u8] = b"[CAPABILITY ";
    match text {
        [] | [b'['] if !complete => None,
        [b'[', b'R' | b'r', ..] => Some(CodeKind::Referral),
        [b'[', b'C' | b'c', ..] => match text.get(..CAPABILITY.len()) {
            Some(start) if start.eq_ignore_ascii_case(CAPABILITY) => Some(CodeKind::Capability),
            None if !complete && CAPABILITY.get(..text.len())?.eq_ignore_ascii_case(text) => None,
            _ => Some(CodeKind::Other),
        },
        _ => Some(CodeKind::Other),
    }
}

/// Reports if an announcement at the end of a line that begins like this one is followed by a literal: not in a status
/// response or a continuation request, whose text is free (RFC 9051 section 9: resp-text), nor in a capability list, which
/// is of atoms.
#[must_use]
pub fn may_have_literals(line: &[u8]) -> bool {
    !matches!(
        head(line),
        Some(
            ResponseHead::Continuation
                | ResponseHead::TaggedContinuation { .. }
                | ResponseHead::Tagged { .. }
                | ResponseHead::Status { .. }
                | ResponseHead::Capability
        )
    )
}

/// A whole status response, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status<'a> {
    /// `None` if untagged.
    pub tag: Option<&'a [u8]>,
    /// The outcome.
    pub condition: Condition,
    /// The response code without its brackets; empty if there is none.
    pub code: &'a [u8],
    /// The text after the condition, code included, without the line end. May be empty: iCloud sends `* BYE` and tagged
    /// `OK` bare.
    pub text: &'a [u8],
}

impl Status<'_> {
    /// Reports if the response code is `name`, with or without arguments.
    #[must_use]
    pub fn has_code(&self, name: &str) -> bool {
        is_code(self.code, name)
    }

    /// The text behind the response code, as it was sent, without white space around it.
    #[must_use]
    pub fn words(&self) -> &[u8] {
        let code = if self.code.is_empty() { 0 } else { self.code.len().saturating_add(2) };
        self.text.get(code..).unwrap_or_default().trim_ascii()
    }

    /// The text for people, without the response code. It ends up in logs and on terminals: control characters are escaped.
    #[must_use]
    pub fn human_text(&self) -> String {
        printable(self.words())
    }
}

/// Takes a whole line apart if it is a status response.
#[must_use]
pub fn status(line: &[u8]) -> Option<Status<'_>> {
    let (tag, condition) = match head(line)? {
        ResponseHead::Tagged { tag, condition, .. } => (Some(tag), condition),
        ResponseHead::Status { condition, .. } => (None, condition),
        _ => return None,
    };
    let line = without_spaces(line.trim_ascii_end());
    let (_, rest) = word(line, true)?;
    let (_, text) = word(rest, true)?;
    Some(Status { tag, condition, code: code_of(text).unwrap_or_default(), text })
}

/// The text of a referral that came without one.
pub(crate) const ELSEWHERE: &str = "Another server is responsible.";

/// A whole status response without its `[REFERRAL …]` code (RFC 2221, RFC 2193); `None` if it has none.
#[must_use]
pub fn without_referral(line: &[u8]) -> Option<Vec<u8>> {
    let status = status(line).filter(|status| status.has_code("REFERRAL"))?;
    // From the end of the line: a tag may have a bracket in it.
    let (start, mut words) =
        line.split_at_checked(line.trim_ascii_end().len().checked_sub(status.text.len())?)?;
    // A second code would take the place of the first.
    while let Some(code) = code_of(words).filter(|code| is_code(code, "REFERRAL")) {
        words = words.get(code.len().checked_add(2)?..)?;
        words = words.strip_prefix(b" ").unwrap_or(words);
    }
    // The grammar wants a text.
    let elsewhere = [ELSEWHERE.as_bytes(), b"\r\n"].concat();
    let words = if words.trim_ascii().is_empty() { elsewhere.as_slice() } else { words };
    Some([start, words].concat())
}

/// The response code that a status response's text begins with, without its brackets.
fn code_of(text: &[u8]) -> Option<&[u8]> {
    let inner = text.strip_prefix(b"[")?;
    inner.get(..memchr::memchr(b']', inner)?)
}

fn is_code(code: &[u8], name: &str) -> bool {
    code.split(|byte| *byte == b' ')
        .next()
        .unwrap_or_default()
        .eq_ignore_ascii_case(name.as_bytes())
}

/// The server's capabilities in a whole line: those of a `* CAPABILITY` response or of a `[CAPABILITY …]` code.
#[must_use]
pub fn capabilities(line: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let list = match head(line)? {
        ResponseHead::Capability => {
            let (_, rest) = word(without_spaces(line.trim_ascii_end()), true)?;
            word(rest, true)?.1
        }
        ResponseHead::Tagged { code: CodeKind::Capability, .. }
        | ResponseHead::Status { code: CodeKind::Capability, .. } => {
            word(status(line)?.code, true)?.1
        }
        _ => return None,
    };
    Some(list.split(|byte| *byte == b' ').filter(|name| !name.is_empty()))
}

/// Reports if `tag` could be a client's. Used where a tag is sent back.
#[must_use]
pub fn is_tag(tag: &[u8]) -> bool {
    syntax::command_tag(tag).is_ok_and(|(rest, _)| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let status = |condition, code| Some(ResponseHead::Status { condition, code });
        let tagged = |condition, code| Some(ResponseHead::Tagged { tag: b"A1", condition, code });
        let cases: [(&str, Option<ResponseHead<'_>>); 34] = [
            ("+idling\r\n", Some(ResponseHead::Continuation)),
            ("+", Some(ResponseHead::Continuation)),
            ("A1 + idling\r\n", Some(ResponseHead::TaggedContinuation { tag: b"A1" })),
            ("A1 +\r\n", Some(ResponseHead::TaggedContinuation { tag: b"A1" })),
            ("+ idling\r\n", Some(ResponseHead::Continuation)),
            ("+\r\n", Some(ResponseHead::Continuation)),
            ("* 1", Some(ResponseHead::Data)),
            ("* OK [CAPABILITY IMAP4rev1] hi\r\n", status(Condition::Ok, CodeKind::Capability)),
            ("* ok [capability ", status(Condition::Ok, CodeKind::Capability)),
            ("* OK [CAPABIL", None),
            ("* OK [CAPABILITIES", status(Condition::Ok, CodeKind::Other)),
            ("* OK hello", status(Condition::Ok, CodeKind::Other)),
            ("* BYE\r\n", status(Condition::Bye, CodeKind::Other)),
            ("* PREAUTH [ALERT] x\r\n", status(Condition::Preauth, CodeKind::Other)),
            ("* CAPABILITY IMAP4rev1\r\n", Some(ResponseHead::Capability)),
            ("* capability", None),
            ("* METADATA \"\"", Some(ResponseHead::Metadata)),
            ("* LIST ()", Some(ResponseHead::Data)),
            ("A1 OK\r\n", tagged(Condition::Ok, CodeKind::Other)),
            ("A1 NO [AUTHENTICATIONFAILED] x\r\n", tagged(Condition::No, CodeKind::Other)),
            ("A1 OK [CAPABILITY X] y\r\n", tagged(Condition::Ok, CodeKind::Capability)),
            (
                "A1 NO [REFERRAL imap://two.example/] x\r\n",
                tagged(Condition::No, CodeKind::Referral),
            ),
            ("A1 no [r", tagged(Condition::No, CodeKind::Referral)),
            ("A1 NO [", None),
            ("A1 O", None),
            ("A1 BYE x\r\n", Some(ResponseHead::Data)),
            ("\r\n", Some(ResponseHead::Data)),
            (" ", None),
            ("  A1   OK  [CAPABILITY X] y\r\n", tagged(Condition::Ok, CodeKind::Capability)),
            (" A1 OK ", None),
            (" +  idling\r\n", Some(ResponseHead::Continuation)),
            ("*   953 EXISTS\r\n", Some(ResponseHead::Data)),
            (" *  BYE \r\n", status(Condition::Bye, CodeKind::Other)),
            ("*  CAPABILITY  IMAP4rev1\r\n", Some(ResponseHead::Capability)),
        ];
        for (line, expected) in cases {
            assert_eq!(head(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(head(&[b'x'; HEAD_LIMIT]), Some(ResponseHead::Data));
        let long = format!("{} OK [CAPABILITY X] y\r\n", "x".repeat(HEAD_LIMIT));
        assert_eq!(head(long.as_bytes()), Some(ResponseHead::Data));
    }

    #[test]
    fn longer_beginning_never_changes_the_kind() {
        for line in [
            "* OK [CAPABILITY IMAP4rev1 IDLE] hi\r\n",
            " A1  OK   [CAPABILITY X] y\r\n",
            "*  12 EXISTS\r\n",
            "* NO\r\n",
        ] {
            let known: Vec<_> =
                (0..=line.len()).filter_map(|end| head(&line.as_bytes()[..end])).collect();
            assert!(known.windows(2).all(|pair| pair[0] == pair[1]), "{line:?}: {known:?}");
        }
    }

    #[test]
    fn status_responses_with_and_without_code_and_text() {
        let parsed = status(b"A1 NO [AUTHENTICATIONFAILED] Invalid credentials\r\n").unwrap();
        assert_eq!((parsed.tag, parsed.condition), (Some(&b"A1"[..]), Condition::No));
        assert!(parsed.has_code("authenticationfailed"));
        assert_eq!(parsed.human_text(), "Invalid credentials");
        let parsed = status(b"* OK [ALERT] {5}\r\n").unwrap();
        assert_eq!(
            (parsed.tag, parsed.code, parsed.human_text().as_str()),
            (None, &b"ALERT"[..], "{5}")
        );
        let parsed = status(b"A1 OK\r\n").unwrap();
        assert_eq!((parsed.code, parsed.text), (&b""[..], &b""[..]));
        let parsed = status(b"  A1  NO   [TRYCREATE]  no such \r\n").unwrap();
        assert_eq!(
            (parsed.tag, parsed.code, parsed.human_text().as_str()),
            (Some(&b"A1"[..]), &b"TRYCREATE"[..], "no such")
        );
        assert_eq!(status(b"* BYE [unclosed\r\n").unwrap().text, b"[unclosed");
        assert_eq!(status(b"* 1 EXISTS\r\n"), None);
    }

    #[test]
    fn referrals_are_taken_out() {
        let without = |line: &str| {
            without_referral(line.as_bytes()).map(|line| String::from_utf8(line).unwrap())
        };
        assert_eq!(
            without("A1 NO [REFERRAL IMAP://u;AUTH=*@two.example/] Try two.\r\n").as_deref(),
            Some("A1 NO Try two.\r\n")
        );
        assert_eq!(
            without("A[1 NO [REFERRAL x] Try two.\r\n").as_deref(),
            Some("A[1 NO Try two.\r\n")
        );
        assert_eq!(
            without("A1 NO [REFERRAL x] [REFERRAL y]Two.\r\n").as_deref(),
            Some("A1 NO Two.\r\n")
        );
        assert_eq!(
            without("* BYE [referral x]\r\n").as_deref(),
            Some("* BYE Another server is responsible.\r\n")
        );
        assert_eq!(without("A[1 NO [REFERRAL x] Try\r\n").as_deref(), Some("A[1 NO Try\r\n"));
        for line in [
            "A1 NO [REFERRALS x] y\r\n",
            "A1 OK [READ-WRITE] y\r\n",
            "* 1 EXISTS\r\n",
            "A1 NO [REFERRAL x\r\n",
        ] {
            assert_eq!(without(line), None, "{line}");
        }
        for line in ["A1 NO [REFERRAL x] Try\r\n", "* bye [referral x]\r\n"] {
            let may_refer = |head| {
                matches!(
                    head,
                    ResponseHead::Tagged { code: CodeKind::Referral, .. }
                        | ResponseHead::Status { code: CodeKind::Referral, .. }
                )
            };
            let all =
                (0..=line.len()).filter_map(|end| head(&line.as_bytes()[..end])).all(may_refer);
            assert!(all, "{line}");
        }
    }

    #[test]
    fn capabilities_stand_in_three_places() {
        let list = |line: &str| {
            capabilities(line.as_bytes()).map(|names| {
                names
                    .map(|name| String::from_utf8_lossy(name).into_owned())
                    .collect::<Vec<_>>()
                    .join(",")
            })
        };
        assert_eq!(list("* CAPABILITY IMAP4rev1 IDLE\r\n").as_deref(), Some("IMAP4rev1,IDLE"));
        assert_eq!(
            list("* OK [CAPABILITY IMAP4rev1 IDLE] hi\r\n").as_deref(),
            Some("IMAP4rev1,IDLE")
        );
        assert_eq!(list("A1 OK [CAPABILITY IDLE] CAPABILITY X\r\n").as_deref(), Some("IDLE"));
        assert_eq!(list("* OK hi\r\n"), None);
    }
}
