//! The observer of new mail in a client's own session, as a machine: responses and time in, new mail and positions out.
//!
//! The client waits in IDLE, gets EXISTS, and fetches. The push filter decides on the messages that it fetches, as in a watch,
//! and the mailbox counts as looked through once a FETCH of all that is new has passed. Without such a FETCH it is only known
//! that mail came, and in doubt that deserves a push.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

#[cfg(test)]
mod tests;
mod types;

use std::time::Instant;

use crate::machine::{Actions, Machine};
use crate::mailbox_name::MailboxName;
use crate::parser::data::Fetch;
use crate::push::filter::{PushDecision, PushFilter, SkipReason};
use crate::push::idle::response::{Heard, MailboxCode, parse_response};
use crate::store::Position;
pub use types::{ObservedEvent, ObserverAction, ObserverInput, ObserverOutcome, ShownPosition};

/// The machine: one for each session.
#[derive(Debug, Default)]
pub struct NewMailObserver {
    mailbox: Option<MailboxName>,
    uid_validity: u64,
    /// UIDNEXT when it was opened.
    uid_next: Option<u64>,
    /// It was compared with its stored position.
    is_compared: bool,
    /// The lowest UID that is not looked through.
    from: u64,
    /// When the first news came that is not resolved.
    news_since: Option<Instant>,
    /// News was announced without a look.
    is_announced: bool,
    /// The highest UID that was fetched, and the highest of a message that deserves a push.
    seen: u64,
    deserving: u64,
    /// True if the fetched items of some message did not identify it.
    is_doubtful: bool,
    /// The lowest UID that a FETCH of everything from there on has asked for, since the news.
    fetched_from: Option<u64>,
}

impl Machine for NewMailObserver {
    type Input<'a> = ObserverInput<'a>;
    type Action<'a> = ObserverAction;

    fn handle(&mut self, input: ObserverInput<'_>, now: Instant, actions: &mut impl Actions<Self>) {
        match input {
            ObserverInput::Closed => *self = Self::default(),
            ObserverInput::Opened(mailbox) => {
                self.mailbox = Some(mailbox.into());
                actions.push(ObserverAction::Compare);
            }
            ObserverInput::Response { line, filter } => self.response(line, filter, now, actions),
            ObserverInput::Fetched(from) => self.fetched(from, actions),
            ObserverInput::Noted(noted) => self.compare(noted, now, actions),
            ObserverInput::Unwatched => self.mailbox = None,
            ObserverInput::Waited => self.resolve(actions),
            ObserverInput::Advanced(noted) => self.advance(noted),
            ObserverInput::NotWritten => {
                self.news_since.get_or_insert(now);
                actions.push(ObserverAction::Wait);
            }
        }
    }

    /// None: the waits are the driver's.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl NewMailObserver {
    /// Reports if FETCH responses to the client are of interest.
    #[must_use]
    pub fn wants_fetches(&self) -> bool {
        self.mailbox.is_some() && (!self.is_compared || self.has_news())
    }

    /// The mailbox that is open.
    #[must_use]
    pub fn mailbox(&self) -> Option<&str> {
        self.mailbox.as_deref()
    }

    fn response(
        &mut self,
        line: &[u8],
        filter: &PushFilter,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        match parse_response(line) {
            Heard::Status(_, MailboxCode::UidValidity(value)) => self.uid_validity = value,
            Heard::Status(_, MailboxCode::UidNext(value)) if self.mailbox.is_none() => {
                self.uid_next = Some(value)
            }
            Heard::Exists(_) if self.mailbox.is_some() => self.news(now, actions),
            Heard::Fetch(message) if self.wants_fetches() => {
                self.shown_message(&message, line, filter)
            }
            _ => {}
        }
    }

    /// Handles a message, or a part of one, that the client fetches.
    fn shown_message(&mut self, message: &Fetch<'_>, line: &[u8], filter: &PushFilter) {
        let Some(uid) = message.uid else {
            // With flags alone it is news of an old one.
            self.is_doubtful |=
                self.has_news() && (message.is_unclear || message.headers.is_some());
            return;
        };
        self.seen = self.seen.max(uid);
        let flags = || message.flags.iter().map(AsRef::as_ref);
        // Without headers flags alone may rule it out; in doubt it is a push.
        let verdict = match &message.headers {
            _ if message.is_unclear => PushDecision::Push,
            Some(headers) => match filter.verdict(flags(), headers) {
                // Fields that the client did not ask for say nothing.
                PushDecision::Skip(SkipReason::NotEncrypted) if !asks_for_rule(line) => {
                    PushDecision::Push
                }
                verdict => verdict,
            },
            None => filter.by_flags(flags()),
        };
        if verdict == PushDecision::Push {
            self.deserving = self.deserving.max(uid);
        }
    }

