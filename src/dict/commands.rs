//! The lines of Dovecot's dict protocol, versions 2 to 4 (Dovecot 2.2 to 2.4; src/lib-dict/dict-client.h there). A line is a
//! command's letter and its arguments, separated by tabs; tabs, line ends and the byte 1 in them are escaped.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

/// The versions whose commands are read here.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=4;

/// The longest name of a user, in bytes.
const MAX_USER: usize = 1024;

/// The longest value that says more of a message, in bytes. Transactions keep it until their end.
const MAX_VALUE: usize = 4096;

/// The byte that begins an escape (Dovecot's src/lib/strescape.c).
const ESCAPE: u8 = 1;

/// A command.
#[derive(Clone, PartialEq, Eq)]
pub enum DictCommand {
    /// `H`: the first line. The user of commands that name none.
    Hello {
        /// Empty since version 3.
        user: String,
    },
    /// `L`: asks for the value of a key.
    Lookup,
    /// `I`: asks for the keys below a path.
    Iterate,
    /// `B`: begins a transaction.
    Begin {
        /// Its number.
        id: u32,
        /// The user; empty for that of the first line.
        user: String,
    },
    /// `S`, `U`, `A`: changes a key in a transaction.
    Change {
        /// The transaction.
        id: u32,
        /// The change.
        change: DictChange,
    },
    /// `T`, `V`: a property of a transaction that does not matter here.
    Property,
    /// `C`: asks for the end of a transaction.
    Commit {
        /// The transaction.
        id: u32,
    },
    /// `R`: forgets a transaction.
    Rollback {
        /// The transaction.
        id: u32,
    },
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DictChange {
    /// The key of new messages gets this value; empty if it is too long.
    NewMessage(String),
    /// Another key gets a value.
    Set,
    /// A key is removed.
    Unset,
    /// A number is added to the value of a key.
    Increment,
}

/// The reason for which a line is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Another version of the protocol.
    #[error("version {0} of Dovecot's dict protocol is not known: versions 2 to 4 are")]
    Version(u32),
    /// No line of the protocol.
    #[error("the line is none of Dovecot's dict protocol")]
    Malformed,
}

impl DictCommand {
    /// Reads a line, without its end.
    ///
    /// # Errors
    /// [`LineProblem`]: what follows cannot be understood either.
    pub fn parse(line: &[u8]) -> Result<Self, LineProblem> {
        let wrong = LineProblem::Malformed;
        let (letter, rest) = line.split_first().ok_or(wrong)?;
        let arguments: Vec<&[u8]> = rest.splitn(MAX_ARGUMENTS, |byte| *byte == b'\t').collect();
        let text = |index: usize| arguments.get(index).map(|argument| unescape(argument));
        let number = |index| text(index).and_then(|text| text.parse::<u32>().ok()).ok_or(wrong);
        let user = |index| {
            let user = text(index).unwrap_or_default();
            if user.len() <= MAX_USER { Ok(user) } else { Err(wrong) }
        };
        Ok(match letter {
            b'H' => {
                let version = number(0)?;
                if !VERSIONS.contains(&version) {
                    return Err(LineProblem::Version(version));
                }
                Self::Hello { user: user(3)? }
            }
            b'L' => Self::Lookup,
            b'I' => Self::Iterate,
            b'B' => Self::Begin { id: number(0)?, user: user(1)? },
            b'S' => {
                let key = text(1).ok_or(wrong)?;
                let change = if is_of_new_messages(&key) {
                    let value = text(2).filter(|value| value.len() <= MAX_VALUE);
                    DictChange::NewMessage(value.unwrap_or_default())
                } else {
                    DictChange::Set
                };
                Self::Change { id: number(0)?, change }
            }
            b'U' => Self::Change { id: number(0)?, change: DictChange::Unset },
            b'A' => Self::Change { id: number(0)?, change: DictChange::Increment },
            b'T' | b'V' => Self::Property,
            b'C' => Self::Commit { id: number(0)? },
            b'R' => Self::Rollback { id: number(0)? },
            _ => return Err(wrong),
        })
    }
}

/// As many arguments as count. Further ones, which later versions add, are part of the last.
const MAX_ARGUMENTS: usize = 6;

