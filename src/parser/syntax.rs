//! The tokens of IMAP's grammar (RFC 9051 section 9) as nom parsers over bytes that are all there: literals stand in
//! line, announcement and data together.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take, take_while, take_while_m_n, take_while1};
use nom::character::complete::{char, u64 as number64};
use nom::combinator::{all_consuming, opt, recognize, value};
use nom::multi::many0_count;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use super::framer::MAX_DIGITS;

/// The result of a parser of this module.
pub type Parsed<'a, T> = IResult<&'a [u8], T>;

/// A byte that may stand in an atom. Bytes above ASCII are let through: `UTF8=ACCEPT` clients send them.
fn is_atom_char(byte: u8) -> bool {
    !matches!(byte, 0..=32 | 127 | b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// A byte that may stand in a bare astring.
fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// Reports if `value` can be written as an astring without quotes.
#[must_use]
pub fn is_bare(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().copied().all(is_astring_char)
}

/// A byte that may stand in a command's tag. Nearly all are letters and digits, which are told first.
pub(super) fn is_tag_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte.is_ascii() && is_astring_char(byte) && byte != b'+'
}

/// A command's tag.
pub fn command_tag(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(is_tag_char).parse(input)
}

/// One space. RFC 9051 allows no more, and some clients send two all the same.
pub fn space(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(|byte| byte == b' ').parse(input)
}

/// The end of a command: CR LF or a bare LF, with spaces before it tolerated.
pub fn line_end(input: &[u8]) -> Parsed<'_, ()> {
    let (input, _) = take_while(|byte| byte == b' ').parse(input)?;
    value((), (opt(char('\r')), char('\n'))).parse(input)
}

/// An atom, of any length but none.
pub fn atom(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(is_atom_char).parse(input)
}

/// A quoted string, unescaped.
pub fn quoted(input: &[u8]) -> Parsed<'_, Cow<'_, [u8]>> {
    let plain = take_while1(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
    let escaped = preceded(char('\\'), alt((tag("\""), tag("\\"))));
    let (rest, raw) =
        delimited(char('"'), recognize(many0_count(alt((plain, escaped)))), char('"'))
            .parse(input)?;
    Ok((rest, unescape(raw)))
}

fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut bytes = raw.iter();
    let mut plain = Vec::with_capacity(raw.len());
    while let Some(&byte) = bytes.next() {
        plain.extend(if byte == b'\\' { bytes.next() } else { Some(&byte) });
    }
    Cow::Owned(plain)
}

/// A literal, in any of its forms, with its data. One that the framer does not take for a literal (it has too many digits)
/// is none here.
pub fn literal(input: &[u8]) -> Parsed<'_, &[u8]> {
    let digits = take_while_m_n(1, MAX_DIGITS, |byte: u8| byte.is_ascii_digit());
    let (rest, size) = delimited(
        (opt(char('~')), char('{')),
        digits.and_then(all_consuming(number64)),
        (opt(char('+')), char('}'), opt(char('\r')), char('\n')),
    )
    .parse(input)?;
    take(size).parse(rest)
}

/// `string`: quoted or literal.
pub fn string(input: &[u8]) -> Parsed<'_, Cow<'_, [u8]>> {
    alt((quoted, literal.map(Cow::Borrowed))).parse(input)
}

/// `astring`: an atom-like word or a string.
pub fn astring(input: &[u8]) -> Parsed<'_, Cow<'_, [u8]>> {
    // Strings first: `~` may begin a bare word, and a literal8.
    alt((string, take_while1(is_astring_char).map(Cow::Borrowed))).parse(input)
}

/// `nstring`: a string, or `None` for NIL.
pub fn nstring(input: &[u8]) -> Parsed<'_, Option<Cow<'_, [u8]>>> {
    alt((value(None, tag_no_case("NIL")), string.map(Some))).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<'a, T>(parser: impl Fn(&'a [u8]) -> Parsed<'a, T>, input: &'a str) -> Option<T> {
        parser(input.as_bytes()).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, value)| value)
    }

    #[test]
    fn strings_in_all_forms() {
        assert_eq!(all(astring, "user@example.org").as_deref(), Some(&b"user@example.org"[..]));
        assert_eq!(all(astring, "a]").as_deref(), Some(&b"a]"[..]));
        assert_eq!(all(astring, r#""p w\"\\x""#).as_deref(), Some(&br#"p w"\x"#[..]));
        assert_eq!(all(astring, "\"\"").as_deref(), Some(&b""[..]));
        assert_eq!(all(astring, "{3}\r\na\"b").as_deref(), Some(&b"a\"b"[..]));
        assert_eq!(all(astring, "{3+}\r\n\r\n\"").as_deref(), Some(&b"\r\n\""[..]));
        assert_eq!(all(astring, "~{0}\r\n").as_deref(), Some(&b""[..]));
        assert_eq!(all(astring, "{00000000000000000003}\r\nabc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(all(nstring, "nil"), Some(None));
        assert_eq!(all(nstring, "\"NIL\"").flatten().as_deref(), Some(&b"NIL"[..]));
    }

    #[test]
    fn value_that_is_no_string_is_refused() {
        for input in [
            "",
            "\"a",
            "\"a\\n\"",
            "\"a\r\nb\"",
            "{3}\r\nab",
            "{3}ab",
            "a b",
            "(a)",
            "{18446744073709551615}\r\n",
            "{000000000000000000003}\r\nabc",
        ] {
            assert_eq!(all(astring, input), None, "{input:?}");
        }
    }
}
