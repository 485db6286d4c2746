//! The commands that deltapush reads (RFC 9051 section 6). All others it knows by tag only.

use nom::Parser;
use nom::combinator::opt;
use nom::sequence::{preceded, terminated};

use super::sasl::{is_password, user_name};
use super::syntax::{Parsed, astring, atom, is_tag_char, line_end, space};
use crate::secret::Credentials;

/// The longest tag and verb, together, that are looked at. What is longer is none of the verbs below.
pub const HEAD_LIMIT: usize = 512;

/// The verbs that mean something to deltapush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `APPEND`
    Append,
    /// `AUTHENTICATE`: the lines that follow are SASL, not commands.
    Authenticate,
    /// `CAPABILITY`
    Capability,
    /// `CLOSE`
    Close,
    /// `COMPRESS` (RFC 4978)
    Compress,
    /// `EXAMINE`
    Examine,
    /// `FETCH`
    Fetch,
    /// `GETJMAPACCESS` (RFC 9698)
    GetJmapAccess,
    /// `GETMETADATA` (RFC 5464)
    GetMetadata,
    /// `ID` (RFC 2971)
    Id,
    /// `IDLE` (RFC 2177): the line that follows is DONE, not a command.
    Idle,
    /// `LOGIN`
    Login,
    /// `LOGOUT`
    Logout,
    /// `NOOP`
    Noop,
    /// `RLIST` or `RLSUB` (RFC 2193)
    Referral,
    /// `SELECT`
    Select,
    /// `SETMETADATA` (RFC 5464)
    SetMetadata,
    /// `STARTTLS`
    StartTls,
    /// `UID`: of what follows, FETCH is by far the most frequent.
    Uid,
    /// `UNAUTHENTICATE` (RFC 8437)
    Unauthenticate,
    /// `UNSELECT` (RFC 3691)
    Unselect,
    /// Anything else, known to the upstream or not.
    Other,
}

impl Verb {
    fn from_bytes(verb: &[u8]) -> Self {
        const LONGEST: usize = b"UNAUTHENTICATE".len();
        let mut upper = [0; LONGEST];
        let Some(upper) = upper.get_mut(..verb.len()) else { return Self::Other };
        upper.copy_from_slice(verb);
        upper.make_ascii_uppercase();
        match &*upper {
            b"APPEND" => Self::Append,
            b"AUTHENTICATE" => Self::Authenticate,
            b"CAPABILITY" => Self::Capability,
            b"CLOSE" => Self::Close,
            b"COMPRESS" => Self::Compress,
            b"EXAMINE" => Self::Examine,
            b"FETCH" => Self::Fetch,
            b"GETJMAPACCESS" => Self::GetJmapAccess,
            b"GETMETADATA" => Self::GetMetadata,
            b"ID" => Self::Id,
            b"IDLE" => Self::Idle,
            b"LOGIN" => Self::Login,
            b"LOGOUT" => Self::Logout,
            b"NOOP" => Self::Noop,
            b"RLIST" | b"RLSUB" => Self::Referral,
            b"SELECT" => Self::Select,
            b"SETMETADATA" => Self::SetMetadata,
            b"STARTTLS" => Self::StartTls,
            b"UID" => Self::Uid,
            b"UNAUTHENTICATE" => Self::Unauthenticate,
            b"UNSELECT" => Self::Unselect,
            _ => Self::Other,
        }
    }

    /// Whether the command's arguments are secret: passwords, SASL data, tokens.
    #[must_use]
    pub fn has_secret_arguments(self) -> bool {
        matches!(self, Self::Authenticate | Self::Login | Self::SetMetadata)
    }
}

/// How a command begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The client's tag. Empty if the line has none: then the whole line is of an unknown kind.
    pub tag: &'a [u8],
    /// What is asked.
    pub verb: Verb,
    /// How many bytes tag, space and verb take up.
    pub len: usize,
}

