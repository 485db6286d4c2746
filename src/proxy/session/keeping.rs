//! State that a session records in case it goes on without its client: outstanding responses, settings changed in it,
//! and new mail that its client sees. Only where sessions are kept (docs/keeping.md).

use std::collections::VecDeque;

use super::selection::Selection;
use super::{ClientState, Output, Session};
use crate::parser::command::Verb;
use crate::parser::data;
use crate::parser::response::Condition;
use crate::proxy::own_lines::{self, untagged};

/// Commands that may be under way upstream. With more of them it is not known any more what the session is about.
const MAX_IN_FLIGHT: usize = 64;

/// The longest command that is looked at.
const MAX_LINE: usize = 8 * 1024;

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

/// What is noted.
#[derive(Default)]
pub(super) struct DrainState {
    /// Commands that are complete and whose end has not come, oldest first.
    in_flight: VecDeque<CommandInFlight>,
    /// There were too many of them.
    lost_track: bool,
    /// What came of the lines of the command under way.
    line: Vec<u8>,
    /// What was set in the session.
    pub(super) set: ChangedState,
    /// The tag of a LOGOUT that waits for the ends of the commands before it.
    pub(super) logout: Option<Vec<u8>>,
    /// The client is gone, and the session is being brought to rest.
    settling: bool,
    /// What came of a response that is shown.
    seen: Option<Vec<u8>>,
    /// What the upstream said after the session was over for the client: less than is read at once.
    pub(super) rest: Vec<u8>,
}

/// A command that the upstream has to answer.
struct CommandInFlight {
    tag: Box<[u8]>,
    kind: CommandKind,
}

enum CommandKind {
    Fetch { from: Option<u64> },
    Enable { utf8: bool },
    Other,
}

/// What differs from a session that has just begun, apart from the mailbox that is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangedState {
    /// Mailbox names are UTF-8 (RFC 6855, RFC 9051), and no longer modified UTF-7.
    pub utf8: bool,
    /// NOTIFY was sent (RFC 5465).
    pub notify: bool,
    /// Something was sent that may outlast the mailbox: ENABLE, CONDSTORE, and whatever is not known.
    pub anything: bool,
}

