//! A watched mailbox: its position and its state.

use crate::mailbox_name::MailboxName;
use crate::store::Position;

/// A mailbox and how far it has been looked through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchedMailbox {
    /// Its name, as it goes over the wire (modified UTF-7 where it must be).
    pub name: MailboxName,
    /// Up to where it has been looked through; `None` if it never was.
    pub position: Option<Position>,
    /// It could not be opened the last time.
    pub is_left_out: bool,
}

/// Number of messages, the newest, that are judged where the stored position is invalid (another UIDVALIDITY).
pub(super) const LOOK_BACK: u64 = 32;

/// The open mailbox, as the server describes it.
#[derive(Debug, Default)]
pub(super) struct OpenMailbox {
    /// Number of messages. `None` if the server has not reported it, or the numbers do not add up: that is not zero.
    pub(super) exists: Option<u64>,
    /// An EXISTS came.
    pub(super) is_counted: bool,
    /// UIDVALIDITY; 0 if the server gives none.
    pub(super) uid_validity: u64,
    /// UIDNEXT at the time of EXAMINE.
    pub(super) uid_next: Option<u64>,
    /// Number of messages, from the first on, that were looked through. `None` before the first look.
    pub(super) looked: Option<u64>,
    /// An EXISTS came with no higher number: the last message may be new all the same.
    pub(super) is_doubtful: bool,
}

/// The first step in a mailbox that was just opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Nothing new: it was looked through up to this UID.
    Wait(u64),
    /// It was never looked through: what is there is old. Note this UID.
    Note(u64),
    /// The server gives no UIDNEXT: ask for the last message's UID.
    FindLast,
    /// Fetch from this UID on.
    FetchUids(u64),
    /// Fetch the newest messages: UIDs mean something else now, and what came meanwhile is among them. All below this UID is
    /// then looked through.
    FetchNewest(u64),
}

impl OpenMailbox {
    /// Compares what is there with what was noted.
    pub(super) fn begin(&self, noted: Option<Position>, late: bool) -> Begin {
        let may_have_messages = self.exists != Some(0);
        // Without UIDVALIDITY a UIDNEXT that has fallen is the only sign that UIDs began again. One that is far below the noted position
        // shows that this is wrong: the mail server has told of messages that do not exist.
        let began_again = |noted: &Position| {
            self.uid_next.is_some_and(|next| {
                self.uid_validity == 0 && next < noted.uid_next || noted.is_beyond(next)
            })
        };
        let current =
            noted.filter(|noted| noted.uid_validity == self.uid_validity && !began_again(noted));
        match (current, self.uid_next) {
            (Some(position), Some(next)) if next <= position.uid_next => {
                Begin::Wait(position.uid_next)
            }
            // The new messages are gone again. Some servers refuse to fetch from an empty mailbox.
            (Some(position), next) if !may_have_messages => {
                Begin::Note(next.unwrap_or(position.uid_next))
            }
            (Some(position), _) => Begin::FetchUids(position.uid_next),
            (None, next) if (noted.is_some() || late) && may_have_messages => {
                Begin::FetchNewest(next.unwrap_or(1))
            }
            (None, Some(next)) => Begin::Note(next),
            (None, None) if may_have_messages => Begin::FindLast,
            (None, None) => Begin::Note(1),
        }
    }

    /// EXISTS. Returns by how much the number has grown, as far as that is known.
    pub(super) fn counts(&mut self, count: Option<u64>) -> u64 {
        let before = std::mem::replace(&mut self.exists, count);
        self.is_doubtful |= count <= self.looked;
        count.unwrap_or_default().saturating_sub(before.unwrap_or_default())
    }

    /// EXPUNGE.
    pub(super) fn expunged(&mut self, sequence: Option<u64>) {
        let is_below = |number: u64| sequence.is_none_or(|gone| gone <= number);
        self.exists =
            self.exists.filter(|exists| is_below(*exists)).and_then(|exists| exists.checked_sub(1));
        self.looked = self.looked.map(|looked| looked.saturating_sub(u64::from(is_below(looked))));
    }
}
