//! New mail: EXISTS, EXPUNGE, FETCH and STATUS responses, and the outcome of a search.

use std::time::Instant;

use super::look::{CatchUp, Oddity};
use super::to_push::ToPush;
use super::types::IdleAction;
use super::{
    ANSWER_TIME, FETCH_TIME, IdleMachine, IdleState, MAX_LOOKS, NOTIFY_TIME, Notify, PAUSE, after,
};
use crate::machine::Actions;
use crate::mailbox_name::MailboxName;
use crate::parser::data::{Fetch, MailboxStatus};
use crate::push::filter::{PushDecision, message_id};
use crate::store::{Look, Position};

impl IdleMachine {
    /// Any EXISTS means that there may be something new, even one that names no higher number: servers exist that say
    /// nothing of what was expunged.
    pub(super) fn exists(
        &mut self,
        count: Option<u64>,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        let grown = self.open.counts(count);
        if self.state == IdleState::Examine {
            // The first one belongs to the answer, the second one is news that UIDNEXT may not know of.
            self.has_news |= std::mem::replace(&mut self.open.is_counted, true);
            return;
        }
        self.news_since.get_or_insert(now);
        self.last_news = Some(now);
        let headers_follow = self.notify == Notify::Set && self.watch.grace.is_zero() && grown > 0;
        if self.state == IdleState::Idle && headers_follow {
            if self.expected == 0 {
                self.deadline = self.renew_at.min(after(now, NOTIFY_TIME));
            }
            self.expected = self.expected.saturating_add(grown);
            return;
        }
        self.has_news = true;
        self.look_soon(now, actions);
    }

    /// EXPUNGE.
    pub(super) fn expunged(&mut self, sequence: Option<u64>) {
        self.open.expunged(sequence);
        if let Some(look) = &mut self.look {
            look.expunged(sequence);
        }
    }

    /// A response that is not understood and may be news: looking costs a round trip, not looking a message.
    pub(super) fn unclear(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if matches!(self.state, IdleState::IdleStart | IdleState::Idle | IdleState::IdleEnd) {
            self.news_since.get_or_insert(now);
            self.has_news = true;
            self.look_soon(now, actions);
        }
    }

    /// There is news: leave IDLE for it, at once or after the grace.
    pub(super) fn look_soon(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if self.state != IdleState::Idle {
            return;
        }
        let wait =
            if self.looks >= MAX_LOOKS { self.watch.grace.max(PAUSE) } else { self.watch.grace };
        if wait.is_zero() {
            self.done(now, actions);
        } else {
            self.deadline = self.deadline.min(after(now, wait));
        }
    }

    /// NOTIFY: something happened in a mailbox that is not open.
    pub(super) fn other_mailbox(
        &mut self,
        status: &MailboxStatus<'_>,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        let MailboxStatus { ref name, uid_validity, uid_next } = *status;
        let found = self.watch.mailboxes.iter().position(|mailbox| {
            let known = self.inherited.on_the_wire(&mailbox.name);
            MailboxName::are_same(known.as_bytes(), name.as_bytes())
        });
        let Some(index) = found.filter(|index| *index != self.current) else { return };
        let noted = self.watch.mailboxes.get(index).and_then(|mailbox| mailbox.position);
        let is_known = noted.is_some_and(|noted| {
            uid_validity.is_none_or(|validity| validity == noted.uid_validity)
                && uid_next.is_some_and(|next| next <= noted.uid_next)
        });
        if is_known || self.to_visit.contains(&index) {
            return;
        }
        self.to_visit.push(index);
        self.look_soon(now, actions);
    }

