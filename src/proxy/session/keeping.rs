//! State that a session records in case it goes on without its client: outstanding responses, settings changed in it,
//! and new mail that its client sees. Only where sessions are kept (docs/keeping.md).

use std::collections::VecDeque;

use super::selection::Selection;
use super::{Session, SessionAction};
use crate::machine::Actions;
use crate::parser::command::Verb;
use crate::parser::data;
use crate::parser::response::Condition;

/// Commands that may be under way upstream. With more of them it is not known any more what the session is about.
const MAX_IN_FLIGHT: usize = 64;

/// The longest command that is looked at.
pub(super) const MAX_LINE: usize = 8 * 1024;

/// The longest response that is shown to whoever looks for new mail: flags and headers.
const MAX_SEEN: usize = 32 * 1024;

/// Something about new mail that passes between client and upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedEvent<'a> {
    /// Another mailbox is being opened: what follows is about it.
    Opening,
    /// The mailbox with this name is open.
    Opened(&'a str),
    /// No mailbox is open, or none whose name is known.
    Closed,
    /// A whole response about the mailbox that is open, or its beginning if it is very long.
    Response(&'a [u8]),
    /// The client's FETCH has succeeded. `from`: it was for all messages from this UID on.
    Fetched {
        /// The lowest UID of a set that is open to the end.
        from: Option<u64>,
    },
}

/// Facts for a drain.
#[derive(Default)]
pub(super) struct DrainState {
    /// Commands that are complete and whose end has not come, oldest first.
    pub(super) in_flight: VecDeque<CommandInFlight>,
    /// There were too many of them.
    pub(super) lost_track: bool,
    /// The line of the command in progress.
    line: Vec<u8>,
    /// Settings that were changed in the session.
    pub(super) set: ChangedState,
    /// The tag of a LOGOUT that waits for the ends of the commands before it.
    pub(super) logout: Option<Vec<u8>>,
    /// The client is gone, and the session is being drained.
    pub(super) drains: bool,
    /// FETCH responses are worth a copy: the driver has said so, or has seen something since that may change what it says.
    copies_fetches: bool,
    /// The response to show to the observer.
    seen: Option<Vec<u8>>,
    /// Bytes of the upstream after the session was over for the client: less than is read at once.
    pub(super) rest: Vec<u8>,
}

/// A command that the upstream has to answer.
pub(super) struct CommandInFlight {
    tag: Box<[u8]>,
    kind: CommandKind,
}

enum CommandKind {
    Fetch { from: Option<u64> },
    Enable { utf8: bool },
    Other,
}

/// Differences from a session that has just begun, apart from the open mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangedState {
    /// Mailbox names are UTF-8 (RFC 6855, RFC 9051), and no longer modified UTF-7.
    pub utf8: bool,
    /// NOTIFY was sent (RFC 5465).
    pub notify: bool,
    /// Something was sent that may outlast the mailbox: ENABLE, CONDSTORE, and whatever is not known.
    pub anything: bool,
}

/// Commands that change nothing, neither in the account nor in the session: one of them that the client could not end may be
/// ended by anything.
const HARMLESS: [&str; 10] = [
    "NOOP",
    "CAPABILITY",
    "SEARCH",
    "SORT",
    "THREAD",
    "LIST",
    "LSUB",
    "STATUS",
    "NAMESPACE",
    "EXAMINE",
];

/// Commands after which a session is as it was before, once the mailbox is closed.
const TRACELESS: [&str; 34] = [
    "APPEND",
    "CAPABILITY",
    "CHECK",
    "CLOSE",
    "COPY",
    "CREATE",
    "DELETE",
    "DELETEACL",
    "EXAMINE",
    "EXPUNGE",
    "FETCH",
    "GETACL",
    "GETMETADATA",
    "GETQUOTA",
    "GETQUOTAROOT",
    "ID",
    "IDLE",
    "LIST",
    "LISTRIGHTS",
    "LSUB",
    "MOVE",
    "MYRIGHTS",
    "NAMESPACE",
    "NOOP",
    "RENAME",
    "SEARCH",
    "SELECT",
    "SETMETADATA",
    "SORT",
    "STATUS",
    "STORE",
    "SUBSCRIBE",
    "THREAD",
    "UNSELECT",
];

