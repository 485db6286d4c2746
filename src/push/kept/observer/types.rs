//! Types of the observer: events of a session, its inputs and actions, and outcomes to store.

use std::time::Instant;

use crate::mailbox_name::MailboxName;
use crate::push::filter::PushFilter;
use crate::store::Position;

/// An event of new mail in a session, between client and upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedEvent<'a> {
    /// Another mailbox is being opened: what follows is about it.
    Opening,
    /// The mailbox with this name is open.
    Opened(&'a str),
    /// No mailbox is open, or none whose name is known.
    Closed,
    /// A whole response about the mailbox that is open, or its beginning if it is very long.
    Response(&'a [u8]),
    /// The client's FETCH has succeeded. `from`: it was for all messages from this UID on.
    Fetched {
        /// The lowest UID of a set that is open to the end.
        from: Option<u64>,
    },
}

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
    /// The client's FETCH has succeeded. It was for all messages from this UID on, if there is one.
    Fetched(Option<u64>),
    /// The answer to [`ObserverAction::Compare`]: the stored position of the open mailbox.
    Noted(Option<Position>),
    /// The other answer: the mailbox is not watched.
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
    /// Look up the stored position of the open mailbox: [`ObserverInput::Noted`] or [`ObserverInput::Unwatched`].
    Compare,
    /// There is new mail: give the client time to fetch it, then [`ObserverInput::Waited`]. The driver knows the configured time.
    Wait,
    /// Store this.
    Note(ObserverOutcome),
}

/// The result to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObserverOutcome {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// The position up to which it has been looked through.
    pub position: Position,
    /// True if some message is to be pushed.
    pub announce: bool,
    /// The client itself has fetched what came.
    pub is_fetched: bool,
    /// The highest UID of a message that deserves a push, if it is fetched.
    pub deserving: u64,
    /// The arrival time of the new mail.
    pub since: Option<Instant>,
}

/// The position in a mailbox up to which a client has been shown the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPosition {
    /// The mailbox.
    pub mailbox: MailboxName,
    /// Its UIDVALIDITY.
    pub uid_validity: u64,
    /// The highest UID.
    pub uid: u64,
}

impl ShownPosition {
    /// Reports if that includes `news`.
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

    /// One above the highest UID of a message that deserves a push; `None` if that is not known.
    #[must_use]
    pub fn news_next(&self) -> Option<u64> {
        self.is_fetched.then(|| self.deserving.saturating_add(1))
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
