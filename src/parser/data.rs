//! Untagged responses about messages and mailboxes (RFC 9051 sections 7.3 and 7.5): EXISTS, EXPUNGE, FETCH and STATUS.
//!
//! Read with tolerance, because a response that is missed is a message that nobody hears of. White space may be of any length,
//! items of a FETCH may come in any order, and each may be missing. Numbers have 63 bits, as many as the state can store.
//! Nesting is counted and not followed by recursion, so a hostile server cannot exhaust the stack.

use std::borrow::Cow;

/// An untagged response.
#[derive(Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// `* n EXISTS`; `None` if the number cannot be read.
    Exists(Option<u64>),
    /// `* n EXPUNGE`
    Expunge(Option<u64>),
    /// `* n FETCH`
    Fetch(Fetch<'a>),
    /// `* STATUS`
    Status(MailboxStatus<'a>),
    /// A number that is followed by no known word.
    Unclear,
    /// Any other response.
    Other,
}

/// The items of a FETCH response by which the push filter decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fetch<'a> {
    /// The message's sequence number.
    pub sequence: Option<u64>,
    /// Its UID.
    pub uid: Option<u64>,
    /// Its flags.
    pub flags: Vec<Cow<'a, str>>,
    /// The text of its body section. `None` if there is none or it is NIL.
    pub headers: Option<Cow<'a, [u8]>>,
    /// Some part could not be read.
    pub is_unclear: bool,
}

/// The items of a STATUS response that say whether a mailbox has new messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MailboxStatus<'a> {
    /// The mailbox's name, as the server sent it.
    pub name: Cow<'a, str>,
    /// UIDVALIDITY.
    pub uid_validity: Option<u64>,
    /// UIDNEXT.
    pub uid_next: Option<u64>,
}

/// Reads a whole response, its literals included.
#[must_use]
pub fn data(response: &[u8]) -> Data<'_> {
    let mut scanner = Scanner(response);
    let mut first = scanner.word();
    // Without a star a number in front is no tag: no command of deltapush has such a one.
    if first == b"*" {
        first = scanner.word();
    } else if !is_digits(first) {
        return Data::Other;
    }
    if first.eq_ignore_ascii_case(b"STATUS") {
        return Data::Status(status(&mut scanner));
    }
    let word = if is_digits(first) { scanner.word() } else { first };
    let sequence = number(first);
    match word {
        _ if word.eq_ignore_ascii_case(b"EXISTS") => Data::Exists(sequence),
        _ if word.eq_ignore_ascii_case(b"EXPUNGE") => Data::Expunge(sequence),
        _ if word.eq_ignore_ascii_case(b"FETCH") => Data::Fetch(fetch(sequence, &mut scanner)),
        _ if word.eq_ignore_ascii_case(b"RECENT") => Data::Other,
        _ if is_digits(first) => Data::Unclear,
        _ => Data::Other,
    }
}

/// A number of at most 63 bits.
#[must_use]
pub fn number(digits: &[u8]) -> Option<u64> {
    let value =
        std::str::from_utf8(digits).ok().filter(|_| is_digits(digits))?.parse::<i64>().ok()?;
    u64::try_from(value).ok()
}

/// A number that is only compared with others of its kind, such as UIDVALIDITY: one of more than 63 bits keeps its lowest.
#[must_use]
pub fn identifier(digits: &[u8]) -> Option<u64> {
    let low = |value: u64, digit: &u8| {
        value.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
    };
    is_digits(digits).then(|| digits.iter().fold(0, low) & (u64::MAX >> 1))
}

/// Returns true if a whole line is an EXISTS response. It looks at the end first, because it sees each line that passes: nearly all end with
/// a bracket or a brace, so that one byte tells.
#[must_use]
#[inline]
pub fn is_exists(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    line.last().is_some_and(|last| matches!(last, b'S' | b's') || last.is_ascii_whitespace())
        && ends_with_exists(line)
}

#[inline(never)]
fn ends_with_exists(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    line.get(line.len().saturating_sub(7)..).is_some_and(|end| end.eq_ignore_ascii_case(b" EXISTS"))
}

