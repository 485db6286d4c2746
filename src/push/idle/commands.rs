//! Commands of a watch session, with their FETCH items.

use super::IdleMachine;
use crate::parser::quote::push_quoted;

/// Bytes of headers that are fetched: a stranger writes them, and one message must not delay all others.
const MAX_HEADERS: u32 = 16 * 1024;

impl IdleMachine {
    /// The items to fetch of a new message.
    pub(super) fn items(&self) -> String {
        format!(
            "(UID FLAGS BODY.PEEK[HEADER.FIELDS ({})]<0.{MAX_HEADERS}>)",
            self.watch.judge.header_fields()
        )
    }

    /// NOTIFY (RFC 5465 section 3): headers of what comes into the open mailbox, a STATUS of what comes into the others.
    pub(super) fn notify_command(&self) -> Vec<u8> {
        let items = self.items();
        let others = self.watch.mailboxes.get(1..).unwrap_or_default();
        // A STATUS of each at once: something may have come since it was looked through.
        let status = if others.is_empty() { "" } else { "STATUS " };
        let mut command =
            format!("NOTIFY SET {status}(SELECTED (MessageNew {items} MessageExpunge))")
                .into_bytes();
        if !others.is_empty() {
            command.extend_from_slice(b" (MAILBOXES (");
            for (index, mailbox) in others.iter().enumerate() {
                if index > 0 {
                    command.push(b' ');
                }
                push_quoted(&mut command, self.inherited.on_the_wire(&mailbox.name).as_bytes());
            }
            command.extend_from_slice(b") (MessageNew MessageExpunge))");
        }
        command
    }
}
