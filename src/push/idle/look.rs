//! One search for new messages: the FETCH that is sent, the responses to it, and the push decisions.
//!
//! An answer may lack its UID, its headers, or its meaning. In doubt it is a push, and the look still moves the position as far
//! as is safe, so that the same messages are not fetched again.

use super::mailbox::OpenMailbox;
use super::to_push::ToPush;
use crate::parser::data::Fetch;
use crate::push::filter::{PushDecision, PushFilter, message_id};

/// The most messages that one look fetches. If there are more, the newest are fetched, and the rest is pushed unseen.
pub(super) const MAX_MESSAGES: u64 = 100;

/// Messages without headers that are remembered in one look.
const MAX_PARTIAL: usize = 64;

/// Why an answer to FETCH could not be used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// There was no answer at all.
    NoAnswer,
    /// It has no headers.
    NoHeaders,
    /// It has no UID.
    NoUid,
    /// It cannot be read.
    Unclear,
}

impl Oddity {
    /// In words, for a log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "it sends no data of messages that it announced",
            Self::NoHeaders => "it sends no headers of a message",
            Self::NoUid => "it sends no UID of a message",
            Self::Unclear => "it describes a message in a form that deltapush cannot parse",
        }
    }
}

/// A look under way.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// Messages below this UID are known.
    from: u64,
    /// Messages up to this sequence number are known.
    known: u64,
    /// None of the others has been looked at before.
    is_certain: bool,
    /// Number of messages at its beginning. `None` if the server has not reported it.
    pub(super) count: Option<u64>,
    /// The last message may be new although the number of messages has not grown.
    is_doubtful: bool,
    /// It asks for the newest messages only, by their sequence numbers: there may be more new ones.
    is_cut: bool,
    /// More messages are known to exist than are known.
    is_promised: bool,
    /// Number of answers, in all.
    answers: u64,
    /// Number of answers about new messages.
    pub(super) new: u64,
    /// A new message has no UID.
    is_without_uids: bool,
    /// Distance of the last message without a UID from the known messages.
    rise: u64,
    /// The highest sequence number of an answer.
    pub(super) highest: u64,
    /// The lowest UID of an answer.
    lowest: Option<u64>,
    /// One above the highest UID of a new message.
    pub(super) next: u64,
    /// Sequence numbers and UIDs of new messages whose headers have not come.
    partial: Vec<(Option<u64>, Option<u64>)>,
    to_push: ToPush,
    oddity: Option<Oddity>,
}

/// The end of a look.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) to_push: ToPush,
    /// Some new message has no UID.
    pub(super) is_without_uids: bool,
    pub(super) oddity: Option<Oddity>,
}

impl CatchUp {
    /// A look at the messages from a UID on, and the beginning of its command.
    pub(super) fn from_uid(open: &OpenMailbox, from: u64, without_uids: bool) -> (Self, String) {
        let known = open.looked.unwrap_or_default();
        let unknown = open.exists.map(|exists| exists.saturating_sub(known));
        // Nothing says that it is close to the end.
        let is_far = open.looked.is_none()
            && open.uid_next.is_none_or(|next| next.saturating_sub(from) > MAX_MESSAGES);
        let is_wide = open.looked.is_some() || is_far;
        let mut look = Self::new(open, from, known);
        look.is_promised = match open.looked {
            Some(_) => unknown.is_some_and(|unknown| unknown > 0),
            None => open.exists != Some(0) && open.uid_next.is_some_and(|next| next > from),
        };
        let first = match (open.exists, unknown) {
            (Some(exists), Some(unknown)) if without_uids || is_wide && unknown > MAX_MESSAGES => {
                look.is_cut = unknown > MAX_MESSAGES;
                // Also the last one if all are known: the number may be wrong.
                exists.saturating_sub(unknown.clamp(1, MAX_MESSAGES)).saturating_add(1)
            }
            (None, _) if without_uids || is_far => {
                look.is_cut = is_far;
                return (look, "FETCH *".into());
            }
            _ => return (look, format!("UID FETCH {from}:*")),
        };
        (look, format!("FETCH {first}:*"))
    }

    /// A look at the newest messages, all of which count as new.
    pub(super) fn newest(open: &OpenMailbox, count: u64) -> (Self, String) {
        let look = Self::new(open, 1, 0);
        let below = |number: u64| number.saturating_sub(count).saturating_add(1).max(1);
        let command = match (open.exists, open.uid_next) {
            (Some(exists), _) => format!("FETCH {}:*", below(exists)),
            (None, Some(next)) => format!("UID FETCH {}:*", below(next)),
            (None, None) => "FETCH *".into(),
        };
        (look, command)
    }

    fn new(open: &OpenMailbox, from: u64, known: u64) -> Self {
        Self {
            from,
            known,
            is_certain: open.looked.is_some() && !open.is_doubtful,
            count: open.exists,
            is_doubtful: open.is_doubtful,
            is_cut: false,
            is_promised: false,
            answers: 0,
            new: 0,
            is_without_uids: false,
            rise: 0,
            highest: 0,
            lowest: None,
            next: 1,
            partial: Vec::new(),
            to_push: ToPush::default(),
            oddity: None,
        }
    }