/// Tag and verb of a command of which `start` is known; `None` if it takes more to tell. A line that is no command is one
/// of an unknown verb, with an empty tag if it has none: a relay forwards what it does not understand.
#[must_use]
pub fn head(start: &[u8]) -> Option<Head<'_>> {
    // What lies beyond the limit must not change what was decided within it: the chunks may be of any size.
    let start = start.get(..HEAD_LIMIT).unwrap_or(start);
    // A line's end is at the end of what is given; in whole commands with literals it is further in front.
    let complete = start.ends_with(b"\n") || start.len() >= HEAD_LIMIT || memchr::memchr(b'\n', start).is_some();
    let unknown = Head { tag: &[], verb: Verb::Other, len: 0 };
    let Some((tag, verb, rest)) = tag_and_verb(start) else { return complete.then_some(unknown) };
    (complete || !rest.is_empty()).then(|| Head {
        tag,
        verb: Verb::from_bytes(verb),
        len: start.len().saturating_sub(rest.len()),
    })
}

/// Tag, verb, and what follows. This is done for every command, where the parsers of `syntax` would take their time.
fn tag_and_verb(start: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (tag, rest) = split_while(start, is_tag_char);
    let (spaces, rest) = split_while(rest, |byte| byte == b' ');
    let (verb, rest) = split_while(rest, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (!tag.is_empty() && !spaces.is_empty()).then_some((tag, verb, rest))
}

fn split_while(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let len = bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len());
    bytes.split_at_checked(len).unwrap_or((bytes, &[]))
}

/// The arguments of a whole command: what follows tag, space and verb, up to its line end.
fn arguments<'a, T>(
    command: &'a [u8],
    parser: impl Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
) -> Option<T> {
    let head = head(command)?;
    let arguments = command.get(head.len..)?;
    let (rest, value) = terminated(parser, line_end).parse(arguments).ok()?;
    rest.is_empty().then_some(value)
}

/// Whether a whole command has no arguments.
#[must_use]
pub fn has_no_arguments(command: &[u8]) -> bool {
    arguments(command, nom::combinator::success(())).is_some()
}

/// The mechanism that a whole COMPRESS command asks for (RFC 4978 section 5). `None` if it is not well-formed.
#[must_use]
pub fn compress_mechanism(command: &[u8]) -> Option<&[u8]> {
    arguments(command, preceded(space, atom))
}

/// The credentials of a whole LOGIN command, in any mixture of atoms, quoted strings and literals. `None` if it is not
/// well-formed, the user name is not UTF-8 or has a line end in it, or there is a NUL.
#[must_use]
pub fn login(command: &[u8]) -> Option<Credentials> {
    let (user, password) = arguments(command, (preceded(space, astring), preceded(space, astring)))?;
    let user = user_name(&user).filter(|_| is_password(&password))?;
    // A password with escapes was unescaped into a buffer of its own, which is taken over here and not copied.
    Some(Credentials::new(user, password.into_owned()))
}

/// The mailbox that a whole SELECT or EXAMINE names; `None` if it is malformed or the name is not printable ASCII, as names
/// in modified UTF-7 are (RFC 3501 section 5.1.3).
#[must_use]
pub fn mailbox(command: &[u8]) -> Option<String> {
    let arguments = command.get(head(command)?.len..)?;
    let (_, name) = preceded(space, astring).parse(arguments).ok()?;
    let name = String::from_utf8(name.into_owned()).ok()?;
    let is_printable = !name.is_empty() && name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_printable.then_some(name)
}

/// The mechanism and, where SASL-IR (RFC 4959) is used, the initial response of a whole AUTHENTICATE command; both as they
/// stand, the response in base64 or `=` for an empty one.
#[must_use]
pub fn authenticate(command: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    arguments(command, (preceded(space, atom), opt(preceded(space, base64_or_empty))))
}

