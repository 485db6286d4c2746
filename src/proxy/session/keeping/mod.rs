//! State that a session records in case it goes on without its client: outstanding responses, settings changed in it,
//! and new mail that its client sees. Only where sessions are kept (docs/keeping.md).

mod commands;
mod drain;
#[cfg(test)]
mod tests;

use super::selection::Selection;
use super::{Session, SessionAction};
use crate::machine::Actions;
use crate::parser::command::Verb;
use crate::parser::data;
use crate::parser::response::Condition;
use crate::push::kept::observer::ObservedEvent;
pub use commands::ChangedState;
use commands::{ClientCommands, CompletedFetch};

/// The longest command that is looked at.
const MAX_LINE: usize = 8 * 1024;

/// The longest response that is shown to the observer of new mail: flags and headers.
const MAX_OBSERVED: usize = 32 * 1024;

/// The state of a session that may be kept.
#[derive(Default)]
pub(super) struct KeepingState {
    commands: ClientCommands,
    /// The tag of a LOGOUT that waits for the ends of the commands before it.
    logout: Option<Vec<u8>>,
    /// The client is gone, and the session is being drained.
    drains: bool,
    /// FETCH responses are worth a copy, or an event since the driver's last word may have changed that.
    copies_fetches: bool,
    /// The response to show to the observer.
    observed: Option<Vec<u8>>,
    /// Bytes of the upstream after the session was over for the client: less than is read at once.
    unread: Vec<u8>,
}

impl KeepingState {
    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        let observed = self.observed.as_ref().map_or(0, Vec::len);
        [self.commands.held(), observed, self.unread.len()]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// Reports if a LOGOUT waits for its answer.
    pub(super) fn awaits_logout(&self) -> bool {
        self.logout.is_some()
    }

    /// Begins a command that goes upstream; `start` is what came of it.
    #[inline(never)]
    pub(super) fn begin(&mut self, verb: Verb, start: &[u8], out: &mut impl Actions<Session>) {
        self.commands.begin(start);
        match verb {
            Verb::Select | Verb::Examine => self.observe(ObservedEvent::Opening, out),
            Verb::Close | Verb::Unselect => self.observe(ObservedEvent::Closed, out),
            _ => {}
        }
    }

    /// Adds more of its lines.
    #[inline(never)]
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.commands.extend(bytes);
    }

    /// Completes it.
    #[inline(never)]
    fn end(&mut self, tag: &[u8]) {
        self.commands.end(tag);
    }

    #[inline(never)]
    fn begin_response(&mut self, start: &[u8]) {
        // Without white space in front: some servers pad.
        let untagged =
            start.trim_ascii_start().strip_prefix(b"*").unwrap_or_default().trim_ascii_start();
        let text = untagged.get(2..).unwrap_or_default().trim_ascii_start();
        let is_code = untagged.get(..2).is_some_and(|word| word.eq_ignore_ascii_case(b"OK"))
            && matches!(text, [b'[', b'U' | b'u' | b' ', ..]);
        self.observed =
            (untagged.first().is_some_and(u8::is_ascii_digit) || is_code).then(Vec::new);
    }

    #[inline(never)]
    fn extend_response(
        &mut self,
        bytes: &[u8],
        is_complete: bool,
        out: &mut impl Actions<Session>,
    ) {
        let Some(response) = &mut self.observed else { return };
        let room = MAX_OBSERVED.saturating_sub(response.len());
        response.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if !self.copies_fetches && is_fetch(response) {
            self.observed = None;
        } else if is_complete {
            let response = self.observed.take().unwrap_or_default();
            if data::is_exists(&response) {
                self.commands.outdate_fetches();
            }
            self.observe(ObservedEvent::Response(&response), out);
        }
    }

    fn observe(&mut self, event: ObservedEvent<'_>, out: &mut impl Actions<Session>) {
        self.copies_fetches = true;
        out.push(SessionAction::Observed(event));
    }
}

impl Session {
    /// A session that may be kept when its client is gone.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.keeping = Some(Box::default());
        self
    }

    /// Takes from the driver whether FETCH responses are worth a copy.
    pub(super) fn copy_fetches(&mut self, copies: bool) {
        if let Some(keeping) = &mut self.keeping {
            keeping.copies_fetches = copies;
        }
    }

    /// Reports if it may be kept.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.keeping.is_some()
    }

    /// Reports if the client, which sends nothing more, still expects an answer: the end of a command other than IDLE.
    #[must_use]
    pub fn owes_answers(&self) -> bool {
        let idles = usize::from(self.is_in_idle());
        self.keeping
            .as_ref()
            .is_some_and(|keeping| keeping.commands.in_flight() > idles || keeping.logout.is_some())
    }

    /// Settings that were changed in it.
    #[must_use]
    pub fn changed_state(&self) -> ChangedState {
        self.keeping.as_ref().map(|keeping| keeping.commands.changed()).unwrap_or_default()
    }

    /// Takes over upstream bytes that were read and not processed before the client was gone.
    pub fn keep_unread(&mut self, unread: &[u8]) {
        if let Some(keeping) = &mut self.keeping {
            keeping.unread.extend_from_slice(unread);
        }
    }

    /// Records that the upstream has ended a command.
    #[inline]
    pub(super) fn keeping_ended(
        &mut self,
        tag: &[u8],
        condition: Condition,
        opening: Option<bool>,
        out: &mut impl Actions<Session>,
    ) {
        if self.keeping.is_some() {
            self.command_ended(tag, condition, opening, out);
        }
    }

    #[inline(never)]
    fn command_ended(
        &mut self,
        tag: &[u8],
        condition: Condition,
        opening: Option<bool>,
        out: &mut impl Actions<Session>,
    ) {
        let Some(keeping) = &mut self.keeping else { return };
        if let Some(CompletedFetch { from }) = keeping.commands.ended(tag, condition) {
            keeping.observe(ObservedEvent::Fetched { from }, out);
        }
        if opening.is_some() {
            keeping.observe(opened(&self.selection), out);
        }
    }

    /// Records that the command in progress went upstream as a whole.
    #[inline]
    pub(super) fn keeping_complete(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.end(&self.client.tag);
        }
    }

    /// Records that a gathered command goes upstream as a whole.
    pub(super) fn keeping_replayed(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.commands.replayed(&self.client.tag);
        }
    }

    /// Begins a response that is handed on: it is copied if it may be about new mail.
    #[inline]
    pub(super) fn begin_observed(&mut self, start: &[u8]) {
        if let Some(keeping) = &mut self.keeping {
            keeping.begin_response(start);
        }
    }

    /// Adds more of such a response.
    #[inline]
    pub(super) fn extend_observed(
        &mut self,
        bytes: &[u8],
        is_complete: impl FnOnce() -> bool,
        out: &mut impl Actions<Session>,
    ) {
        if let Some(keeping) = &mut self.keeping {
            keeping.extend_response(bytes, is_complete(), out);
        }
    }
}

/// The event of an open mailbox.
fn opened(selection: &Selection) -> ObservedEvent<'_> {
    selection.mailbox().map_or(ObservedEvent::Closed, ObservedEvent::Opened)
}

fn is_fetch(response: &[u8]) -> bool {
    let mut words = response.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.nth(2).is_some_and(|word| word.eq_ignore_ascii_case(b"FETCH"))
}