/// Words in such a command that enable CONDSTORE or QRESYNC (RFC 7162 section 3.1).
const ENABLING: [&[u8]; 5] =
    [b"CONDSTORE", b"QRESYNC", b"MODSEQ", b"CHANGEDSINCE", b"UNCHANGEDSINCE"];

impl DrainState {
    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        let tags = self.in_flight.iter().map(|command| command.tag.len());
        let seen = self.seen.as_ref().map_or(0, Vec::len);
        tags.chain([self.line.len(), seen, self.rest.len()]).fold(0, usize::saturating_add)
    }

    /// A command begins to go upstream; `start` is what came of it.
    #[inline(never)]
    pub(super) fn begin(&mut self, verb: Verb, start: &[u8], out: &mut impl Actions<Session>) {
        self.line = Vec::new();
        self.go_on(start);
        match verb {
            Verb::Select | Verb::Examine => self.observed(ObservedEvent::Opening, out),
            Verb::Close | Verb::Unselect => self.observed(ObservedEvent::Closed, out),
            _ => {}
        }
    }

    /// Reports if any bytes may end the command in progress without harm.
    pub(super) fn is_harmless(&self) -> bool {
        let (verb, _) = verb(&self.line);
        HARMLESS.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(&verb))
    }

    /// More of its lines.
    #[inline(never)]
    pub(super) fn go_on(&mut self, bytes: &[u8]) {
        if self.line.len() <= MAX_LINE {
            self.line.extend_from_slice(bytes);
        }
    }

    /// It is complete.
    #[inline(never)]
    pub(super) fn end(&mut self, tag: &[u8]) {
        let line = std::mem::take(&mut self.line);
        let kind = self.take_in(&line);
        self.sent(tag, kind);
    }

    /// A command of the client's went upstream that deltapush has gathered.
    pub(super) fn replayed(&mut self, tag: &[u8]) {
        self.sent(tag, CommandKind::Other);
    }

    fn sent(&mut self, tag: &[u8], kind: CommandKind) {
        // An empty line, which no server answers under a tag.
        if tag.is_empty() {
            return;
        }
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            self.lost_track = true;
            self.in_flight.clear();
        }
        if !self.lost_track {
            self.in_flight.push_back(CommandInFlight { tag: tag.into(), kind });
        }
    }

    /// Records the command's effect on the session.
    fn take_in(&mut self, line: &[u8]) -> CommandKind {
        let (verb, arguments) = verb(line);
        let is = |name: &str| name.as_bytes().eq_ignore_ascii_case(&verb);
        let upper = line.to_ascii_uppercase();
        let has = |word: &[u8]| memchr::memmem::find(&upper, word).is_some();
        let is_traceless =
            TRACELESS.iter().any(|name| is(name)) && !ENABLING.iter().any(|word| has(word));
        self.set.anything |= !is_traceless || line.len() > MAX_LINE;
        self.set.notify |= is("NOTIFY");
        match verb.as_slice() {
            _ if is("FETCH") => CommandKind::Fetch { from: arguments.and_then(lowest_of_open_set) },
            _ if is("ENABLE") => CommandKind::Enable { utf8: has(b"UTF8=") || has(b"IMAP4REV2") },
            _ => CommandKind::Other,
        }
    }

    /// A message came: what FETCHes that are under way bring may not be all that is new.
    fn outdate(&mut self) {
        for command in &mut self.in_flight {
            if let CommandKind::Fetch { from } = &mut command.kind {
                *from = None;
            }
        }
    }

    /// The upstream has ended the command with this tag. A FETCH that is over is returned.
    fn ended(&mut self, tag: &[u8], condition: Condition) -> Option<Option<u64>> {
        let index = self.in_flight.iter().position(|command| *command.tag == *tag)?;
        let ended = self.in_flight.remove(index)?;
        match ended.kind {
            CommandKind::Fetch { from } if condition == Condition::Ok => return Some(from),
            CommandKind::Enable { utf8 } => self.set.utf8 |= utf8 && condition == Condition::Ok,
            CommandKind::Fetch { .. } | CommandKind::Other => {}
        }
        None
    }

    #[inline(never)]
    fn begin_to_see(&mut self, start: &[u8]) {
        // Without white space in front: some servers pad.
        let untagged =
            start.trim_ascii_start().strip_prefix(b"*").unwrap_or_default().trim_ascii_start();
        let text = untagged.get(2..).unwrap_or_default().trim_ascii_start();
        let is_code = untagged.get(..2).is_some_and(|word| word.eq_ignore_ascii_case(b"OK"))
            && matches!(text, [b'[', b'U' | b'u' | b' ', ..]);
        self.seen = (untagged.first().is_some_and(u8::is_ascii_digit) || is_code).then(Vec::new);
    }

    #[inline(never)]
    fn see(&mut self, bytes: &[u8], is_complete: bool, out: &mut impl Actions<Session>) {
        let Some(seen) = &mut self.seen else { return };
        let room = MAX_SEEN.saturating_sub(seen.len());
        seen.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if !self.copies_fetches && is_fetch(seen) {
            self.seen = None;
        } else if is_complete {
            let seen = self.seen.take().unwrap_or_default();
            if data::is_exists(&seen) {
                self.outdate();
            }
            self.observed(ObservedEvent::Response(&seen), out);
        }
    }

    fn observed(&mut self, event: ObservedEvent<'_>, out: &mut impl Actions<Session>) {
        self.copies_fetches = true;
        out.push(SessionAction::Observed(event));
    }
}

