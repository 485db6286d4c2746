//! The parts of a response that matter to a watcher.

use crate::parser::data::{self, Data, Fetch, MailboxStatus};
use crate::parser::response::{self, Condition, ResponseHead, Status};

/// A response, as a watcher reads it.
pub(in crate::push) enum Heard<'a> {
    /// `+`
    Continuation,
    /// A status response, tagged or not, and its code about the mailbox.
    Status(Status<'a>, MailboxCode),
    /// `* n EXISTS`; `None` if the number cannot be read.
    Exists(Option<u64>),
    /// `* n EXPUNGE`
    Expunge(Option<u64>),
    /// `* n FETCH`
    Fetch(Fetch<'a>),
    /// `* STATUS`: news of a mailbox that is not open.
    Mailbox(MailboxStatus<'a>),
    /// A response with a number that is not understood: it may be news.
    Unclear,
    /// Any other response.
    Other,
}

/// A response code about a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailboxCode {
    UidValidity(u64),
    UidNext(u64),
    /// `NOTIFICATIONOVERFLOW` (RFC 5465 section 5.8): the server stops notifying.
    NotificationOverflow,
    None,
}

/// Reads a whole response.
pub(in crate::push) fn parse_response(line: &[u8]) -> Heard<'_> {
    if matches!(
        response::head(line),
        Some(ResponseHead::Continuation | ResponseHead::TaggedContinuation { .. })
    ) {
        return Heard::Continuation;
    }
    match data::data(line) {
        Data::Exists(count) => return Heard::Exists(count),
        Data::Expunge(sequence) => return Heard::Expunge(sequence),
        Data::Fetch(fetch) => return Heard::Fetch(fetch),
        Data::Status(status) => return Heard::Mailbox(status),
        Data::Unclear => return Heard::Unclear,
        Data::Other => {}
    }
    match response::status(line) {
        Some(status) => Heard::Status(status, code(&status)),
        None => Heard::Other,
    }
}

/// The code about a mailbox in a whole status response.
pub(crate) fn mailbox_code(line: &[u8]) -> MailboxCode {
    response::status(line).map_or(MailboxCode::None, |status| code(&status))
}

fn code(status: &Status<'_>) -> MailboxCode {
    if status.condition != Condition::Ok {
        return MailboxCode::None;
    }
    let mut words = status.code.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let mut argument = || words.next().unwrap_or_default();
    match name {
        // A value that is no number is like none: only whether it changes matters.
        _ if is("UIDVALIDITY") => {
            MailboxCode::UidValidity(data::identifier(argument()).unwrap_or_default())
        }
        _ if is("UIDNEXT") => {
            data::number(argument()).map_or(MailboxCode::None, MailboxCode::UidNext)
        }
        _ if is("NOTIFICATIONOVERFLOW") => MailboxCode::NotificationOverflow,
        _ => MailboxCode::None,
    }
}
