//! `parser::metadata`: what is read can be written, and is read again as the same.

use deltapush::parser::metadata::{self, Depth, Values, is_within};
use deltapush::parser::syntax;

pub(crate) fn check(line: &[u8]) {
    if let Some(get) = metadata::get(line) {
        assert!(!get.entries.is_empty());
        for entry in &get.entries {
            assert!(is_within(entry, entry, Depth::Zero) && is_entry(entry));
        }
    }
    if let Some(set) = metadata::set(line) {
        assert!(!set.entries.is_empty() && set.entries.iter().all(|(entry, _)| is_entry(entry)));
        read_again(&Values { mailbox: set.mailbox, entries: set.entries });
    }
    if let Some(values) = metadata::values(line) {
        read_again(&values);
    }
    let _ = (
        syntax::astring(line).is_ok(),
        syntax::nstring(line).is_ok(),
        syntax::literal(line).is_ok(),
    );
}

/// It is written bare into commands and responses.
fn is_entry(entry: &[u8]) -> bool {
    entry.starts_with(b"/") && syntax::astring(entry).is_ok_and(|(rest, _)| rest.is_empty())
}

fn read_again(values: &Values<'_>) {
    let written = values.to_bytes();
    assert_eq!(metadata::values(&written).as_ref(), Some(values), "{}", written.escape_ascii());
}