fn base64_or_empty(input: &[u8]) -> Parsed<'_, &[u8]> {
    nom::bytes::complete::take_while1(|byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
        .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag_and_verb(start: &str) -> Option<(String, Verb)> {
        head(start.as_bytes()).map(|head| (String::from_utf8_lossy(head.tag).into_owned(), head.verb))
    }

    #[test]
    fn what_lies_beyond_the_limit_decides_nothing() {
        let long = format!("{} SETMETADATA INBOX", "x".repeat(HEAD_LIMIT));
        assert_eq!(head(long.as_bytes()), head(&long.as_bytes()[..HEAD_LIMIT]));
        assert_eq!(head(long.as_bytes()).unwrap().verb, Verb::Other);
    }

    #[test]
    fn a_head_is_known_as_soon_as_it_can_be() {
        assert_eq!(tag_and_verb("A1"), None);
        assert_eq!(tag_and_verb("A1 ID"), None);
        assert_eq!(tag_and_verb("A1 IDL"), None);
        assert_eq!(tag_and_verb("A1 IDLE"), None);
        assert_eq!(tag_and_verb("A1 IDLE\r"), Some(("A1".into(), Verb::Idle)));
        assert_eq!(tag_and_verb("A1 ID ("), Some(("A1".into(), Verb::Id)));
        assert_eq!(tag_and_verb("a.b-3 setMetaData \"INBOX"), Some(("a.b-3".into(), Verb::SetMetadata)));
        assert_eq!(tag_and_verb("A1 UID FETCH"), Some(("A1".into(), Verb::Uid)));
        assert_eq!(tag_and_verb("A1 NAMESPACE\r\n"), Some(("A1".into(), Verb::Other)));
    }

    #[test]
    fn what_is_no_command_is_of_an_unknown_verb() {
        assert_eq!(tag_and_verb("DONE\r\n"), Some((String::new(), Verb::Other)));
        assert_eq!(tag_and_verb("\r\n"), Some((String::new(), Verb::Other)));
        assert_eq!(tag_and_verb("A1\r\n"), Some((String::new(), Verb::Other)));
        assert_eq!(tag_and_verb("\0\u{1}\n"), Some((String::new(), Verb::Other)));
        assert_eq!(tag_and_verb(&"x".repeat(HEAD_LIMIT)), Some((String::new(), Verb::Other)));
    }

    #[test]
    fn login_takes_every_form_of_string() {
        for command in [
            "a LOGIN user p\"w\r\n".replace('"', "x"),
            "a login \"user\" \"pxw\"\r\n".into(),
            "a LOGIN {4}\r\nuser {3+}\r\npxw\r\n".into(),
            "a LOGIN user {3}\r\npxw\r\n".into(),
        ] {
            let credentials = login(command.as_bytes()).expect(&command);
            assert_eq!((credentials.user.as_str(), credentials.password.expose()), ("user", &b"pxw"[..]), "{command}");
        }
        let credentials = login("a LOGIN \"alice@lab.test\" \"p w\\\"\\\\gr\u{fc}n\"\r\n".as_bytes()).unwrap();
        assert_eq!(credentials.password.expose(), "p w\"\\gr\u{fc}n".as_bytes());
        for command in [
            "a LOGIN user\r\n",
            "a LOGIN user a b\r\n",
            "a LOGIN\r\n",
            "a LOGIN \"u\r\n",
            "a LOGIN {4}\r\nus",
            "a LOGIN {3}\r\nu\nv p\r\n",
            "a LOGIN {3}\r\nu\rv p\r\n",
            "a LOGIN {3}\r\nu\0v p\r\n",
            "a LOGIN u {3}\r\np\0w\r\n",
        ] {
            assert!(login(command.as_bytes()).is_none(), "{command}");
        }
    }

    #[test]
    fn mailboxes_in_every_form() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"a SELECT inbox\r\n", Some("inbox")),
            (b"a EXAMINE \"My \\\"Mail\\\"\" (CONDSTORE)\r\n", Some("My \"Mail\"")),
            (b"a SELECT {9}\r\nDeltaChat\r\n", Some("DeltaChat")),
            (b"a SELECT \"\xc3\xbc\"\r\n", None),
            (b"a SELECT\r\n", None),
            (b"a SELECT \"\"\r\n", None),
        ];
        for (command, expected) in cases {
            assert_eq!(mailbox(command).as_deref(), expected);
        }
    }

    #[test]
    fn authenticate_with_and_without_initial_response() {
        assert_eq!(authenticate(b"a AUTHENTICATE PLAIN\r\n"), Some((&b"PLAIN"[..], None)));
        assert_eq!(authenticate(b"a authenticate plain AGEAYg==\r\n"), Some((&b"plain"[..], Some(&b"AGEAYg=="[..]))));
        assert_eq!(authenticate(b"a AUTHENTICATE PLAIN =\r\n"), Some((&b"PLAIN"[..], Some(&b"="[..]))));
        assert_eq!(authenticate(b"a AUTHENTICATE\r\n"), None);
    }
}