fn is_digits(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

fn fetch<'a>(sequence: Option<u64>, scanner: &mut Scanner<'a>) -> Fetch<'a> {
    let mut fetch = Fetch { sequence, is_unclear: sequence.is_none(), ..Fetch::default() };
    fetch.is_unclear |= !scanner.take(b'(');
    loop {
        match scanner.peek() {
            None => {
                fetch.is_unclear = true;
                return fetch;
            }
            Some(b')') => return fetch,
            Some(_) => {}
        }
        let name = scanner.item_name();
        match name {
            // No name where there should be one: skip the value.
            [] => {
                fetch.is_unclear = true;
                scanner.value();
            }
            _ if name.eq_ignore_ascii_case(b"UID") => match scanner.peek() {
                Some(b'0'..=b'9') => {
                    let uid = scanner.word();
                    fetch.uid = number(uid);
                    fetch.is_unclear |= fetch.uid.is_none();
                }
                _ => fetch.is_unclear = true,
            },
            _ if name.eq_ignore_ascii_case(b"FLAGS") => match scanner.peek() {
                Some(b'(') => fetch.flags = flags(scanner.list()),
                _ => fetch.is_unclear |= !scanner.take_nil(),
            },
            _ if is_section(name) => match scanner.peek() {
                Some(b'"' | b'{' | b'~') => match scanner.string() {
                    Some(text) => fetch.headers = Some(text),
                    None => fetch.is_unclear = true,
                },
                _ => {
                    scanner.take_nil();
                }
            },
            _ => scanner.value(),
        }
    }
}

fn is_section(name: &[u8]) -> bool {
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"BODY["))
}

fn flags(list: &[u8]) -> Vec<Cow<'_, str>> {
    let words = list.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b'(' | b')'));
    words.filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect()
}

fn status<'a>(scanner: &mut Scanner<'a>) -> MailboxStatus<'a> {
    let name = match scanner.peek() {
        Some(b'"' | b'{' | b'~') => scanner.string().unwrap_or_default(),
        _ => Cow::Borrowed(scanner.word()),
    };
    let name = match name {
        Cow::Borrowed(name) => String::from_utf8_lossy(name),
        Cow::Owned(name) => String::from_utf8_lossy(&name).into_owned().into(),
    };
    let mut status = MailboxStatus { name, ..MailboxStatus::default() };
    scanner.take(b'(');
    while !matches!(scanner.peek(), None | Some(b')')) {
        let name = scanner.word();
        match name {
            [] => scanner.value(),
            _ if name.eq_ignore_ascii_case(b"UIDVALIDITY") => {
                status.uid_validity = scanner.digits().and_then(identifier)
            }
            _ if name.eq_ignore_ascii_case(b"UIDNEXT") => {
                status.uid_next = scanner.digits().and_then(number)
            }
            _ => {}
        }
    }
    status
}

/// The rest of a response.
struct Scanner<'a>(&'a [u8]);

impl<'a> Scanner<'a> {
    /// The first byte that is no white space. Stays before it.
    fn peek(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.0.first().copied()
    }

