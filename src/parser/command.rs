//! The commands that deltapush reads (RFC 9051 section 6). All others it knows by tag only.

use nom::Parser;
use nom::combinator::opt;
use nom::sequence::{preceded, terminated};

use super::sasl::{is_password, user_name};
use super::syntax::{Parsed, astring, atom, is_tag_char, line_end, space};
use crate::credentials::Credentials;

/// The longest tag and verb, together, with the byte behind them. A line that is longer up to there is no command.
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
    /// Any other word, known to the upstream or not, or an empty line.
    Other,
    /// No command: tag or verb is missing, has a character that must not stand in it, or is too long, or the verb is followed by
    /// something other than a space or the line's end. Servers differ in what they make of such a line: it may be a command to one of them.
    Malformed,
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
}

/// The part of a command that a transcript may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disclosure {
    /// Nothing: it may be a secret in the wrong place, such as a mistyped login or the data of a literal that was refused.
    Nothing,
    /// Tag and verb.
    Head,
    /// All of it, literals excepted.
    All,
}

/// Commands that deltapush knows by name only, with arguments of which none is secret.
const HARMLESS: [&[u8]; 27] = [
    b"COPY",
    b"CREATE",
    b"DELETE",
    b"DELETEACL",
    b"ENABLE",
    b"ESEARCH",
    b"GETACL",
    b"GETQUOTA",
    b"GETQUOTAROOT",
    b"LANGUAGE",
    b"LIST",
    b"LISTRIGHTS",
    b"LSUB",
    b"MOVE",
    b"MYRIGHTS",
    b"NOTIFY",
    b"RENAME",
    b"SEARCH",
    b"SETACL",
    b"SETQUOTA",
    b"SORT",
    b"STATUS",
    b"STORE",
    b"SUBSCRIBE",
    b"THREAD",
    b"UNSUBSCRIBE",
    b"XLIST",
];

/// Such commands without arguments.
const WITHOUT_ARGUMENTS: [&[u8]; 3] = [b"CHECK", b"EXPUNGE", b"NAMESPACE"];

/// Commands that every server reads to their end, literals included, among those that deltapush knows by name only.
const READ_BY_ALL: [&[u8]; 11] = [
    b"COPY",
    b"CREATE",
    b"DELETE",
    b"LIST",
    b"LSUB",
    b"RENAME",
    b"SEARCH",
    b"STATUS",
    b"STORE",
    b"SUBSCRIBE",
    b"UNSUBSCRIBE",
];

/// Such commands behind UID.
const READ_BY_ALL_WITH_UID: [&[u8]; 4] = [b"COPY", b"FETCH", b"SEARCH", b"STORE"];

/// A server's reading of a literal in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literals {
    /// It takes them for data.
    Data,
    /// It may skip the line without looking for one, as Dovecot does with commands that it does not know: the data of a literal that
    /// does not wait would be commands.
    Doubtful,
    /// There is no place for one, and it may skip the line as well.
    Misplaced,
}

/// The beginning of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandHead<'a> {
    /// The client's tag. Empty if the line has none.
    pub tag: &'a [u8],
    /// The command's name.
    pub verb: Verb,
    /// Length of tag, space and verb in bytes; 0 if the line is no command.
    pub len: usize,
}

impl CommandHead<'_> {
    /// Servers' reading of literals in the command that begins with `start`. With more of the command, doubts may go.
    #[must_use]
    pub fn literals(&self, start: &[u8]) -> Literals {
        use Verb::{Capability, Close, Idle, Logout, Noop, Other, Uid, Unselect};
        let is_one_of =
            |names: &[&[u8]], word: &[u8]| names.iter().any(|name| name.eq_ignore_ascii_case(word));
        let verb = || {
            start
                .get(..self.len)
                .unwrap_or_default()
                .rsplit(|byte| *byte == b' ')
                .next()
                .unwrap_or_default()
        };
        let is_read = match self.verb {
            Capability | Close | Idle | Logout | Noop | Unselect => return Literals::Misplaced,
            Other if is_one_of(&WITHOUT_ARGUMENTS, verb()) => return Literals::Misplaced,
            Other => is_one_of(&READ_BY_ALL, verb()),
            Uid => {
                let rest = start.get(self.len..).unwrap_or_default().trim_ascii_start();
                let (word, after) = split_while(rest, is_verb_char);
                is_one_of(&READ_BY_ALL_WITH_UID, word) && after.first() == Some(&b' ')
            }
            _ => true,
        };
        if is_read { Literals::Data } else { Literals::Doubtful }
    }

    /// The part of the command that begins with `start` that may be shown. Arguments of a command that takes none are
    /// hidden.
    #[must_use]
    pub fn disclosure(&self, start: &[u8]) -> Disclosure {
        use Verb::{
            Append, Authenticate, Compress, Examine, Fetch, GetMetadata, Id, Login, Malformed,
        };
        use Verb::{Other, Select, SetMetadata, Uid};
        let (head, rest) = start.split_at_checked(self.len).unwrap_or_default();
        let word = head.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let is_one_of = |names: &[&[u8]]| names.iter().any(|name| name.eq_ignore_ascii_case(word));
        match self.verb {
            Malformed => Disclosure::Nothing,
            Authenticate | Login | SetMetadata => Disclosure::Head,
            Append | Compress | Examine | Fetch | GetMetadata | Id | Select | Uid => {
                Disclosure::All
            }
            Other if is_one_of(&HARMLESS) => Disclosure::All,
            Other if !is_one_of(&WITHOUT_ARGUMENTS) => Disclosure::Nothing,
            _ if rest.ends_with(b"\n") && rest.trim_ascii().is_empty() => Disclosure::All,
            _ => Disclosure::Head,
        }
    }
}

