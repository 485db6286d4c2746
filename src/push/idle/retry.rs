//! Mailboxes that cannot be opened, until they are tried again.

use std::time::{Duration, Instant};

use super::mailbox::WatchedMailbox;
use crate::backoff::GrowingWait;

/// The waits before a mailbox is tried again.
const WAITS: GrowingWait =
    GrowingWait::doubling(Duration::from_secs(600), Duration::from_secs(6 * 3600));

/// The pause before a mailbox is tried again that could not be opened so many times.
#[must_use]
pub fn retry_after(refusals: u32) -> Duration {
    WAITS.after(refusals.saturating_sub(1))
}

/// The mailboxes that are left out of a session.
#[derive(Debug, Default)]
pub(super) struct SkippedMailboxes {
    mailboxes: Vec<WatchedMailbox>,
    refusals: u32,
    due: Option<Instant>,
}

impl SkippedMailboxes {
    pub(super) fn is_empty(&self) -> bool {
        self.mailboxes.is_empty()
    }

    pub(super) fn add(&mut self, mailbox: WatchedMailbox, now: Instant) {
        self.mailboxes.push(mailbox);
        // Of several that are refused in a row only the first counts.
        if self.due.is_none_or(|due| due <= now) {
            self.refusals = self.refusals.saturating_add(1);
            self.due = now.checked_add(retry_after(self.refusals));
        }
    }

    /// The same without this mailbox; `None` if no other is left out.
    pub(super) fn without(mut self: Box<Self>, mailbox: &str) -> Option<Box<Self>> {
        self.mailboxes.retain(|left_out| left_out.name != mailbox);
        (!self.is_empty()).then_some(self)
    }

    /// The mailboxes to try again now, at most `count`.
    pub(super) fn due(&mut self, count: usize, now: Instant) -> Vec<WatchedMailbox> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.mailboxes.drain(..count.min(self.mailboxes.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds() {
        let minutes = |refusals| retry_after(refusals).as_secs() / 60;
        assert_eq!([0, 1, 2, 3, 6, 7, u32::MAX].map(minutes), [10, 10, 20, 40, 320, 360, 360]);
    }
}