    fn news(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        let is_first = self.news_since.is_none();
        self.news_since.get_or_insert(now);
        // Messages that were fetched before are not all new ones now.
        self.fetched_from = None;
        if is_first && self.is_compared {
            actions.push(ObserverAction::Wait);
        }
    }

    fn has_news(&self) -> bool {
        self.news_since.is_some() || self.is_announced
    }

    fn fetched(&mut self, from: Option<u64>, actions: &mut impl Actions<Self>) {
        let Some(from) = from.filter(|_| self.wants_fetches()) else { return };
        self.fetched_from = Some(self.fetched_from.map_or(from, |before| before.min(from)));
        if self.is_compared && self.has_news() && self.is_complete() {
            self.resolve(actions);
        }
    }

    /// The position that the client has been shown.
    #[must_use]
    pub fn shown(&self) -> Option<ShownPosition> {
        let mailbox = self.mailbox.clone().filter(|_| self.seen > 0)?;
        Some(ShownPosition { mailbox, uid_validity: self.uid_validity, uid: self.seen })
    }

    fn is_complete(&self) -> bool {
        self.fetched_from.is_some_and(|from| from <= self.from)
    }

    /// Compares the open mailbox with its stored position. In a mailbox without one, all messages are old.
    fn compare(&mut self, noted: Option<Position>, now: Instant, actions: &mut impl Actions<Self>) {
        let Some(mailbox) = self.mailbox.clone().filter(|_| !self.is_compared) else { return };
        self.is_compared = true;
        let current = noted.filter(|noted| noted.uid_validity == self.uid_validity);
        self.from = current.map(|noted| noted.uid_next).or(self.uid_next).unwrap_or_default();
        let is_changed = noted.is_some() && current.is_none();
        if current.is_none() && self.uid_next.is_some() {
            actions.push(ObserverAction::Note(ObserverOutcome {
                mailbox,
                position: self.position(),
                announce: is_changed,
                is_fetched: false,
                deserving: 0,
                since: None,
            }));
        }
        if current.is_some() && self.uid_next.is_some_and(|next| next > self.from) {
            self.news_since.get_or_insert(now);
        }
        match self.has_news() {
            false => {}
            true if self.is_complete() => self.resolve(actions),
            true => actions.push(ObserverAction::Wait),
        }
    }

    /// Reports the new mail, as far as it is known now.
    fn resolve(&mut self, actions: &mut impl Actions<Self>) {
        let open = self.mailbox.clone().filter(|_| self.is_compared && self.has_news());
        let Some(mailbox) = open else { return };
        let since = self.news_since.take();
        let is_fetched = self.is_complete() && !std::mem::take(&mut self.is_doubtful);
        if !is_fetched && since.is_none() {
            return;
        }
        let is_known = std::mem::replace(&mut self.is_announced, !is_fetched);
        let announce = match is_fetched {
            true => {
                self.deserving >= self.from && self.deserving > 0 && !(is_known && since.is_none())
            }
            false => true,
        };
        if is_fetched {
            self.from = self.from.max(self.seen.saturating_add(1));
            self.fetched_from = None;
        }
        actions.push(ObserverAction::Note(ObserverOutcome {
            mailbox,
            position: self.position(),
            announce,
            is_fetched,
            deserving: self.deserving,
            since,
        }));
    }

    fn position(&self) -> Position {
        Position { uid_validity: self.uid_validity, uid_next: self.from }
    }

    fn advance(&mut self, noted: Position) {
        if noted.uid_validity == self.uid_validity {
            self.from = self.from.max(noted.uid_next);
        }
    }
}

/// Reports if a FETCH response has the fields that show an encrypted message.
fn asks_for_rule(line: &[u8]) -> bool {
    let selected = line.split(|byte| *byte == b']').next().unwrap_or_default().to_ascii_uppercase();
    [b"CONTENT-TYPE".as_slice(), b"SECURE-JOIN", b"FROM"]
        .iter()
        .all(|name| memchr::memmem::find(&selected, name).is_some())
}