/// Tag and verb of a command of which `start` is known; `None` if it takes more to tell.
///
/// Strict where servers are lenient (RFC 9051 section 9: `tag SP verb`, then a space or the line's end), so that no server
/// reads another verb than the one that is returned. Only several spaces between tag and verb are allowed. Anything else
/// that a server may take for a command is [`Verb::Malformed`]: it must not reach one.
#[must_use]
pub fn head(start: &[u8]) -> Option<CommandHead<'_>> {
    // Bytes beyond the limit must not change what was decided within it: the chunks may be of any size.
    let start = start.get(..HEAD_LIMIT).unwrap_or(start);
    let (tag, rest) = split_while(start, is_tag_char);
    let (spaces, rest) = split_while(rest, |byte| byte == b' ');
    let (verb, rest) = split_while(rest, is_verb_char);
    if !tag.is_empty()
        && !spaces.is_empty()
        && !verb.is_empty()
        && matches!(rest, [b' ' | b'\n', ..] | [b'\r', b'\n', ..])
    {
        return Some(CommandHead {
            tag,
            verb: Verb::from_bytes(verb),
            len: start.len().saturating_sub(rest.len()),
        });
    }
    malformed_head(start, tag, spaces, rest)
}

/// A line that is no command so far: it may become one, unless it has come to an end or to a byte that must not stand there.
#[cold]
fn malformed_head<'a>(
    start: &[u8],
    tag: &'a [u8],
    spaces: &[u8],
    rest: &[u8],
) -> Option<CommandHead<'a>> {
    let may_go_on = matches!(rest, [] | [b'\r']) && start.len() < HEAD_LIMIT;
    match start {
        // A server that answers an empty line at all says BAD.
        b"\n" | b"\r\n" => Some(CommandHead { tag: &[], verb: Verb::Other, len: 0 }),
        _ if may_go_on => None,
        _ => {
            let is_tag = !tag.is_empty()
                && (!spaces.is_empty() || matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]));
            Some(CommandHead { tag: if is_tag { tag } else { &[] }, verb: Verb::Malformed, len: 0 })
        }
    }
}

/// A byte that may stand in a verb. Those of all extensions are letters, digits and hyphens.
fn is_verb_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
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

