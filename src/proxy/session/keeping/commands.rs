//! The client's commands as far as a kept session needs them: those in flight, and their effect on the session.

use std::collections::VecDeque;

use super::MAX_LINE;
use crate::parser::response::Condition;

/// Limit of commands in flight. With more of them the state of the session is not known any more.
const MAX_IN_FLIGHT: usize = 64;

/// The commands of a session that may be kept.
#[derive(Default)]
pub(super) struct ClientCommands {
    /// Commands that are complete and whose end has not come, oldest first.
    in_flight: VecDeque<CommandInFlight>,
    /// There were too many of them.
    lost_track: bool,
    /// The line of the command in progress.
    line: Vec<u8>,
    /// Settings that were changed in the session.
    changed: ChangedState,
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

/// A FETCH that has succeeded.
pub(super) struct CompletedFetch {
    /// The lowest UID of a set that is open to the end.
    pub(super) from: Option<u64>,
}

/// Differences from a session right after its login, apart from the open mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangedState {
    /// Mailbox names are UTF-8 (RFC 6855, RFC 9051), and no longer modified UTF-7.
    pub utf8: bool,
    /// NOTIFY was sent (RFC 5465).
    pub notify: bool,
    /// Something was sent that may outlast the mailbox: ENABLE, CONDSTORE, and unknown commands.
    pub anything: bool,
}

/// Commands that change nothing, neither in the account nor in the session: one of them that the client could not complete may
/// be completed with any bytes.
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

impl ClientCommands {
    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        let tags = self.in_flight.iter().map(|command| command.tag.len());
        tags.chain([self.line.len()]).fold(0, usize::saturating_add)
    }

    /// Number of commands in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Reports if there were too many of them to know the state of the session.
    pub(super) fn lost_track(&self) -> bool {
        self.lost_track
    }

    /// Settings that were changed in the session.
    pub(super) fn changed(&self) -> ChangedState {
        self.changed
    }

    /// Begins a command, with the start of its line.
    pub(super) fn begin(&mut self, start: &[u8]) {
        self.line = Vec::new();
        self.extend(start);
    }

    /// Adds more of its lines.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.line.len() <= MAX_LINE {
            self.line.extend_from_slice(bytes);
        }
    }

    /// Reports if any bytes may end the command in progress without harm.
    pub(super) fn is_harmless(&self) -> bool {
        let (verb, _) = verb(&self.line);
        HARMLESS.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(&verb))
    }

    /// Completes the command in progress: it is in flight.
    pub(super) fn end(&mut self, tag: &[u8]) {
        let line = std::mem::take(&mut self.line);
        let kind = self.classify(&line);
        self.sent(tag, kind);
    }

    /// Records a command that deltapush has gathered and sent as a whole.
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
    fn classify(&mut self, line: &[u8]) -> CommandKind {
        let (verb, arguments) = verb(line);
        let is = |name: &str| name.as_bytes().eq_ignore_ascii_case(&verb);
        let upper = line.to_ascii_uppercase();
        let has = |word: &[u8]| memchr::memmem::find(&upper, word).is_some();
        let is_traceless =
            TRACELESS.iter().any(|name| is(name)) && !ENABLING.iter().any(|word| has(word));
        self.changed.anything |= !is_traceless || line.len() > MAX_LINE;
        self.changed.notify |= is("NOTIFY");
        match verb.as_slice() {
            _ if is("FETCH") => CommandKind::Fetch { from: arguments.and_then(lowest_of_open_set) },
            _ if is("ENABLE") => CommandKind::Enable { utf8: has(b"UTF8=") || has(b"IMAP4REV2") },
            _ => CommandKind::Other,
        }
    }

    /// Records that a message came: FETCHes in flight may not bring all that is new.
    pub(super) fn outdate_fetches(&mut self) {
        for command in &mut self.in_flight {
            if let CommandKind::Fetch { from } = &mut command.kind {
                *from = None;
            }
        }
    }

    /// Records that the upstream has ended the command with this tag.
    pub(super) fn ended(&mut self, tag: &[u8], condition: Condition) -> Option<CompletedFetch> {
        let index = self.in_flight.iter().position(|command| *command.tag == *tag)?;
        let ended = self.in_flight.remove(index)?;
        match ended.kind {
            CommandKind::Fetch { from } if condition == Condition::Ok => {
                return Some(CompletedFetch { from });
            }
            CommandKind::Enable { utf8 } => {
                self.changed.utf8 |= utf8 && condition == Condition::Ok;
            }
            CommandKind::Fetch { .. } | CommandKind::Other => {}
        }
        None
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
