//! Observes which messages a Delta Chat app fetches, out of those whose headers it looked at: apps that accept encrypted mail only
//! leave the rest on the server. Only in sessions whose client has handed over a token; others have none of it.
//!
//! The app looks at what is new by `UID FETCH n:m (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (…)])`, fetches what it wants by
//! `UID FETCH n (FLAGS BODY.PEEK[])`, and waits in IDLE. Messages that it has not fetched by then are left, unless it is not
//! certain: it moved, flagged or deleted something, hung up, or the message is large.

use super::{Session, SessionAction};
use crate::machine::Actions;
use crate::parser::command::Verb;
use crate::parser::grammar;
use crate::parser::response::Condition;
use crate::push::encrypted_only;
use crate::store::FetchLesson;
use imap_proto::{AttributeValue, Response};

/// The longest command that is read.
const MAX_LINE: usize = 4 * 1024;

/// The longest response that is read: some header fields.
const MAX_RESPONSE: usize = 32 * 1024;

/// So many unencrypted messages are remembered between their headers and the end of the app's fetches.
const MAX_MESSAGES: usize = 64;

/// A larger message may be left for its size, in bytes. An app's own limit is 160 KiB at least.
const MAX_SIZE: u32 = 100 * 1024;

/// The observer of one session.
#[derive(Debug, Default)]
pub(super) struct PrefetchObserver {
    /// The line of the command in progress.
    line: Vec<u8>,
    /// The tag of the command that brings headers.
    prefetch: Option<Box<[u8]>>,
    /// The response to it.
    response: Option<Vec<u8>>,
    /// Unencrypted messages whose headers the app has seen and that it has not fetched.
    unfetched: Vec<Unencrypted>,
}

/// An unencrypted message.
#[derive(Debug)]
struct Unencrypted {
    uid: u32,
    sender: Box<str>,
    /// The app may leave it for its size.
    is_large: bool,
}

