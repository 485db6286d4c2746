//! The client's identification (RFC 2971): the fields of an ID command, within the bounds of the RFC.

use std::borrow::Cow;

use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::tag_no_case;
use nom::character::complete::char;
use nom::combinator::value;
use nom::multi::separated_list0;
use nom::sequence::{delimited, preceded, separated_pair, terminated};

use super::command;
use super::syntax::{line_end, nstring, space, string};

/// The most fields that one ID may have (RFC 2971 section 3.3).
pub const MAX_FIELDS: usize = 30;

/// The longest name of a field, in bytes.
pub const MAX_NAME: usize = 30;

/// The longest value of a field, in bytes.
pub const MAX_VALUE: usize = 1024;

/// A field's name, and its value or `None` for NIL.
pub type Field = (Vec<u8>, Option<Vec<u8>>);

/// The fields of a whole ID command; none for `ID NIL` and `ID ()`. `None` if it is malformed or goes beyond the RFC's
/// bounds.
#[must_use]
pub fn fields(command: &[u8]) -> Option<Vec<Field>> {
    let arguments = command.get(command::head(command)?.len..)?;
    let pair = separated_pair(string, space, nstring);
    let list = delimited(char('('), separated_list0(space, pair), char(')'));
    let (rest, fields) =
        terminated(preceded(space, alt((value(vec![], tag_no_case("NIL")), list))), line_end)
            .parse(arguments)
            .ok()?;
    let is_within = |(name, value): &(Cow<'_, [u8]>, Option<Cow<'_, [u8]>>)| {
        name.len() <= MAX_NAME && value.as_ref().is_none_or(|value| value.len() <= MAX_VALUE)
    };
    if !rest.is_empty() || fields.len() > MAX_FIELDS || !fields.iter().all(is_within) {
        return None;
    }
    Some(
        fields
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value.map(Cow::into_owned)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Option<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = fields(format!("a ID{arguments}\r\n").as_bytes())?;
        let shown = |(name, value): &Field| {
            format!("{}={}", text(name), value.as_deref().map_or("NIL".into(), text))
        };
        Some(fields.iter().map(shown).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn fields_in_every_form() {
        assert_eq!(parsed(" NIL").as_deref(), Some(""));
        assert_eq!(parsed(" nil").as_deref(), Some(""));
        assert_eq!(parsed(" ()").as_deref(), Some(""));
        assert_eq!(parsed(" (\"name\" \"Delta Chat\")").as_deref(), Some("name=Delta Chat"));
        assert_eq!(
            parsed(" (\"name\" {3}\r\na\"b \"os\" NIL {2+}\r\nos \"x\\\\\")").as_deref(),
            Some("name=a\"b,os=NIL,os=x\\")
        );
    }

    #[test]
    fn syntax_that_the_rfc_forbids_is_refused() {
        let pairs = |count: usize| format!(" ({})", vec!["\"a\" \"b\""; count].join(" "));
        assert!(parsed(&pairs(30)).is_some() && parsed(&pairs(31)).is_none());
        let sized = |name: usize, value: usize| {
            format!(" (\"{}\" \"{}\")", "n".repeat(name), "v".repeat(value))
        };
        assert!(parsed(&sized(30, 1024)).is_some());
        assert!(parsed(&sized(31, 1)).is_none() && parsed(&sized(1, 1025)).is_none());
        for wrong in [
            "",
            " ",
            " name",
            " (\"name\")",
            " (name \"x\")",
            " (\"a\" \"b\") x",
            " (\"a\" \"b\"",
            " (NIL NIL)",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