/// Masks names: they are no business of a log.
impl std::fmt::Debug for DictCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hello { .. } => "Hello",
            Self::Lookup => "Lookup",
            Self::Iterate => "Iterate",
            Self::Begin { .. } => "Begin",
            Self::Change { .. } => "Change",
            Self::Property => "Property",
            Self::Commit { .. } => "Commit",
            Self::Rollback { .. } => "Rollback",
        })
    }
}

/// Returns true for `priv/GUID/messagenew`, the name in the dict of the attribute `/private/messagenew` of a mailbox.
fn is_of_new_messages(key: &str) -> bool {
    let parts = key.strip_prefix("priv/").and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(guid, name)| !guid.is_empty() && name == "messagenew")
}

/// The text of an argument. Bytes that are no UTF-8 are replaced: they are in no name that could be known here.
fn unescape(argument: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(argument.len());
    let mut rest = argument.iter();
    while let Some(byte) = rest.next() {
        if *byte != ESCAPE {
            bytes.push(*byte);
            continue;
        }
        match rest.next() {
            Some(b'0') => bytes.push(0),
            Some(b'1') => bytes.push(ESCAPE),
            Some(b't') => bytes.push(b'\t'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(other) => bytes.push(*other),
            None => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_versions_are_read() {
        let change = |id, change| DictCommand::Change { id, change };
        for (line, expected) in [
            ("H3\t2\t0\t\tmetadata", DictCommand::Hello { user: String::new() }),
            ("H2\t0\t0\tbob\tmetadata", DictCommand::Hello { user: "bob".into() }),
            ("H4\t0\t0\t\tmetadata", DictCommand::Hello { user: String::new() }),
            ("Lpriv/43f5/devicetoken\tbob", DictCommand::Lookup),
            ("I6\t0\tpriv/43f5/\tbob", DictCommand::Iterate),
            ("B1\tbob@example.org", DictCommand::Begin { id: 1, user: "bob@example.org".into() }),
            (
                "B2\tb\u{1}1o\u{1}tb\u{1}n\t0",
                DictCommand::Begin { id: 2, user: "b\u{1}o\tb\n".into() },
            ),
            ("B7", DictCommand::Begin { id: 7, user: String::new() }),
            ("S1\tpriv/43f5/messagenew\t", change(1, DictChange::NewMessage(String::new()))),
            ("S1\tpriv/43f5/messagenew", change(1, DictChange::NewMessage(String::new()))),
            (
                "S1\tpriv/43f5/messagenew\ta\u{1}tb",
                change(1, DictChange::NewMessage("a\tb".into())),
            ),
            ("S1\tpriv/43f5/comment\tmessagenew", change(1, DictChange::Set)),
            ("S1\tpriv//messagenew\t", change(1, DictChange::Set)),
            ("S1\tshared/43f5/messagenew\t", change(1, DictChange::Set)),
            ("S1\tpriv/43f5/vendor/messagenew\t", change(1, DictChange::Set)),
            ("U1\tpriv/43f5/messagenew", change(1, DictChange::Unset)),
            ("A1\tpriv/43f5/count\t1", change(1, DictChange::Increment)),
            ("T1\t1700000000\t5", DictCommand::Property),
            ("V1\t1", DictCommand::Property),
            ("C1", DictCommand::Commit { id: 1 }),
            ("R4294967295", DictCommand::Rollback { id: u32::MAX }),
        ] {
            assert!(DictCommand::parse(line.as_bytes()) == Ok(expected), "{line}");
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "X1", "C", "C-1", "C4294967296", "Bx\tbob", "S1", "Sx\ta\tb", "H", "Hx"] {
            let read = DictCommand::parse(line.as_bytes());
            assert_eq!(read.unwrap_err(), LineProblem::Malformed, "{line}");
        }
        let long = format!("B1\t{}", "x".repeat(MAX_USER + 1));
        assert_eq!(DictCommand::parse(long.as_bytes()).unwrap_err(), LineProblem::Malformed);
        let value = format!("S1\tpriv/4/messagenew\t{}", "x".repeat(MAX_VALUE + 1));
        let change = DictChange::NewMessage(String::new());
        assert!(DictCommand::parse(value.as_bytes()) == Ok(DictCommand::Change { id: 1, change }));
        let read = DictCommand::parse(b"H5\t0\t0\t\tmetadata");
        assert_eq!(read.unwrap_err(), LineProblem::Version(5));
    }
}