    /// Moves behind `wanted` if it is next.
    fn take(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.skip(1);
        }
        is_next
    }

    fn skip(&mut self, count: usize) -> &'a [u8] {
        let (skipped, rest) = self.0.split_at_checked(count).unwrap_or((self.0, &[]));
        self.0 = rest;
        skipped
    }

    /// The bytes up to white space, a parenthesis, or the beginning of a string. Empty if one of these is next.
    fn word(&mut self) -> &'a [u8] {
        self.peek();
        let ends =
            |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'(' | b')' | b'"' | b'{');
        let end = self.0.iter().position(ends).unwrap_or(self.0.len());
        self.skip(end)
    }

    /// The number that is next.
    fn digits(&mut self) -> Option<&'a [u8]> {
        matches!(self.peek(), Some(b'0'..=b'9')).then(|| self.word())
    }

    /// Moves behind NIL if it is next.
    fn take_nil(&mut self) -> bool {
        self.peek();
        let is_nil = self.0.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"NIL"))
            && self.0.get(3).is_none_or(|byte| byte.is_ascii_whitespace() || *byte == b')');
        if is_nil {
            self.skip(3);
        }
        is_nil
    }

    /// The name of a FETCH item, with its section and its partial range: `BODY[HEADER.FIELDS (FROM)]<0>`.
    fn item_name(&mut self) -> &'a [u8] {
        self.peek();
        let (mut in_section, mut in_quotes) = (false, false);
        let ends = |byte: &u8| {
            match byte {
                b'"' if in_section => in_quotes = !in_quotes,
                _ if in_quotes => {}
                b'[' => in_section = true,
                b']' => in_section = false,
                _ => {}
            }
            !in_section
                && (byte.is_ascii_whitespace() || matches!(byte, b'(' | b')' | b'"' | b'{' | b'~'))
        };
        let end = self.0.iter().position(ends).unwrap_or(self.0.len());
        self.skip(end)
    }

    /// Skips a value of any kind. Moves on at least one byte, unless nothing is left.
    fn value(&mut self) {
        match self.peek() {
            Some(b'(') => {
                self.list();
            }
            Some(b'"' | b'{' | b'~') => {
                if self.string().is_none() {
                    self.skip(1);
                }
            }
            Some(b')') | None => {}
            Some(_) => {
                self.word();
            }
        }
    }

    /// The string that is next; `None` if it is malformed or incomplete. Then it may not move on.
    fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        if self.peek() == Some(b'"') { self.quoted() } else { self.literal().map(Cow::Borrowed) }
    }

    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        let inner = self.0.strip_prefix(b"\"")?;
        let mut is_escaped = false;
        let end = inner.iter().position(|byte| {
            let ends = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            ends
        });
        let Some(end) = end else {
            // It takes all that is left: looking for its end again from each byte would be quadratic.
            self.0 = &[];
            return None;
        };
        self.skip(end.saturating_add(2));
        let text = inner.get(..end)?;
        if !text.contains(&b'\\') {
            return Some(Cow::Borrowed(text));
        }
        let mut unescaped = Vec::with_capacity(text.len());
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            unescaped.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
        }
        Some(Cow::Owned(unescaped))
    }

    fn literal(&mut self) -> Option<&'a [u8]> {
        let start = self.0.strip_prefix(b"~").unwrap_or(self.0).strip_prefix(b"{")?;
        let digits = start.iter().position(|byte| !byte.is_ascii_digit())?;
        let (size, rest) = start.split_at_checked(digits)?;
        let rest = rest.strip_prefix(b"}")?;
        let rest = rest.strip_prefix(b"\r").unwrap_or(rest).strip_prefix(b"\n")?;
        let (text, rest) = rest.split_at_checked(usize::try_from(number(size)?).ok()?)?;
        self.0 = rest;
        Some(text)
    }

    /// The list that is next, with its parentheses; all that is left if it does not end.
    fn list(&mut self) -> &'a [u8] {
        let whole = self.0;
        let mut depth: usize = 0;
        while let Some(byte) = self.0.first() {
            match byte {
                b'"' | b'{' if self.string().is_some() => continue,
                b'(' => depth = depth.saturating_add(1),
                b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.skip(1);
            if depth == 0 {
                break;
            }
        }
        whole.get(..whole.len().saturating_sub(self.0.len())).unwrap_or(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(response: &str) -> Fetch<'_> {
        match data(response.as_bytes()) {
            Data::Fetch(fetch) => fetch,
            other => panic!("{response:?}: {other:?}"),
        }
    }

    #[test]
    fn counts_are_read_with_any_white_space() {
        for line in [
            "* 953 EXISTS\r\n",
            "*   953 EXISTS\r\n",
            " * 953\t exists \r\n",
            "* 953 EXISTS\n",
            "953 EXISTS\r\n",
        ] {
            assert_eq!(data(line.as_bytes()), Data::Exists(Some(953)), "{line:?}");
        }
        for line in ["* EXISTS\r\n", "* 99999999999999999999 EXISTS\r\n"] {
            assert_eq!(data(line.as_bytes()), Data::Exists(None), "{line:?}");
        }
        assert_eq!(data(b"*  4  EXPUNGE\r\n"), Data::Expunge(Some(4)));
        for line in ["* 4\r\n", "* 4 EXIST\r\n"] {
            assert_eq!(data(line.as_bytes()), Data::Unclear, "{line:?}");
        }
        for line in [
            "* 4 RECENT\r\n",
            "* FLAGS ()\r\n",
            "* OK 4 EXISTS\r\n",
            "w4 OK\r\n",
            "\r\n",
            "+ 4 EXISTS\r\n",
            "*\r\n",
        ] {
            assert_eq!(data(line.as_bytes()), Data::Other, "{line:?}");
        }
    }

    #[test]
    fn fetch_items_come_in_any_order_and_with_any_white_space() {
        for response in [
            "* 5 FETCH (UID 10 FLAGS (\\Seen $Junk) BODY[HEADER.FIELDS (FROM)] {5}\r\nF: )\n)\r\n",
            "*  5  FETCH  (BODY[HEADER.FIELDS (FROM)]<0>  {5}\r\nF: )\n  FLAGS  ( \\Seen  $Junk )  UID  10 ) \r\n",
            " * 5 fetch ( MODSEQ (7) uid 10 body[header.fields (\"F]M\")]{5}\r\nF: )\n flags(\\Seen $Junk)X \"a)\\\")\")\r\n",
            "* 5 FETCH (BODY[HEADER] \"F: )\n\" UID 10 INTERNALDATE NIL FLAGS (\\Seen $Junk))\r\n",
            "* 5 FETCH (ENVELOPE (NIL \"(\" {1}\r\n( ((a))) UID 10 BODY[1] ~{5}\r\nF: )\n FLAGS (\\Seen $Junk))\r\n",
        ] {
            let expected = Fetch {
                sequence: Some(5),
                uid: Some(10),
                flags: vec!["\\Seen".into(), "$Junk".into()],
                headers: Some(b"F: )\n".into()),
                is_unclear: false,
            };
            assert_eq!(fetched(response), expected, "{response:?}");
        }
    }

    #[test]
    fn missing_items_differ_from_unreadable_ones() {
        let wide = fetched("* 1 FETCH (UID 19564493749 FLAGS () BODY[] NIL)\r\n");
        assert_eq!((wide.uid, wide.headers, wide.is_unclear), (Some(19_564_493_749), None, false));
        let absent = fetched("* 1 FETCH (FLAGS () BODY[] \"\")\r\n");
        assert_eq!(
            (absent.uid, absent.headers, absent.is_unclear),
            (None, Some(b"".into()), false)
        );
        for unclear in [
            "* 1 FETCH (UID 99999999999999999999 FLAGS () BODY[] \"\")\r\n",
            "* 1 FETCH (UID FLAGS () BODY[] \"\")\r\n",
            "* 1 FETCH (UID x FLAGS () BODY[] \"\")\r\n",
            "* 1 FETCH (FLAGS () BODY[] \"\"\r\n",
            "* 1 FETCH (FLAGS () BODY[] {9}\r\nx)\r\n",
            "* 1 FETCH\r\n",
            "* FETCH (FLAGS () BODY[] \"\")\r\n",
        ] {
            let fetch = fetched(unclear);
            assert!(fetch.is_unclear && fetch.uid.is_none(), "{unclear:?}: {fetch:?}");
        }
    }

    #[test]
    fn status_is_read() {
        let expected = |name: &'static str| MailboxStatus {
            name: name.into(),
            uid_validity: Some(1_713_632_002_544),
            uid_next: Some(9),
        };
        for name in ["a\"b", "DeltaChat"] {
            let quoted = name.replace('"', "\\\"");
            let line = format!(
                "*  STATUS  \"{quoted}\"  ( MESSAGES 3  UIDVALIDITY 1713632002544 UIDNEXT  9 )\r\n"
            );
            assert_eq!(data(line.as_bytes()), Data::Status(expected(name)));
        }
        assert_eq!(
            data(b"* STATUS DeltaChat (UIDNEXT 9 UIDVALIDITY 1713632002544)\r\n"),
            Data::Status(expected("DeltaChat"))
        );
    }

    #[test]
    fn numbers_have_63_bits() {
        assert_eq!(number(b"9223372036854775807"), Some(i64::MAX.unsigned_abs()));
        assert_eq!(number(b"9223372036854775808"), None);
        assert_eq!((number(b""), number(b"+1"), number(b"007")), (None, None, Some(7)));
        assert_eq!(identifier(b"1713632002544"), Some(1_713_632_002_544));
        let (one, other) =
            (identifier(b"98765432109876543210"), identifier(b"98765432109876543211"));
        assert!(
            one.is_some() && one != other && number(one.unwrap().to_string().as_bytes()).is_some()
        );
        assert_eq!(identifier(b"x"), None);
    }

    #[test]
    fn nesting_without_end_is_read_to_its_end() {
        let deep = format!("* 1 FETCH (BODYSTRUCTURE {} UID 3)\r\n", "(".repeat(60_000));
        assert!(fetched(&deep).is_unclear);
    }
}
