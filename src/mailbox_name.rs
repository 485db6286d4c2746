//! Names of mailboxes, compared as IMAP compares them.

use std::fmt;
use std::ops::Deref;

/// The name of a mailbox as it goes over the wire (modified UTF-7 where it must be). `INBOX` is one mailbox in any case (RFC 9051
/// section 5.1) and is held in capitals; other names are compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxName(Box<str>);

const INBOX: &str = "INBOX";

impl MailboxName {
    /// The mailbox that every account has.
    #[must_use]
    pub fn inbox() -> Self {
        Self(INBOX.into())
    }

    /// Returns true for `INBOX` in any case.
    #[must_use]
    pub fn is_inbox(name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(INBOX.as_bytes())
    }

    /// Compares two names from the wire, which need not be UTF-8.
    #[must_use]
    pub fn are_same(one: &[u8], other: &[u8]) -> bool {
        one == other || Self::is_inbox(one) && Self::is_inbox(other)
    }
}

/// The mailbox that every account has.
impl Default for MailboxName {
    fn default() -> Self {
        Self::inbox()
    }
}

impl From<&str> for MailboxName {
    fn from(name: &str) -> Self {
        Self(if Self::is_inbox(name.as_bytes()) { INBOX } else { name }.into())
    }
}

impl From<String> for MailboxName {
    fn from(name: String) -> Self {
        if Self::is_inbox(name.as_bytes()) { Self::inbox() } else { Self(name.into()) }
    }
}

impl From<&Self> for MailboxName {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl Deref for MailboxName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for MailboxName {
    fn eq(&self, other: &str) -> bool {
        Self::are_same(self.0.as_bytes(), other.as_bytes())
    }
}

impl PartialEq<&str> for MailboxName {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn only_inbox_is_one_in_any_case() {
        assert_eq!(MailboxName::from("InBox"), MailboxName::inbox());
        assert_eq!(&*MailboxName::from("inbox".to_owned()), "INBOX");
        assert!(MailboxName::inbox() == "inbox");
        let mut seen = HashSet::new();
        for name in ["Archive", "archive", "INBOX", "INBOX/a", "inbox/a"] {
            assert!(seen.iter().all(|other: &MailboxName| other != name), "{name}");
            assert!(seen.insert(MailboxName::from(name)), "{name}");
        }
    }
}
