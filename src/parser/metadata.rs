//! Server annotations (RFC 5464): the two commands and the response that deltapush takes part in.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::tag_no_case;
use nom::character::complete::{char, u32 as number32};
use nom::combinator::{opt, value};
use nom::multi::{separated_list0, separated_list1};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use super::command;
use super::quote::push_server_string;
use super::syntax::{Parsed, astring, is_bare, line_end, nstring, space};

/// The number of levels below an entry that `GETMETADATA` covers (RFC 5464 section 4.2.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// The entry alone.
    #[default]
    Zero,
    /// The entry and those directly below it.
    One,
    /// The entry and all below it.
    Infinity,
}

/// A `GETMETADATA` command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get<'a> {
    /// The mailbox asked about; empty for the server's own entries.
    pub mailbox: Cow<'a, [u8]>,
    /// The entries asked for, as the client wrote them.
    pub entries: Vec<Cow<'a, [u8]>>,
    /// Values longer than this many bytes are left out.
    pub max_size: Option<u32>,
    /// The number of levels below each entry.
    pub depth: Depth,
}

/// A `SETMETADATA` command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMetadataCommand<'a> {
    /// The mailbox; empty for the server's own entries.
    pub mailbox: Cow<'a, [u8]>,
    /// Entries and their new values; `None` is NIL, which removes the entry.
    pub entries: Vec<Pair<'a>>,
}

/// An entry's name and its value, or `None` for NIL.
pub type Pair<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>);

/// A `* METADATA` response that carries values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values<'a> {
    /// The mailbox, or empty.
    pub mailbox: Cow<'a, [u8]>,
    /// Entries and their values.
    pub entries: Vec<Pair<'a>>,
}

/// Reports if `entry` is or lies below `asked`, within `depth`. Entry names are case-insensitive (RFC 5464 section 3.2).
#[must_use]
pub fn is_within(entry: &[u8], asked: &[u8], depth: Depth) -> bool {
    let Some((start, below)) = entry.split_at_checked(asked.len()) else { return false };
    if !start.eq_ignore_ascii_case(asked) {
        return false;
    }
    match (below, depth) {
        ([], _) => true,
        ([b'/', below @ ..], Depth::One) => !below.contains(&b'/'),
        ([b'/', ..], Depth::Infinity) => true,
        _ => false,
    }
}

/// Reports if RFC 5464 section 3.2 allows `entry` as a name.
fn is_entry_name(entry: &[u8]) -> bool {
    let begins = |prefix: &[u8]| {
        entry.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    (begins(b"/shared") || begins(b"/private"))
        && !entry.ends_with(b"/")
        // Brackets and quotes, which the RFC does not rule out, would have to be quoted wherever the name is written.
        && entry.iter().all(|byte| matches!(byte, 33..=126) && !b"*%\"\\(){}".contains(byte))
        && !entry.windows(2).any(|pair| pair == b"//")
}

fn entry(input: &[u8]) -> Parsed<'_, Cow<'_, [u8]>> {
    nom::combinator::verify(astring, |name: &Cow<'_, [u8]>| is_entry_name(name)).parse(input)
}

fn pair(input: &[u8]) -> Parsed<'_, Pair<'_>> {
    // RFC 5464 section 5 also has `value = nstring / literal8`; this literal takes both.
    (entry, preceded(space, nstring)).parse(input)
}

fn parenthesized<'a, T>(
    item: impl Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
) -> impl Parser<&'a [u8], Output = Vec<T>, Error = nom::error::Error<&'a [u8]>> {
    delimited(char('('), separated_list1(space, item), char(')'))
}

enum GetOption {
    MaxSize(u32),
    Depth(Depth),
}

fn get_option(input: &[u8]) -> Parsed<'_, GetOption> {
    let depth = alt((
        value(Depth::Infinity, tag_no_case("infinity")),
        value(Depth::One, char('1')),
        value(Depth::Zero, char('0')),
    ));
    alt((
        preceded((tag_no_case("MAXSIZE"), space), number32).map(GetOption::MaxSize),
        preceded((tag_no_case("DEPTH"), space), depth).map(GetOption::Depth),
    ))
    .parse(input)
}

/// Reads a whole `GETMETADATA` command. Options are taken before the mailbox, as the grammar has them, and after it, as
/// the examples of RFC 5464 section 4.2 do. `None` if it is not well-formed.
#[must_use]
pub fn get(command: &[u8]) -> Option<Get<'_>> {
    let options = || parenthesized(get_option);
    let entries = || alt((parenthesized(entry), entry.map(|entry| vec![entry])));
    let arguments = (
        opt(preceded(space, options())),
        preceded(space, astring),
        opt(preceded(space, options())),
        preceded(space, entries()),
    );
    let (before, mailbox, after, entries) = arguments_of(command, arguments)?;
    let mut get = Get { mailbox, entries, max_size: None, depth: Depth::Zero };
    for option in before.into_iter().chain(after).flatten() {
        match option {
            GetOption::MaxSize(size) => get.max_size = Some(size),
            GetOption::Depth(depth) => get.depth = depth,
        }
    }
    Some(get)
}

/// Reads a whole `SETMETADATA` command. `None` if it is not well-formed.
#[must_use]
pub fn set(command: &[u8]) -> Option<SetMetadataCommand<'_>> {
    let arguments = (preceded(space, astring), preceded(space, parenthesized(pair)));
    arguments_of(command, arguments)
        .map(|(mailbox, entries)| SetMetadataCommand { mailbox, entries })
}

fn arguments_of<'a, T>(
    command: &'a [u8],
    parser: impl Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
) -> Option<T> {
    let arguments = command.get(command::head(command)?.len..)?;
    let (rest, value) = terminated(parser, line_end).parse(arguments).ok()?;
    rest.is_empty().then_some(value)
}

