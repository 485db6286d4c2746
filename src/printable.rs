//! Bytes from outside in words for people: in log lines, errors, and on terminals.

use std::io::IsTerminal;

/// Reports if output to `stream` has colours: it is a terminal, and `NO_COLOR` (no-color.org) is not set.
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The text in `bytes`, without white space around it. Control characters, which a terminal obeys and which end lines, are escaped.
#[must_use]
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    push_printable(&mut text, String::from_utf8_lossy(bytes).trim());
    text
}

/// Appends `text` with its control characters escaped, as in Rust: `\r`, `\u{1b}`.
pub(crate) fn push_printable(out: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
}

/// A number and what is counted, in the singular or the plural: `1 account`, `2 accounts`.
#[must_use]
pub(crate) fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_else_stays() {
        assert_eq!(
            printable(b" a\rb\n\x1b[2J \xc2\x9bx \xc3\xa9\xff\\ "),
            "a\\rb\\n\\u{1b}[2J \\u{9b}x é\u{fffd}\\"
        );
    }
}