impl PrefetchObserver {
    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.line.len().saturating_add(self.response.as_ref().map_or(0, Vec::len))
    }

    fn forget(&mut self) {
        *self = Self::default();
    }

    /// A command begins; `start` is what came of it.
    #[inline(never)]
    pub(super) fn begin(&mut self, verb: Verb, start: &[u8]) {
        self.line = Vec::new();
        match verb {
            Verb::Uid | Verb::Idle => self.go_on(start),
            Verb::Select | Verb::Examine | Verb::Close | Verb::Unselect => self.forget(),
            Verb::Noop | Verb::Capability | Verb::Id | Verb::GetMetadata | Verb::SetMetadata => {}
            // Any other command may have to do with these messages.
            _ => self.unfetched.clear(),
        }
    }

    /// More of the lines of the command under way.
    pub(super) fn more(&mut self, bytes: &[u8]) {
        if !self.line.is_empty() {
            self.go_on(bytes);
        }
    }

    fn go_on(&mut self, bytes: &[u8]) {
        if self.line.len() <= MAX_LINE {
            self.line.extend_from_slice(bytes);
        }
    }

    /// The command is complete.
    #[inline(never)]
    fn end(&mut self, verb: Verb, tag: &[u8]) -> Option<FetchLesson> {
        let line = std::mem::take(&mut self.line);
        match verb {
            Verb::Idle => self.app_waits(),
            Verb::Uid if line.len() <= MAX_LINE => {
                self.uid_command(&line.to_ascii_uppercase(), tag)
            }
            Verb::Uid => {
                self.forget();
                None
            }
            _ => None,
        }
    }

    /// `line`: the command in upper case.
    fn uid_command(&mut self, line: &[u8], tag: &[u8]) -> Option<FetchLesson> {
        let mut words = line.trim_ascii_end().splitn(5, |byte| *byte == b' ').skip(2);
        let (verb, set, items) = (words.next()?, words.next()?, words.next().unwrap_or_default());
        if verb != b"FETCH" {
            self.unfetched.clear();
            return None;
        }
        let Some(fields) = selected_fields(items) else { return self.fetched(set, items) };
        let selects = |name: &[u8]| fields.split(|byte| *byte == b' ').any(|field| field == name);
        if !selects(b"CHAT-VERSION") {
            return None;
        }
        if !selects(b"SECURE-JOIN") || !selects(b"CONTENT-TYPE") || !selects(b"FROM") {
            // A core before 2.50 selects by other rules, and fetches unencrypted chat messages.
            return Some(FetchLesson::FetchedUnencrypted);
        }
        if self.prefetch.is_some() {
            // With two of them, responses cannot be attributed to either.
            self.forget();
        } else {
            self.prefetch = Some(tag.into());
        }
        None
    }

    /// The app fetches the messages in `set`.
    fn fetched(&mut self, set: &[u8], items: &[u8]) -> Option<FetchLesson> {
        let is_body =
            [b"BODY[".as_slice(), b"BODY.PEEK[", b"RFC822"].iter().any(|item| has(items, item));
        let Some(set) = std::str::from_utf8(set).ok().filter(|_| is_body) else {
            self.unfetched.clear();
            return None;
        };
        let known = self.unfetched.len();
        self.unfetched.retain(|message| !is_in(message.uid, set));
        (self.unfetched.len() < known).then_some(FetchLesson::FetchedUnencrypted)
    }

    /// The app has fetched what it wanted.
    fn app_waits(&mut self) -> Option<FetchLesson> {
        if self.prefetch.is_some() {
            self.forget();
        }
        let left =
            std::mem::take(&mut self.unfetched).into_iter().filter(|message| !message.is_large);
        let senders: Vec<String> = left.map(|message| message.sender.into()).collect();
        (!senders.is_empty()).then_some(FetchLesson::LeftUnencrypted(senders))
    }

    /// The upstream has ended the command with this tag.
    #[inline(never)]
    pub(super) fn ended(&mut self, tag: &[u8], condition: Condition) {
        if self.prefetch.take_if(|prefetch| **prefetch == *tag).is_some()
            && condition != Condition::Ok
        {
            self.forget();
        }
    }

    /// A response begins to be handed on.
    #[inline(never)]
    pub(super) fn begin_response(&mut self, start: &[u8]) {
        let digit = start.strip_prefix(b"* ").and_then(<[u8]>::first);
        self.response = digit
            .filter(|_| self.prefetch.is_some())
            .is_some_and(u8::is_ascii_digit)
            .then(Vec::new);
    }

    /// More of a response.
    pub(super) fn more_of_response(&mut self, bytes: &[u8], is_complete: impl FnOnce() -> bool) {
        if self.response.is_some() {
            self.go_on_response(bytes, is_complete());
        }
    }

    #[inline(never)]
    fn go_on_response(&mut self, bytes: &[u8], is_complete: bool) {
        let Some(response) = &mut self.response else { return };
        let room = MAX_RESPONSE.saturating_sub(response.len());
        if bytes.len() > room {
            // Of a message that is not known it is no evidence that it is left.
            self.response = None;
        } else {
            response.extend_from_slice(bytes);
            if is_complete {
                let response = self.response.take().unwrap_or_default();
                self.looked_at(&response);
            }
        }
    }

    /// The app got the header fields of a message.
    fn looked_at(&mut self, response: &[u8]) {
        let Some(Response::Fetch(_, attributes)) = grammar::parse(response) else { return };
        let (mut uid, mut size, mut sender) = (None, None, None);
        for attribute in &attributes {
            match attribute {
                AttributeValue::Uid(value) => uid = Some(*value),
                AttributeValue::Rfc822Size(value) => size = Some(*value),
                AttributeValue::BodySection { data: Some(headers), .. } => {
                    sender = encrypted_only::sender_of_unfetched(headers);
                }
                _ => {}
            }
        }
        let (Some(uid), Some(sender)) = (uid, sender) else { return };
        if self.unfetched.len() < MAX_MESSAGES {
            let is_large = size.is_none_or(|size| size > MAX_SIZE);
            self.unfetched.push(Unencrypted { uid, sender: sender.into(), is_large });
        }
    }
}

/// The names in `BODY.PEEK[HEADER.FIELDS (…)]`.
fn selected_fields(items: &[u8]) -> Option<&[u8]> {
    const BEGIN: &[u8] = b"[HEADER.FIELDS (";
    let start = memchr::memmem::find(items, BEGIN)?.checked_add(BEGIN.len())?;
    items.get(start..)?.split(|byte| *byte == b')').next()
}

fn has(text: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(text, words).is_some()
}

/// Reports if a UID is in a set (RFC 9051 section 9, `sequence-set`).
fn is_in(uid: u32, set: &str) -> bool {
    let number = |text: &str| if text == "*" { Some(u32::MAX) } else { text.parse().ok() };
    set.split(',').any(|range| {
        let (from, to) = range.split_once(':').unwrap_or((range, range));
        match (number(from), number(to)) {
            (Some(from), Some(to)) => (from.min(to)..=from.max(to)).contains(&uid),
            _ => false,
        }
    })
}

impl Session {
    /// The client has handed over a token: from now on it is observed what its app fetches.
    pub(super) fn observe_prefetches(&mut self) {
        self.prefetches.get_or_insert_default();
    }

    /// The command under way is complete.
    #[inline]
    pub(super) fn prefetch_end(&mut self, out: &mut impl Actions<Session>) {
        if let Some(observer) = &mut self.prefetches
            && let Some(lesson) = observer.end(self.client.verb, &self.client.tag)
        {
            out.push(SessionAction::Learned(&lesson));
        }
    }
}