/// Reads a whole `* METADATA` response with values; `None` for the form that only names changed entries, and for any
/// other line.
#[must_use]
pub fn values(response: &[u8]) -> Option<Values<'_>> {
    let list = delimited(
        char('('),
        separated_list0(space, (astring, preceded(space, nstring))),
        char(')'),
    );
    let parsed: IResult<&[u8], _> =
        (tag_no_case("* METADATA"), space, astring, space, list, line_end).parse(response);
    let (rest, (_, _, mailbox, _, entries, ())) = parsed.ok()?;
    rest.is_empty().then_some(Values { mailbox, entries })
}

impl Values<'_> {
    /// The response as it goes over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"* METADATA ".to_vec();
        push_server_string(&mut out, &self.mailbox);
        out.extend_from_slice(b" (");
        push_pairs(&mut out, &self.entries);
        out.extend_from_slice(b")\r\n");
        out
    }
}

/// Appends entries and values as they stand between the parentheses of a response.
fn push_pairs(out: &mut Vec<u8>, pairs: &[Pair<'_>]) {
    for (index, (entry, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        // A server may give names that need quotes.
        if is_bare(entry) {
            out.extend_from_slice(entry);
        } else {
            push_server_string(out, entry);
        }
        out.push(b' ');
        match value {
            Some(value) => push_server_string(out, value),
            None => out.extend_from_slice(b"NIL"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pairs: &[Pair<'_>]) -> Vec<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        pairs.iter().map(|(entry, value)| (text(entry), value.as_deref().map(text))).collect()
    }

    #[test]
    fn set_in_every_form_a_core_has_used() {
        let expected = vec![("/private/devicetoken".to_owned(), Some("openpgp:x".to_owned()))];
        for command in [
            "A4 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:x\")\r\n",
            "A4 SETMETADATA \"INBOX\" (/private/devicetoken {9+}\r\nopenpgp:x)\r\n",
            "A4 SETMETADATA INBOX (/private/devicetoken {9}\r\nopenpgp:x)\r\n",
            "A4 setmetadata {5}\r\nINBOX (\"/private/devicetoken\" ~{9+}\r\nopenpgp:x)\r\n",
        ] {
            let set = set(command.as_bytes()).expect(command);
            assert_eq!(&*set.mailbox, b"INBOX");
            assert_eq!(shown(&set.entries), expected, "{command}");
        }
        let several =
            set(b"a SETMETADATA \"\" (/shared/comment NIL /private/comment \"\")\r\n").unwrap();
        assert_eq!(
            shown(&several.entries),
            [("/shared/comment".into(), None), ("/private/comment".into(), Some(String::new()))]
        );
    }

    #[test]
    fn bad_syntax_is_no_command() {
        for command in [
            "a SETMETADATA INBOX\r\n",
            "a SETMETADATA INBOX ()\r\n",
            "a SETMETADATA INBOX (/private/devicetoken)\r\n",
            "a SETMETADATA INBOX (/private/devicetoken x)\r\n",
            "a SETMETADATA INBOX (/private/a*b \"x\")\r\n",
            "a SETMETADATA INBOX (/other/a \"x\")\r\n",
            "a SETMETADATA INBOX (/private//a \"x\")\r\n",
            "a SETMETADATA INBOX (/private/a/ \"x\")\r\n",
        ] {
            assert_eq!(set(command.as_bytes()), None, "{command}");
        }
        for command in [
            "a GETMETADATA \"\"\r\n",
            "a GETMETADATA \"\" ()\r\n",
            "a GETMETADATA (DEPTH 2) \"\" /shared/a\r\n",
        ] {
            assert_eq!(get(command.as_bytes()), None, "{command}");
        }
    }

    #[test]
    fn get_with_options_on_either_side() {
        let expected =
            get(b"a GETMETADATA (MAXSIZE 1024 DEPTH 1) \"\" (/shared/comment)\r\n").unwrap();
        assert_eq!((expected.max_size, expected.depth), (Some(1024), Depth::One));
        assert_eq!(
            get(b"a GETMETADATA \"\" (MAXSIZE 1024 DEPTH 1) /shared/comment\r\n").unwrap(),
            expected
        );
        let plain = get(b"a GETMETADATA \"\" (/shared/comment /shared/admin)\r\n").unwrap();
        assert_eq!((plain.entries.len(), plain.depth), (2, Depth::Zero));
    }

    #[test]
    fn depth_says_which_entries_belong() {
        assert!(is_within(b"/shared/Comment", b"/shared/comment", Depth::Zero));
        assert!(!is_within(b"/shared/comments", b"/shared/comment", Depth::Infinity));
        assert!(is_within(b"/shared/vendor", b"/shared", Depth::One));
        assert!(!is_within(b"/shared/vendor/x", b"/shared", Depth::One));
        assert!(is_within(b"/shared/vendor/x", b"/shared", Depth::Infinity));
        assert!(!is_within(b"/shared/vendor", b"/shared", Depth::Zero));
    }

    #[test]
    fn responses_are_read_and_written() {
        let line = b"* METADATA \"\" (/shared/comment NIL /shared/admin {3}\r\na\r\n)\r\n";
        let read = values(line).unwrap();
        assert_eq!(
            shown(&read.entries),
            [("/shared/comment".into(), None), ("/shared/admin".into(), Some("a\r\n".into()))]
        );
        assert_eq!(read.to_bytes(), line);
        assert_eq!(values(b"* METADATA INBOX /shared/comment\r\n"), None);
        let quoted = b"* METADATA \"\" (\"/shared/a b\" NIL {4}\r\n/\r\nx \"y\")\r\n";
        assert_eq!(values(quoted).unwrap().to_bytes(), quoted);
    }
}