    pub(super) fn fetched(
        &mut self,
        message: &Fetch<'_>,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        match self.state {
            IdleState::FindLast => {
                self.seen_next =
                    self.seen_next.max(message.uid.unwrap_or_default().saturating_add(1))
            }
            IdleState::Fetch => {
                self.deadline = after(now, ANSWER_TIME).min(after(self.began, FETCH_TIME));
                let Some(look) = &mut self.look else { return };
                let before = look.new;
                let verdict = look.take(message, &self.watch.judge);
                if look.new > before {
                    self.chatter = 0;
                }
                self.judged(message.uid, verdict, actions);
            }
            // Also one that no EXISTS has announced: some servers forget to say what was expunged, and the numbers do not add up.
            IdleState::Idle if self.notify == Notify::Set && self.watch.grace.is_zero() => {
                self.notified(message, now, actions);
            }
            _ => {}
        }
    }

    fn judged(
        &self,
        uid: Option<u64>,
        verdict: Option<PushDecision>,
        actions: &mut impl Actions<Self>,
    ) {
        let (Some(uid), Some(verdict)) = (uid, verdict) else { return };
        let mailbox = self
            .watch
            .mailboxes
            .get(self.current)
            .map(|mailbox| mailbox.name.clone())
            .unwrap_or_default();
        actions.push(IdleAction::Judged { mailbox, uid, verdict });
    }

    /// NOTIFY brought a message's headers; when it has brought all, they count.
    fn notified(&mut self, message: &Fetch<'_>, now: Instant, actions: &mut impl Actions<Self>) {
        let (Some(uid), Some(headers), false) = (message.uid, &message.headers, message.is_unclear)
        else {
            // Without headers it is news of flags only.
            if message.headers.is_some() || message.is_unclear {
                self.unclear(now, actions);
            }
            return;
        };
        if uid < self.seen_next {
            return;
        }
        self.chatter = 0;
        self.seen_next = self.seen_next.max(uid.saturating_add(1));
        let verdict = self.watch.judge.verdict(message.flags.iter().map(AsRef::as_ref), headers);
        if verdict == PushDecision::Push {
            self.to_push.add(Some(uid), message_id(headers));
        }
        self.judged(Some(uid), Some(verdict), actions);
        self.expected = self.expected.saturating_sub(1);
        if self.expected == 0 {
            self.deadline = self.renew_at.max(now);
            self.note(self.seen_next, actions);
        }
    }

    /// Looks for messages from the highest UID on that was seen.
    pub(super) fn look(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        self.looks = self.looks.saturating_add(1);
        let (look, set) = CatchUp::from_uid(&self.open, self.seen_next, self.without_uids);
        self.fetch(look, &set, now, actions);
    }

    pub(super) fn fetch(
        &mut self,
        look: CatchUp,
        set: &str,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        self.has_news = false;
        self.to_push = ToPush::default();
        self.open.is_doubtful = false;
        self.began = now;
        self.look = Some(Box::new(look));
        let command = format!("{set} {}", self.items());
        self.command(command.as_bytes(), IdleState::Fetch, now, actions);
    }

    /// The FETCH has ended. With `is_whole` it has brought all that it will: the position moves.
    pub(super) fn looked(&mut self, is_whole: bool, actions: &mut impl Actions<Self>) {
        let Some(mut look) = self.look.take() else { return };
        let ended = look.end(is_whole);
        self.to_push = ended.to_push;
        self.without_uids |= ended.is_without_uids;
        self.seen_next = self.seen_next.max(look.next);
        let covered = look.count.map(|count| count.max(look.highest));
        if ended.is_without_uids {
            // All that UIDNEXT counted was looked at, and the message with number n has at least UID n.
            let lowest = covered.unwrap_or_default().saturating_add(1);
            self.seen_next = self.seen_next.max(self.open.uid_next.unwrap_or(1)).max(lowest);
        }
        if ended.oddity == Some(Oddity::NoAnswer) {
            // It is announced all the same, so it need not be asked for again.
            self.seen_next = self.seen_next.max(self.open.uid_next.unwrap_or(1));
        }
        if look.new > 0 {
            self.looks = 0;
        }
        if let Some(oddity) = ended.oddity.filter(|_| is_whole) {
            actions.push(IdleAction::Odd(oddity));
        }
        if is_whole || !self.to_push.is_empty() {
            self.note(self.seen_next, actions);
            self.open.looked = covered
                .map(|covered| self.open.exists.map_or(covered, |exists| covered.min(exists)));
        }
    }

    /// Notes how far the open mailbox was looked through, with what is to be announced.
    pub(super) fn note(&mut self, uid_next: u64, actions: &mut impl Actions<Self>) {
        let position = Position { uid_validity: self.open.uid_validity, uid_next };
        self.seen_next = uid_next;
        self.open.looked = self.open.exists;
        let to_push = std::mem::take(&mut self.to_push);
        let (since, last) = (self.news_since.take(), self.last_news.take());
        let Some(mailbox) = self.watch.mailboxes.get_mut(self.current) else { return };
        let announce = !to_push.is_empty();
        if announce || mailbox.position != Some(position) {
            actions.push(IdleAction::Noticed {
                mailbox: mailbox.name.clone(),
                look: Look { position, news_next: to_push.next(uid_next) },
                announce,
                since,
                last,
                ids: to_push.ids(),
            });
        }
        mailbox.position = Some(position);
    }
}