    /// Takes an answer, and decides about its message if that can be decided by now.
    pub(super) fn take(&mut self, message: &Fetch<'_>, judge: &PushFilter) -> Option<PushDecision> {
        self.answers = self.answers.saturating_add(1);
        self.highest = self.highest.max(message.sequence.unwrap_or_default());
        if let Some(uid) = message.uid {
            self.lowest = Some(self.lowest.map_or(uid, |lowest| lowest.min(uid)));
        }
        if !self.is_new(message) {
            return None;
        }
        let flags = || message.flags.iter().map(AsRef::as_ref);
        if message.is_unclear {
            self.odd(Oddity::Unclear);
            self.count_new(message);
            self.to_push.add(message.uid, None);
            return None;
        }
        let Some(headers) = &message.headers else {
            if judge.by_flags(flags()) == PushDecision::Push {
                self.take_partial(message);
            } else if message.uid.is_some() {
                // Its flags rule it out: what else there is to say of it does not matter.
                self.count_new(message);
            }
            return None;
        };
        if message.uid.is_none() {
            self.odd(Oddity::NoUid);
        }
        self.forget_partial(message);
        self.count_new(message);
        let verdict = judge.verdict(flags(), headers);
        if verdict == PushDecision::Push {
            self.to_push.add(message.uid, message_id(headers));
        }
        Some(verdict)
    }

    /// `n:*` also brings the last message if all are below n.
    fn is_new(&self, message: &Fetch<'_>) -> bool {
        match (message.uid, message.sequence) {
            (Some(uid), _) => uid >= self.from,
            (None, Some(sequence)) => {
                sequence > self.known
                    || self.is_doubtful && self.count.is_none_or(|count| sequence >= count)
            }
            (None, None) => true,
        }
    }

    fn count_new(&mut self, message: &Fetch<'_>) {
        self.new = self.new.saturating_add(1);
        match message.uid {
            Some(uid) => self.next = self.next.max(uid.saturating_add(1)),
            None => {
                self.is_without_uids = true;
                self.rise =
                    self.rise.max(message.sequence.unwrap_or_default().saturating_sub(self.known));
            }
        }
    }

    /// Without headers it may be news of its flags only, before or after the answer itself.
    fn take_partial(&mut self, message: &Fetch<'_>) {
        let is_answered = message.uid.is_some_and(|uid| uid < self.next);
        if is_answered || self.is_partial(message) {
            return;
        }
        match self.partial.len() < MAX_PARTIAL {
            true => self.partial.push((message.sequence, message.uid)),
            false => self.to_push.add_unknown(),
        }
    }

    fn is_partial(&self, message: &Fetch<'_>) -> bool {
        self.partial.iter().any(|known| is_about(*known, message))
    }

    fn forget_partial(&mut self, message: &Fetch<'_>) {
        self.partial.retain(|known| !is_about(*known, message));
    }

    /// A message is gone.
    pub(super) fn expunged(&mut self, sequence: Option<u64>) {
        let is_below = |number: u64| sequence.is_none_or(|gone| gone <= number);
        if is_below(self.known) {
            self.known = self.known.saturating_sub(1);
        }
        self.count = self.count.map(|count| count.saturating_sub(1));
        if is_below(self.highest) {
            self.highest = self.highest.saturating_sub(1);
        }
        self.partial.retain(|(number, _)| sequence.is_none() || *number != sequence);
        for number in self.partial.iter_mut().filter_map(|(number, _)| number.as_mut()) {
            if is_below(*number) {
                *number = number.saturating_sub(1);
            }
        }
    }

    fn odd(&mut self, oddity: Oddity) {
        self.oddity = self.oddity.max(Some(oddity));
    }

    /// Nothing more comes. With `is_whole` the server has brought all that it was asked for.
    pub(super) fn end(&mut self, is_whole: bool) -> Looked {
        for (sequence, uid) in std::mem::take(&mut self.partial) {
            self.odd(Oddity::NoHeaders);
            self.to_push.add(uid, None);
            self.count_new(&Fetch { sequence, uid, ..Fetch::default() });
        }
        if is_whole && self.is_cut && self.lowest.is_none_or(|lowest| lowest > self.from) {
            self.to_push.add_unknown();
        }
        // There is a last message, which `n:*` would have brought.
        if is_whole && self.answers == 0 && self.is_promised && self.count != Some(0) {
            self.odd(Oddity::NoAnswer);
            self.to_push.add_unknown();
        }
        if self.is_certain {
            // UIDs rise, by one from message to message at least.
            self.next = self.next.max(self.from.saturating_add(self.rise));
        }
        Looked {
            to_push: std::mem::take(&mut self.to_push),
            is_without_uids: self.is_without_uids,
            oddity: self.oddity,
        }
    }
}

fn is_about((sequence, uid): (Option<u64>, Option<u64>), message: &Fetch<'_>) -> bool {
    sequence.is_some() && sequence == message.sequence || uid.is_some() && uid == message.uid
}
