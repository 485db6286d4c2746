//! Types of the observer: its inputs, its actions, and what is noted.

use std::time::Instant;

use crate::mailbox_name::MailboxName;
use crate::push::filter::PushFilter;
use crate::store::Position;

/// The input of the machine.
#[derive(Debug, Clone, Copy)]
pub enum ObserverInput<'a> {
    /// Another mailbox is being opened, or none is open.
    Closed,
    /// The mailbox with this name is open.
    Opened(&'a str),
    /// A response that passes by.
    Response {
        /// The whole response, or its beginning if it is very long.
        line: &'a [u8],
        /// Decides what is worth a push.
        filter: &'a PushFilter,
    },
    /// A FETCH of the client's has succeeded; it was for all messages from this UID on, if there is one.
    Fetched(Option<u64>),
    /// The answer to [`ObserverAction::Compare`]: what is noted of the mailbox that is open.
    Noted(Option<Position>),
    /// The other answer: as far as is known, the mailbox is nobody's concern.
    Unwatched,
    /// The answer to [`ObserverAction::Wait`]: the wait is over.
    Waited,
    /// Another session has looked through the open mailbox up to there.
    Advanced(Position),
    /// The last [`ObserverAction::Note`] could not be written.
    NotWritten,
}

/// The driver's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObserverAction {
    /// Find out what is noted of the mailbox that is open: [`ObserverInput::Noted`] or [`ObserverInput::Unwatched`].
    Compare,
    /// There is news: give the client time to fetch it, then [`ObserverInput::Waited`]. How long is the driver's to say, whose
    /// configuration may be read again meanwhile.
    Wait,
    /// Note this.
    Note(ObserverOutcome),
}

/// The result to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObserverOutcome {
    /// Of which mailbox.
    pub mailbox: MailboxName,
    /// Up to where it has been looked through.
    pub position: Position,
    /// True if some message is to be pushed.
    pub announce: bool,
    /// The client itself has fetched what came.
    pub is_fetched: bool,
    /// The highest UID of a message that deserves a push, if it is fetched.
    pub deserving: u64,
    /// When the news came.
    pub since: Option<Instant>,
}

/// Up to where a session has shown its client what is in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPosition {
    /// Which mailbox.
    pub mailbox: MailboxName,
    /// Its UIDVALIDITY.
    pub uid_validity: u64,
    /// The highest UID.
    pub uid: u64,
}

impl ShownPosition {
    /// Reports if that is all of `news`.
    #[must_use]
    pub fn covers(&self, news: &Self) -> bool {
        self.mailbox == news.mailbox
            && self.uid_validity == news.uid_validity
            && self.uid >= news.uid
    }
}

impl ObserverOutcome {
    /// The position that a device must have been shown to need no push; `None` if that is not known.
    #[must_use]
    pub fn news(&self) -> Option<ShownPosition> {
        let Self { mailbox, position: Position { uid_validity, .. }, deserving, .. } = self;
        self.is_fetched.then(|| ShownPosition {
            mailbox: mailbox.clone(),
            uid_validity: *uid_validity,
            uid: *deserving,
        })
    }

    /// This one and a later one of the same mailbox.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            announce: self.announce || later.announce,
            deserving: self.deserving.max(later.deserving),
            since: self.since.or(later.since),
            ..later
        }
    }
}