/// The verb of a command, that which follows UID where there is one, and with that what comes after.
fn verb(line: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let mut words = line.trim_ascii_end().splitn(4, |byte| *byte == b' ').skip(1);
    let verb = words.next().unwrap_or_default();
    if !verb.eq_ignore_ascii_case(b"UID") {
        return (verb.to_vec(), None);
    }
    (words.next().unwrap_or_default().to_vec(), words.next())
}

/// The lowest UID of `n:*`, as a client asks for all that is new.
fn lowest_of_open_set(arguments: &[u8]) -> Option<u64> {
    let set = arguments.split(|byte| *byte == b' ').next()?;
    let (from, to) = std::str::from_utf8(set).ok()?.split_once(':')?;
    (to == "*").then(|| from.parse().ok()).flatten()
}

impl Session {
    /// The same session, which may be kept when its client is gone.
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
            .is_some_and(|keeping| keeping.in_flight.len() > idles || keeping.logout.is_some())
    }

    /// Settings that were changed in it.
    #[must_use]
    pub fn set(&self) -> ChangedState {
        self.keeping.as_ref().map(|keeping| keeping.set).unwrap_or_default()
    }

    /// Takes over upstream bytes that were read and not processed before the client was gone.
    pub fn keep_unread(&mut self, unread: &[u8]) {
        if let Some(keeping) = &mut self.keeping {
            keeping.rest.extend_from_slice(unread);
        }
    }

    /// Notes that the upstream has ended a command.
    #[inline]
    pub(super) fn keeping_ended(
        &mut self,
        tag: &[u8],
        condition: Condition,
        opening: Option<bool>,
        out: &mut impl Actions<Session>,
    ) {
        if self.keeping.is_some() {
            self.take_in_end(tag, condition, opening, out);
        }
    }

    #[inline(never)]
    fn take_in_end(
        &mut self,
        tag: &[u8],
        condition: Condition,
        opening: Option<bool>,
        out: &mut impl Actions<Session>,
    ) {
        let Some(keeping) = &mut self.keeping else { return };
        if let Some(from) = keeping.ended(tag, condition) {
            keeping.observed(ObservedEvent::Fetched { from }, out);
        }
        if opening.is_some() {
            keeping.observed(opened(&self.selection), out);
        }
    }

    /// The command under way went upstream as a whole.
    #[inline]
    pub(super) fn keeping_complete(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.end(&self.client.tag);
        }
    }

    /// A gathered command goes upstream as a whole.
    pub(super) fn keeping_replayed(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.replayed(&self.client.tag);
        }
    }

    /// A response begins to be handed on: it is copied if it may be about new mail.
    #[inline]
    pub(super) fn begin_to_see(&mut self, start: &[u8]) {
        if let Some(keeping) = &mut self.keeping {
            keeping.begin_to_see(start);
        }
    }

    /// More of such a response.
    #[inline]
    pub(super) fn see(
        &mut self,
        bytes: &[u8],
        is_complete: impl FnOnce() -> bool,
        out: &mut impl Actions<Session>,
    ) {
        if let Some(keeping) = &mut self.keeping {
            keeping.see(bytes, is_complete(), out);
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
