//! A watched mailbox: how far it was looked through, and what is known of it.

use crate::store::Position;

/// A mailbox and how far it has been looked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedMailbox {
    /// Its name, as it goes over the wire (modified UTF-7 where it must be).
    pub name: String,
    /// Up to where it has been looked through; `None` if it never was.
    pub position: Option<Position>,
}

/// How many messages are looked at, the newest, where the noted position means nothing any more (another UIDVALIDITY).
const LOOK_BACK: u32 = 32;

/// What an EXAMINE said of the mailbox that is open now.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) exists: u32,
    /// It was said how many exist.
    pub(super) counted: bool,
    pub(super) uid_validity: u32,
    pub(super) uid_next: Option<u32>,
}

/// What is to be done first with a mailbox that was just opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Nothing new: it was looked through up to this UID.
    Wait(u32),
    /// It was never looked through: what is there is old. Note this UID.
    Note(u32),
    /// The server gives no UIDNEXT: ask for the last message's UID.
    FindLast,
    /// Fetch from this UID on.
    FetchUids(u32),
    /// Fetch from this sequence number on: UIDs mean something else now, and what came meanwhile is among the newest. What is
    /// below the second number is then looked through.
    FetchNewest(u32, u32),
}

impl Open {
    /// Compares what is there with what was noted.
    pub(super) fn begin(&self, noted: Option<Position>, late: bool) -> Begin {
        let current = noted.filter(|position| position.uid_validity == self.uid_validity);
        match (current, self.uid_next) {
            (Some(position), Some(next)) if next <= position.uid_next => Begin::Wait(position.uid_next),
            // What came is gone again. Some servers refuse to fetch from an empty mailbox.
            (Some(position), next) if self.exists == 0 => Begin::Note(next.unwrap_or(position.uid_next)),
            (Some(position), _) => Begin::FetchUids(position.uid_next),
            (None, _) if (noted.is_some() || late) && self.exists > 0 => {
                let first = self.exists.saturating_sub(LOOK_BACK.saturating_sub(1)).max(1);
                Begin::FetchNewest(first, self.uid_next.unwrap_or(1))
            }
            (None, Some(next)) => Begin::Note(next),
            (None, None) if self.exists > 0 => Begin::FindLast,
            (None, None) => Begin::Note(1),
        }
    }
}

/// Whether two names are one mailbox: `INBOX` in any case, other names byte for byte.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || one.eq_ignore_ascii_case("INBOX") && other.eq_ignore_ascii_case("INBOX")
}
