//! Types of the watch machine: its input, its actions, and the reasons why it ends.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::look::Oddity;
use super::mailbox::WatchedMailbox;
use crate::mailbox_name::MailboxName;
use crate::parser::utf7;
use crate::push::filter::{PushDecision, PushFilter};
use crate::store::Look;

/// The mailboxes of a watch, and the terms of watching them.
#[derive(Debug, Clone)]
pub struct WatchTerms {
    /// The mailboxes. In the first the session waits; the others need NOTIFY.
    pub mailboxes: Vec<WatchedMailbox>,
    /// Mailboxes to watch if none of the others can be opened, in this order.
    pub spare: Vec<WatchedMailbox>,
    /// The push filter.
    pub judge: PushFilter,
    /// Duration of one IDLE. The caller has jittered it.
    pub renewal: Duration,
    /// The server has NOTIFY.
    pub notify: bool,
    /// Fetching failed again and again from where this begins: what is there is announced without a look.
    pub blindly: bool,
    /// Mail may have come between the wish to watch and now: a mailbox that was never looked through is looked at like one
    /// whose noted position means nothing any more.
    pub late: bool,
    /// Time for another device to show a message before it counts. Zero for none.
    pub grace: Duration,
}

/// Settings that the previous user of the session has left in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InheritedState {
    /// Names of mailboxes are UTF-8, and no longer modified UTF-7 (RFC 6855 section 3, RFC 9051 section 5.1).
    pub utf8: bool,
    /// NOTIFY was sent.
    pub notify: bool,
}

impl InheritedState {
    /// The name of a mailbox, noted in modified UTF-7, as it is said in this session.
    pub(super) fn on_the_wire(self, name: &str) -> Cow<'_, str> {
        let decoded = self.utf8.then(|| utf7::decode(name)).flatten();
        decoded.map_or(name.into(), Into::into)
    }
}

/// The machine's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleInput<'a> {
    /// The session is ready. First of all, and once.
    Start,
    /// A whole response of the mail server.
    Response(&'a [u8]),
    /// Nothing but time.
    Tick,
    /// Somebody else wants the session: what is new is looked at, then [`IdleAction::Released`] follows. Not for a session with
    /// NOTIFY, which cannot be undone.
    Release,
    /// deltapush shuts down: the machine logs out, and asks for nothing more.
    Leave,
    /// True if the apps of all the account's devices are known to fetch encrypted messages only.
    EncryptedOnly(bool),
    /// The answer to [`IdleAction::LeftOut`] if the mailbox is given up: it is not tried again.
    NeverRetry(&'a str),
}

/// The driver's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdleAction {
    /// Send this to the upstream.
    Send(Vec<u8>),
    /// Note the position, and with `announce` that there is something to announce: both at once.
    Noticed {
        /// In which mailbox.
        mailbox: MailboxName,
        /// Up to where it has been looked through, and what was found.
        look: Look,
        /// Some message is to be pushed.
        announce: bool,
        /// When the server told of the first of it, if it did.
        since: Option<Instant>,
        /// When it told of the last of it.
        last: Option<Instant>,
        /// The identifiers of the messages to push ([`message_id`](crate::push::filter::message_id)); none if that
        /// of some message is not known.
        ids: Vec<u64>,
    },
    /// For the log: what was decided about a message.
    Judged {
        /// Its mailbox.
        mailbox: MailboxName,
        /// Its UID.
        uid: u64,
        /// The decision.
        verdict: PushDecision,
    },
    /// The mailbox is watched from now on: the upstream has just said so.
    Watching,
    /// NOTIFY failed: from now on only the first mailbox is watched here.
    OnlyFirst,
    /// A mailbox cannot be opened, with the server's words: it is left out, and tried again later.
    LeftOut(MailboxName, String),
    /// A mailbox that was left out is open.
    Opened(MailboxName),
    /// For the log: the server's answer lacks something, and what it may mean is announced.
    Odd(Oddity),
    /// The session is as it was after its login, and somebody else's.
    Released,
    /// This session is over.
    Failed(IdleFailure),
}

/// Why a watching session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdleFailure {
    /// The upstream says good-bye.
    #[error("the mail server closed the session: {0}")]
    Bye(String),
    /// The session ended without an answer, after the server had complained.
    #[error("the mail server said \"{words}\"; then: {end}")]
    Complaint {
        /// The words of its last untagged NO, BAD or alert.
        words: String,
        /// Its end.
        end: String,
        /// The session was watching before, so the next one probably will.
        has_worked: bool,
    },
    /// No answer within a minute: the connection is dead, although nothing said so.
    #[error("the mail server did not answer within {}s", super::ANSWER_TIME.as_secs())]
    Silent,
    /// Line after line without a new message; with the words of its last complaint, if there was one.
    #[error("the mail server sent more than {} lines without a new message{}", super::MAX_CHATTER, after_colon(.0))]
    Chatter(String),
    /// The mailbox cannot be opened.
    #[error("the mailbox cannot be opened: {0}")]
    NoMailbox(String),
    /// There is no IDLE, and deltapush does not poll.
    #[error("the mail server does not support IDLE, and deltapush does not poll: {0}")]
    NoIdle(String),
    /// IDLE is there, and was refused now.
    #[error("the mail server refused IDLE: {0}")]
    IdleRefused(String),
    /// The fetch was refused.
    #[error("the mail server refused the FETCH of new messages: {0}")]
    NoFetch(String),
}

fn after_colon(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

/// Longest delay of new mail if a connection dies in silence: right after a sign of life, to be found when IDLE is to be
/// renewed and the answer does not come. The time of a reconnection is not included.
#[must_use]
pub fn max_detection_delay(renewal: Duration) -> Duration {
    renewal.saturating_add(super::ANSWER_TIME)
}
