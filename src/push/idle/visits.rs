//! The visits of mailboxes: EXAMINE, and mailboxes that cannot be opened.

use std::time::Instant;

use super::look::CatchUp;
use super::mailbox::{Begin, LOOK_BACK, OpenMailbox};
use super::types::{IdleAction, IdleFailure};
use super::{IdleMachine, IdleState, Notify};
use crate::machine::Actions;
use crate::parser::quote::push_quoted;

impl IdleMachine {
    /// A mailbox is open: is there anything since the noted position?
    pub(super) fn examined(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        self.is_open_again(actions);
        let noted = self.watch.mailboxes.get(self.current).and_then(|mailbox| mailbox.position);
        match self.open.begin(noted, self.watch.late) {
            Begin::Wait(next) => {
                self.seen_next = next;
                self.open.looked = self.open.exists;
                self.go_on(now, actions);
            }
            Begin::Note(next) => {
                self.note(next, actions);
                self.go_on(now, actions);
            }
            Begin::FindLast => {
                self.seen_next = 1;
                self.command(b"UID FETCH * (UID)", IdleState::FindLast, now, actions);
            }
            begin @ (Begin::FetchUids(_) | Begin::FetchNewest(_)) if self.watch.blindly => {
                self.to_push.add_unknown();
                self.seen_next = if let Begin::FetchUids(from) = begin { from } else { 1 };
                match self.open.uid_next {
                    Some(next) => {
                        self.note(next, actions);
                        self.go_on(now, actions);
                    }
                    None => self.command(b"UID FETCH * (UID)", IdleState::FindLast, now, actions),
                }
            }
            Begin::FetchUids(from) => {
                self.seen_next = from;
                self.look(now, actions);
            }
            Begin::FetchNewest(next) => {
                self.seen_next = next;
                let (look, set) = CatchUp::newest(&self.open, LOOK_BACK);
                self.fetch(look, &set, now, actions);
            }
        }
    }

    /// The last UID was asked for.
    pub(super) fn found_last(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if self.seen_next == 1 && self.open.exists != Some(0) {
            self.without_uids = true;
            // The message with number n has at least UID n.
            self.seen_next = self.open.exists.unwrap_or_default().saturating_add(1);
        }
        self.note(self.seen_next, actions);
        self.go_on(now, actions);
    }

    /// A mailbox cannot be opened: it is left out, and the others are watched, or a spare one.
    pub(super) fn not_opened(
        &mut self,
        words: String,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        // It may be left out already: NOTIFY can fail while it is being opened.
        if self.current < self.watch.mailboxes.len() {
            if self.watch.mailboxes.len() == 1 {
                if self.watch.spare.is_empty() {
                    return self.fail(IdleFailure::NoMailbox(words), actions);
                }
                self.watch.mailboxes.push(self.watch.spare.remove(0));
            }
            let mut left_out = self.watch.mailboxes.remove(self.current);
            left_out.is_left_out = true;
            actions.push(IdleAction::LeftOut(left_out.name.clone(), words));
            self.left_out.get_or_insert_default().add(left_out, now);
        }
        let removed = self.current;
        self.to_visit.retain(|index| *index != removed);
        for index in self.to_visit.iter_mut().filter(|index| **index > removed) {
            *index = index.saturating_sub(1);
        }
        self.current = usize::MAX;
        // No mailbox is open in which there could be any.
        self.has_news = false;
        self.go_on(now, actions);
    }

    /// The open mailbox may be one that was left out.
    fn is_open_again(&mut self, actions: &mut impl Actions<Self>) {
        let Some(mailbox) =
            self.watch.mailboxes.get_mut(self.current).filter(|mailbox| mailbox.is_left_out)
        else {
            return;
        };
        mailbox.is_left_out = false;
        actions.push(IdleAction::Opened(mailbox.name.clone()));
        if self.notify == Notify::Set {
            // It is to name this one too.
            self.notify = Notify::Unset;
        }
        if self.left_out.as_ref().is_some_and(|left_out| left_out.is_empty()) {
            self.left_out = None;
        }
    }

    /// Tries mailboxes again that could not be opened, if it is time. Without NOTIFY one at a time, in place of the one that is
    /// open, to which the session comes back if it is refused again.
    pub(super) fn try_again(&mut self, now: Instant) {
        let count = if self.notify == Notify::Absent { 1 } else { usize::MAX };
        let Some(due) = self
            .left_out
            .as_mut()
            .map(|left_out| left_out.due(count, now))
            .filter(|due| !due.is_empty())
        else {
            return;
        };
        if self.notify == Notify::Absent {
            let open = std::mem::replace(&mut self.watch.mailboxes, due);
            self.watch.spare.splice(..0, open);
            self.current = usize::MAX;
            return;
        }
        let first = self.watch.mailboxes.len();
        self.watch.mailboxes.extend(due);
        self.to_visit.extend(first..self.watch.mailboxes.len());
    }

    /// NOTIFY is not to be had, whatever the capabilities say: the other mailboxes are not this session's any more.
    pub(super) fn without_notify(&mut self, actions: &mut impl Actions<Self>) {
        self.notify = Notify::Absent;
        if self.watch.mailboxes.len() > 1 || self.left_out.take().is_some() {
            self.watch.mailboxes.truncate(1);
            self.to_visit.retain(|index| *index == 0);
            actions.push(IdleAction::OnlyFirst);
        }
    }

    pub(super) fn examine(&mut self, index: usize, now: Instant, actions: &mut impl Actions<Self>) {
        self.current = index;
        self.has_news = false;
        self.news_since = None;
        self.last_news = None;
        self.open = OpenMailbox::default();
        let mut command = b"EXAMINE ".to_vec();
        let name =
            self.watch.mailboxes.get(index).map(|mailbox| &*mailbox.name).unwrap_or_default();
        push_quoted(&mut command, self.inherited.on_the_wire(name).as_bytes());
        self.command(&command, IdleState::Examine, now, actions);
    }
}
