//! Recognizes a background fetch: an app that was woken, or whose phone lets it run for a moment, logs in, opens the mailbox, fetches
//! what is new and hangs up. It asks for no metadata, hands over no token, and does not wait in IDLE; an app in the foreground does
//! the first two before it opens a mailbox.

use crate::parser::id::Field;

/// The client's actions so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Visit {
    /// It says that it is Delta Chat.
    is_app: bool,
    /// It has asked for metadata, or has set some.
    has_metadata: bool,
    /// It was recognized.
    is_known: bool,
}

impl Visit {
    /// The client says who it is.
    pub(super) fn id(&mut self, fields: &[Field]) {
        let is_name = |(name, value): &Field| {
            name.eq_ignore_ascii_case(b"name")
                && value.as_deref().is_some_and(|value| value == b"Delta Chat")
        };
        self.is_app |= fields.iter().any(is_name);
    }

    /// The client asks for metadata, or sets some.
    pub(super) fn metadata(&mut self) {
        self.has_metadata = true;
    }

    /// The client has opened a mailbox. Returns whether that makes it a background fetch.
    pub(super) fn opened(&mut self) -> bool {
        self.is_app && self.is_recognized()
    }

    /// The client, having heard of news, asks for messages by the command that begins with `start`. Returns whether that makes it a
    /// background fetch.
    #[inline(never)]
    pub(super) fn fetches(&mut self, start: &[u8]) -> bool {
        memchr::memmem::find(start, b"CHAT-VERSION").is_some() && self.is_recognized()
    }

    fn is_recognized(&mut self) -> bool {
        !self.has_metadata && !std::mem::replace(&mut self.is_known, true)
    }
}