/// How far a session has come to rest whose client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainStep {
    /// The upstream has to say more.
    Waiting,
    /// Nothing is under way: the next bytes may be a command.
    Settled,
    /// It cannot go on, for this reason.
    Lost(&'static str),
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
    /// How much is held, in bytes.
    pub(super) fn held(&self) -> usize {
        let tags = self.in_flight.iter().map(|command| command.tag.len());
        let seen = self.seen.as_ref().map_or(0, Vec::len);
        tags.chain([self.line.len(), seen, self.rest.len()]).fold(0, usize::saturating_add)
    }

    /// A command begins to go upstream; `start` is what came of it.
    #[inline(never)]
    pub(super) fn begin(&mut self, verb: Verb, start: &[u8], out: &mut impl Output) {
        self.line = Vec::new();
        self.go_on(start);
        match verb {
            Verb::Select | Verb::Examine => out.sees(ObservedEvent::Opening),
            Verb::Close | Verb::Unselect => out.sees(ObservedEvent::Closed),
            _ => {}
        }
    }

    /// Whether the command under way can be ended by anything.
    fn is_harmless(&self) -> bool {
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

    /// What the command means for the session.
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
    fn see(&mut self, bytes: &[u8], is_complete: bool, out: &mut impl Output) {
        let Some(seen) = &mut self.seen else { return };
        let room = MAX_SEEN.saturating_sub(seen.len());
        seen.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if !out.looks_for_mail() && is_fetch(seen) {
            self.seen = None;
        } else if is_complete {
            let seen = self.seen.take().unwrap_or_default();
            if data::is_exists(&seen) {
                self.outdate();
            }
            out.sees(ObservedEvent::Response(&seen));
        }
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

    /// Whether it may be kept.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.keeping.is_some()
    }

    /// Whether the client, which sends nothing more, still has to hear something: the end of a command other than IDLE.
    #[must_use]
    pub fn owes_answers(&self) -> bool {
        let idles = usize::from(self.is_in_idle());
        self.keeping
            .as_ref()
            .is_some_and(|keeping| keeping.in_flight.len() > idles || keeping.logout.is_some())
    }

    /// What was set in it.
    #[must_use]
    pub fn set(&self) -> ChangedState {
        self.keeping.as_ref().map(|keeping| keeping.set).unwrap_or_default()
    }

    /// `LOGOUT`: the client goes, the session stays.
    pub(super) fn answer_logout(&mut self, out: &mut impl Output) {
        let tag = self.client.tag.clone();
        if let Some(keeping) = &mut self.keeping {
            keeping.logout = Some(tag);
        }
        self.end_logout(out);
    }

    /// Answers a LOGOUT, once all is answered that came before it.
    #[inline]
    pub(super) fn end_logout(&mut self, out: &mut impl Output) {
        if self.is_logout_due() {
            self.say_goodbye(out);
        }
    }

    #[inline(never)]
    pub(super) fn say_goodbye(&mut self, out: &mut impl Output) {
        let Some(tag) = self.keeping.as_mut().and_then(|keeping| keeping.logout.take()) else {
            return;
        };
        self.server.said_bye = true;
        let bye = untagged(own_lines::LOGOUT);
        self.say(out, &[bye.as_bytes(), tag.as_slice(), b" OK LOGOUT completed\r\n"].concat());
        self.closed = true;
    }

    /// Whether a LOGOUT waits, and nothing else does.
    #[inline]
    pub(super) fn is_logout_due(&self) -> bool {
        let waits = self
            .keeping
            .as_ref()
            .is_some_and(|keeping| keeping.logout.is_some() && keeping.in_flight.is_empty());
        waits && self.has_nothing_to_say()
    }

    #[inline(never)]
    fn has_nothing_to_say(&self) -> bool {
        !self.is_within_response()
            && self.pending.is_empty()
            && self.requests.is_empty()
            && !self.closed
    }

    /// Takes over upstream bytes that were read and not processed before the client was gone.
    pub fn keep_unread(&mut self, unread: &[u8]) {
        if let Some(keeping) = &mut self.keeping {
            keeping.rest.extend_from_slice(unread);
        }
    }

    /// Brings a session to rest whose client is gone: sends what ends IDLE, or a command that does no harm, and
    /// says whether the upstream still has to answer. To be called at once, and again after each
    /// [`from_upstream`](Self::from_upstream).
    pub fn settle(&mut self, out: &mut impl Output) -> DrainStep {
        let said_bye = self.server.said_bye;
        let Some(keeping) = &mut self.keeping else {
            return DrainStep::Lost("its configuration keeps no sessions");
        };
        if !std::mem::replace(&mut keeping.settling, true) {
            // deltapush's own goodbye to the client is no word of the upstream's.
            self.server.said_bye &= !self.closed;
            self.closed = false;
            keeping.logout = None;
            let rest = std::mem::take(&mut keeping.rest);
            self.from_upstream(&rest, out);
            return self.settle(out);
        } else if said_bye {
            return DrainStep::Lost("the mail server is closing the session");
        }
        if keeping.lost_track {
            return DrainStep::Lost("too many commands were in flight");
        }
        match self.client.state {
            // Nothing of it went upstream.
            ClientState::Head | ClientState::Gathering | ClientState::Discarding => {
                self.client.held = Vec::new();
                self.client.cuts = Vec::new();
                self.client.state = ClientState::Head;
            }
            ClientState::Continuing => {
                out.to_upstream(b"DONE\r\n");
                self.client.held = Vec::new();
                self.client.state = ClientState::Head;
            }
            ClientState::Relaying => match self.end_command(out) {
                Ok(()) => {}
                Err(reason) => return DrainStep::Lost(reason),
            },
            ClientState::AwaitingAgreement(_)
            | ClientState::AwaitingLiteral(_)
            | ClientState::AwaitingContinuation
            | ClientState::Replaying => {}
        }
        let is_answered = self.keeping.as_ref().is_none_or(|keeping| keeping.in_flight.is_empty());
        let is_at_rest =
            self.client.state == ClientState::Head && is_answered && self.pending.is_empty();
        if is_at_rest && !self.is_within_response() {
            DrainStep::Settled
        } else {
            DrainStep::Waiting
        }
    }

    /// Ends a command of which a part went upstream, if that can do no harm: half a message is never appended, and half a set
    /// of numbers is another one.
    fn end_command(&mut self, out: &mut impl Output) -> Result<(), &'static str> {
        let left = usize::try_from(self.client.framer.left_of_literal()).unwrap_or(usize::MAX);
        let tag = self.client.tag.clone();
        let Some(keeping) =
            self.keeping.as_mut().filter(|keeping| keeping.is_harmless() && left <= MAX_LINE)
        else {
            return Err("the client disconnected in the middle of a command");
        };
        out.to_upstream(&[vec![b'x'; left], b"\r\n".to_vec()].concat());
        self.client.framer = crate::parser::framer::Framer::new();
        self.client.state = ClientState::Head;
        keeping.end(&tag);
        Ok(())
    }

    /// Notes that the upstream has ended a command.
    #[inline]
    pub(super) fn keeping_ended(
        &mut self,
        tag: &[u8],
        condition: Condition,
        opening: Option<bool>,
        out: &mut impl Output,
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
        out: &mut impl Output,
    ) {
        let Some(keeping) = &mut self.keeping else { return };
        if let Some(from) = keeping.ended(tag, condition) {
            out.sees(ObservedEvent::Fetched { from });
        }
        if opening.is_some() {
            out.sees(opened(&self.selection));
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
        out: &mut impl Output,
    ) {
        if let Some(keeping) = &mut self.keeping {
            keeping.see(bytes, is_complete(), out);
        }
    }
}

/// What stands open.
fn opened(selection: &Selection) -> ObservedEvent<'_> {
    selection.mailbox().map_or(ObservedEvent::Closed, ObservedEvent::Opened)
}

fn is_fetch(response: &[u8]) -> bool {
    let mut words = response.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.nth(2).is_some_and(|word| word.eq_ignore_ascii_case(b"FETCH"))
}