/// Reports if a whole command has no arguments.
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
    let (user, password) =
        arguments(command, (preceded(space, astring), preceded(space, astring)))?;
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
    nom::bytes::complete::take_while1(|byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
    })
    .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag_and_verb(start: &str) -> Option<(String, Verb)> {
        head(start.as_bytes())
            .map(|head| (String::from_utf8_lossy(head.tag).into_owned(), head.verb))
    }

    #[test]
    fn bytes_beyond_the_limit_decide_nothing() {
        for tag in [
            "x".repeat(HEAD_LIMIT),
            "x".repeat(HEAD_LIMIT - 4),
            format!("a{}", " ".repeat(HEAD_LIMIT)),
        ] {
            let long = format!("{tag} SETMETADATA INBOX");
            assert_eq!(head(long.as_bytes()), head(&long.as_bytes()[..HEAD_LIMIT]));
            assert_eq!(head(long.as_bytes()).unwrap().verb, Verb::Malformed);
        }
        let known = format!("{} ID NIL", "x".repeat(HEAD_LIMIT - 4));
        assert_eq!(head(known.as_bytes()).unwrap().verb, Verb::Id);
    }

    #[test]
    fn head_is_known_as_soon_as_it_can_be() {
        assert_eq!(tag_and_verb("A1"), None);
        assert_eq!(tag_and_verb("A1 ID"), None);
        assert_eq!(tag_and_verb("A1 IDL"), None);
        assert_eq!(tag_and_verb("A1 IDLE"), None);
        assert_eq!(tag_and_verb("A1 IDLE\r"), None);
        assert_eq!(tag_and_verb("A1 IDLE\r\n"), Some(("A1".into(), Verb::Idle)));
        assert_eq!(tag_and_verb("A1 ID ("), Some(("A1".into(), Verb::Id)));
        assert_eq!(
            tag_and_verb("a.b-3 setMetaData \"INBOX"),
            Some(("a.b-3".into(), Verb::SetMetadata))
        );
        assert_eq!(tag_and_verb("A1  UID FETCH"), Some(("A1".into(), Verb::Uid)));
        assert_eq!(tag_and_verb("A1 NAMESPACE\r\n"), Some(("A1".into(), Verb::Other)));
        assert_eq!(tag_and_verb("A1 XLIST_2.0 x"), Some(("A1".into(), Verb::Other)));
    }

    #[test]
    fn line_that_a_lenient_server_may_read_is_malformed() {
        for (line, tag) in [
            ("a+1 UNAUTHENTICATE\r\n", ""),
            ("+ ID NIL\r\n", ""),
            (" a1 ID NIL\r\n", ""),
            ("\ta1 ID NIL\r\n", ""),
            ("a1\tID NIL\r\n", ""),
            ("a1 \tID NIL\r\n", "a1"),
            ("a1 ID\tNIL\r\n", "a1"),
            ("a1 ID(\"x\" \"y\")\r\n", "a1"),
            ("a1 \"ID\" NIL\r\n", "a1"),
            ("a1 {2}\r\nID NIL\r\n", "a1"),
            ("{2+}\r\na1 ID NIL\r\n", ""),
            ("a1 ID\rNIL\r\n", "a1"),
            ("a1 NO\0OP\r\n", "a1"),
            ("a1\0 ID NIL\r\n", ""),
            ("\u{e9} ID NIL\r\n", ""),
            ("a1 \u{e9}ID NIL\r\n", "a1"),
            ("(a1 ID NIL)\r\n", ""),
            ("DONE\r\n", "DONE"),
            ("DONE\n", "DONE"),
            ("a1 \r\n", "a1"),
            ("a1\r\n", "a1"),
            ("\0\u{1}\n", ""),
            ("*\r\n", ""),
        ] {
            assert_eq!(tag_and_verb(line), Some((tag.into(), Verb::Malformed)), "{line:?}");
        }
        assert_eq!(tag_and_verb(&"x".repeat(HEAD_LIMIT)), Some((String::new(), Verb::Malformed)));
        assert_eq!(tag_and_verb("\r\n"), Some((String::new(), Verb::Other)));
        assert_eq!(tag_and_verb("\n"), Some((String::new(), Verb::Other)));
    }

    #[test]
    fn only_harmless_commands_are_shown() {
        for (line, expected) in [
            ("a LIST \"\" *\r\n", Disclosure::All),
            ("a store 1 +FLAGS x\r\n", Disclosure::All),
            ("a  UID FETCH 1 x\r\n", Disclosure::All),
            ("a NOOP\r\n", Disclosure::All),
            ("a NOOP sesame\r\n", Disclosure::Head),
            ("a STARTTLS sesame\r\n", Disclosure::Head),
            ("a EXPUNGE sesame\r\n", Disclosure::Head),
            ("a LOGIN alice sesame\r\n", Disclosure::Head),
            ("a SETMETADATA INBOX (/private/comment sesame)\r\n", Disclosure::Head),
            ("a LOGN alice sesame\r\n", Disclosure::Nothing),
            ("sesame sesame\r\n", Disclosure::Nothing),
            ("sesame\r\n", Disclosure::Nothing),
            ("\r\n", Disclosure::Nothing),
        ] {
            assert_eq!(
                head(line.as_bytes()).unwrap().disclosure(line.as_bytes()),
                expected,
                "{line:?}"
            );
        }
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
            assert_eq!(
                (credentials.user.as_str(), credentials.password.expose()),
                ("user", &b"pxw"[..]),
                "{command}"
            );
        }
        let credentials =
            login("a LOGIN \"alice@lab.test\" \"p w\\\"\\\\gr\u{fc}n\"\r\n".as_bytes()).unwrap();
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
        assert_eq!(
            authenticate(b"a authenticate plain AGEAYg==\r\n"),
            Some((&b"plain"[..], Some(&b"AGEAYg=="[..])))
        );
        assert_eq!(
            authenticate(b"a AUTHENTICATE PLAIN =\r\n"),
            Some((&b"PLAIN"[..], Some(&b"="[..])))
        );
        assert_eq!(authenticate(b"a AUTHENTICATE\r\n"), None);
    }
}
