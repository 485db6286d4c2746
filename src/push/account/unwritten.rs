//! New mail that was pushed although it could not be written, because the disk is full. Each message is pushed once,
//! however often it is found again, and is not announced a second time when it can be written at last.

use crate::mailbox_name::MailboxName;
use crate::secret::DeviceToken;
use crate::store::{Announce, MAX_TOKENS, Position};

/// So many mailboxes of an account are remembered. Messages in others are pushed once they can be written.
const MAX_MAILBOXES: usize = 8;

/// The new mail of an account that was pushed from memory.
#[derive(Default)]
pub(super) struct Unwritten(Vec<Pushed>);

struct Pushed {
    mailbox: MailboxName,
    position: Position,
    /// Tokens of which a POST was accepted since.
    accepted: Vec<DeviceToken>,
}

impl Unwritten {
    /// News of a mailbox up to `position` could not be written. Returns whether it is to be pushed now.
    pub(super) fn push(&mut self, mailbox: &str, position: Position) -> bool {
        if let Some(pushed) = self.0.iter_mut().find(|pushed| pushed.mailbox == mailbox) {
            let is_news = !is_within(position, pushed.position);
            if is_news {
                (pushed.position, pushed.accepted) = (position, Vec::new());
            }
            return is_news;
        }
        let has_room = self.0.len() < MAX_MAILBOXES;
        if has_room {
            self.0.push(Pushed { mailbox: mailbox.into(), position, accepted: Vec::new() });
        }
        has_room
    }

    /// A POST of the token was accepted.
    pub(super) fn accepted(&mut self, token: &DeviceToken) {
        for pushed in self.0.iter_mut().filter(|pushed| pushed.accepted.len() < MAX_TOKENS) {
            if !pushed.accepted.contains(token) {
                pushed.accepted.push(token.clone());
            }
        }
    }

    /// The tokens that news up to `position` is still to be announced to: not those that it was announced to from memory.
    pub(super) fn left(&self, mailbox: &str, position: Position, announce: Announce) -> Announce {
        let same =
            |pushed: &&Pushed| pushed.mailbox == mailbox && is_within(position, pushed.position);
        match (self.0.iter().find(same), announce) {
            (Some(pushed), Announce::All) => Announce::AllBut(pushed.accepted.clone()),
            (Some(pushed), Announce::AllBut(others)) => Announce::AllBut(
                others.into_iter().chain(pushed.accepted.iter().cloned()).collect(),
            ),
            (_, announce) => announce,
        }
    }

    /// News of the mailbox was written.
    pub(super) fn written(&mut self, mailbox: &str) {
        self.0.retain(|pushed| pushed.mailbox != mailbox);
    }
}

fn is_within(position: Position, pushed: Position) -> bool {
    position.uid_validity == pushed.uid_validity && position.uid_next <= pushed.uid_next
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(uid_next: u64) -> Position {
        Position { uid_validity: 7, uid_next }
    }

    #[test]
    fn each_message_is_pushed_once_and_not_announced_again_where_it_was_accepted() {
        let mut unwritten = Unwritten::default();
        let token = |name: &str| DeviceToken::new(name.as_bytes()).unwrap();
        assert!(unwritten.push("INBOX", at(5)));
        assert!(!unwritten.push("INBOX", at(5)), "found again");
        assert!(unwritten.push("INBOX", at(6)), "another message");
        unwritten.accepted(&token("a"));
        let left =
            |unwritten: &Unwritten, position| unwritten.left("INBOX", position, Announce::All);
        assert_eq!(left(&unwritten, at(6)), Announce::AllBut(vec![token("a")]));
        assert_eq!(left(&unwritten, at(7)), Announce::All, "with a message that was not pushed");
        assert_eq!(left(&unwritten, Position { uid_validity: 8, uid_next: 1 }), Announce::All);
        unwritten.written("INBOX");
        assert_eq!(left(&unwritten, at(6)), Announce::All);
        assert!(unwritten.0.is_empty());
        let pushed = (0..100).filter(|number| unwritten.push(&number.to_string(), at(1))).count();
        assert_eq!(pushed, MAX_MAILBOXES);
    }
}
