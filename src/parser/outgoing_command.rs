//! Commands that deltapush writes for a server, with strings that may have to be literals.

use super::quote::{is_quotable, push_quoted};

/// A command for a server that is being written. Strings are quoted, or synchronizing literals, which any server takes.
#[derive(Debug)]
pub struct OutgoingCommand {
    bytes: Vec<u8>,
    /// The ends of its literals' announcements: there the command waits for the server's `+`.
    cuts: Vec<usize>,
}

/// The name of a pair in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairName<'a> {
    /// It may have any bytes, and is written as a string.
    String(&'a [u8]),
    /// It has the characters of an atom, and is written as it is.
    Atom(&'a [u8]),
}

impl OutgoingCommand {
    /// Begins a command.
    #[must_use]
    pub fn new(tag: &[u8], name: &[u8]) -> Self {
        Self { bytes: [tag, b" ", name].concat(), cuts: vec![] }
    }

    /// Adds a string.
    #[must_use]
    pub fn string(mut self, value: &[u8]) -> Self {
        self.bytes.push(b' ');
        self.push_string(value);
        self
    }

    /// Adds a list of pairs in parentheses; a value of `None` is NIL.
    #[must_use]
    pub fn pairs<'a>(
        mut self,
        pairs: impl IntoIterator<Item = (PairName<'a>, Option<&'a [u8]>)>,
    ) -> Self {
        self.bytes.extend_from_slice(b" (");
        for (index, (name, value)) in pairs.into_iter().enumerate() {
            if index > 0 {
                self.bytes.push(b' ');
            }
            match name {
                PairName::String(name) => self.push_string(name),
                PairName::Atom(name) => self.bytes.extend_from_slice(name),
            }
            self.bytes.push(b' ');
            match value {
                Some(value) => self.push_string(value),
                None => self.bytes.extend_from_slice(b"NIL"),
            }
        }
        self.bytes.push(b')');
        self
    }

    /// The whole command with its line end, and the ends of its literals' announcements.
    #[must_use]
    pub fn end(mut self) -> (Vec<u8>, Vec<usize>) {
        self.bytes.extend_from_slice(b"\r\n");
        (self.bytes, self.cuts)
    }

    fn push_string(&mut self, value: &[u8]) {
        if is_quotable(value) {
            return push_quoted(&mut self.bytes, value);
        }
        self.bytes.extend_from_slice(format!("{{{}}}\r\n", value.len()).as_bytes());
        self.cuts.push(self.bytes.len());
        self.bytes.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_wait_where_they_are_announced() {
        let pairs = [
            (PairName::Atom(b"/private/comment"), Some(&b"a\"b"[..])),
            (PairName::String(b"os"), None),
            (PairName::String(b"n\xfc"), Some(b"\r\n")),
        ];
        let (bytes, cuts) = OutgoingCommand::new(b"a1", b"X").string(b"INBOX").pairs(pairs).end();
        assert_eq!(
            bytes.escape_ascii().to_string(),
            r#"a1 X \"INBOX\" (/private/comment \"a\\\"b\" \"os\" NIL {2}\r\nn\xfc {2}\r\n\r\n)\r\n"#
        );
        assert_eq!(
            cuts.iter().map(|cut| &bytes[..*cut]).filter(|sent| sent.ends_with(b"{2}\r\n")).count(),
            2
        );
    }
}
