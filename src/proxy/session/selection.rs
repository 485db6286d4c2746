//! The mailbox that the client has selected: the account's watch must include the one in which the client idles.

use crate::parser::command::{self, Verb};
use crate::push::idle::response::{MailboxCode, mailbox_code};
use crate::push::server_news::OpenedMailbox;
use crate::store::Position;

/// The longest SELECT that is read. A longer one names a mailbox that is not noted.
const MAX_LINE: usize = 1024;

/// Follows SELECT, EXAMINE, CLOSE and UNSELECT as they pass by. Nothing is held up for it.
#[derive(Default)]
pub(super) struct Selection {
    /// The line of a SELECT or EXAMINE in progress; empty otherwise.
    line: Vec<u8>,
    /// The tag and the mailbox of the one whose answer is awaited.
    opening: Option<(Vec<u8>, Option<String>)>,
    open: Option<String>,
    /// UIDVALIDITY and UIDNEXT of the mailbox that is being opened or open; zero where the server did not name them. `None` if nobody
    /// wants to know. Boxed: most sessions have none.
    position: Option<Box<Position>>,
}

/// Nothing is known yet.
const UNKNOWN: Position = Position { uid_validity: 0, uid_next: 0 };

impl Selection {
    /// The mailbox that is open, if its name is known.
    pub(super) fn mailbox(&self) -> Option<&str> {
        self.open.as_deref()
    }

    /// Reads the positions of mailboxes that are opened.
    pub(super) fn read_positions(&mut self) {
        self.position = Some(Box::new(UNKNOWN));
    }

    /// Reports if an untagged OK may have the position of the mailbox that is being opened.
    #[inline]
    pub(super) fn wants_codes(&self) -> bool {
        self.position.is_some() && self.opening.is_some()
    }

    /// Reads a whole untagged OK.
    pub(super) fn read_code(&mut self, line: &[u8]) {
        let Some(position) = &mut self.position else { return };
        match mailbox_code(line) {
            MailboxCode::UidValidity(value) => position.uid_validity = value,
            MailboxCode::UidNext(value) => position.uid_next = value,
            MailboxCode::NotificationOverflow | MailboxCode::None => {}
        }
    }

    /// The mailbox that was just opened, if the server has named its position.
    pub(super) fn opened(&self) -> Option<OpenedMailbox> {
        let is_known = |position: &Position| position.uid_validity > 0 && position.uid_next > 0;
        let position = self.position.as_deref().copied().filter(is_known)?;
        Some(OpenedMailbox { mailbox: self.mailbox()?.into(), position })
    }

    /// Bytes held of the command in progress.
    pub(super) fn held(&self) -> usize {
        self.line.len()
    }

    /// A command begins to be relayed; `start` is what came of it.
    #[inline]
    pub(super) fn begin(&mut self, verb: Verb, start: &[u8]) {
        let concerns_selection =
            matches!(verb, Verb::Select | Verb::Examine | Verb::Close | Verb::Unselect);
        if concerns_selection || !self.line.is_empty() {
            self.begin_line(verb, start);
        }
    }

    fn begin_line(&mut self, verb: Verb, start: &[u8]) {
        self.line = Vec::new();
        match verb {
            Verb::Select | Verb::Examine => self.line.extend_from_slice(start),
            Verb::Close | Verb::Unselect => self.open = None,
            _ => {}
        }
    }

    /// More of the command, literals included.
    pub(super) fn go_on(&mut self, bytes: &[u8]) {
        if !self.line.is_empty() && self.line.len() <= MAX_LINE {
            self.line.extend_from_slice(bytes);
        }
    }

    /// The command is complete.
    pub(super) fn end(&mut self, tag: &[u8]) {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            // Of a longer one only the beginning may be here, depending on the chunks it came in.
            let mailbox = if line.len() <= MAX_LINE { command::mailbox(&line) } else { None };
            self.opening = Some((tag.to_vec(), mailbox));
            if let Some(position) = &mut self.position {
                **position = UNKNOWN;
            }
        }
    }

    /// The upstream has ended the command with this tag. A SELECT that fails leaves nothing open (RFC 9051 section 6.3.2).
    /// Returns whether it was accepted, if it was one.
    pub(super) fn answered(&mut self, tag: &[u8], accepted: bool) -> Option<bool> {
        let (_, mailbox) = self.opening.take_if(|(opening, _)| opening == tag)?;
        self.open = mailbox.filter(|_| accepted);
        Some(accepted)
    }
}
