//! What a response tells a watcher: the few things that matter, out of what imap-proto understands.

use std::borrow::Cow;

use imap_proto::{AttributeValue, MailboxDatum, Response, ResponseCode, StatusAttribute};

use crate::parser::response::{self, Condition, Head, Status};

/// Something that a server said.
pub(in crate::push) enum Heard<'a> {
    /// `+`
    Continuation,
    /// A status response, tagged or not, and what its code says of the mailbox.
    Status(Status<'a>, Code),
    /// `* n EXISTS`
    Exists(u32),
    /// `* n EXPUNGE`
    Expunge,
    /// `* n FETCH`
    Fetch(Message<'a>),
    /// `* STATUS`: news of a mailbox that is not open.
    Mailbox { name: Cow<'a, str>, uid_validity: Option<u32>, uid_next: Option<u32> },
    /// Nothing that matters.
    Other,
}

/// A response code about a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::push) enum Code {
    UidValidity(u32),
    UidNext(u32),
    /// `NOTIFICATIONOVERFLOW` (RFC 5465 section 5.8): the server stops notifying.
    NotificationOverflow,
    None,
}

/// What a FETCH response says of a message.
#[derive(Default)]
pub(in crate::push) struct Message<'a> {
    pub(in crate::push) uid: Option<u32>,
    pub(in crate::push) flags: Vec<Cow<'a, str>>,
    /// `None` if the response is about something else, such as changed flags.
    pub(in crate::push) headers: Option<Cow<'a, [u8]>>,
    /// The response as a whole could not be understood, which may hide a new message.
    pub(in crate::push) unclear: bool,
}

/// Reads a whole response.
pub(in crate::push) fn hear(line: &[u8]) -> Heard<'_> {
    if matches!(response::head(line), Some(Head::Continuation | Head::TaggedContinuation { .. })) {
        return Heard::Continuation;
    }
    if let Some(status) = response::status(line) {
        return Heard::Status(status, code(&status));
    }
    match response::parse(line) {
        Some(Response::MailboxData(MailboxDatum::Exists(count))) => Heard::Exists(count),
        Some(Response::MailboxData(MailboxDatum::Status { mailbox, status })) => mailbox_status(mailbox, &status),
        Some(Response::Expunge(_)) => Heard::Expunge,
        Some(Response::Fetch(_, attributes)) => Heard::Fetch(message(attributes)),
        // What imap-proto does not understand may still be news: looking costs a round trip, not looking a message.
        None if is_fetch(line) => Heard::Fetch(Message { uid: uid_in(line), unclear: true, ..Message::default() }),
        _ => Heard::Other,
    }
}

fn code(status: &Status<'_>) -> Code {
    if status.condition != Condition::Ok {
        return Code::None;
    }
    if status.has_code("NOTIFICATIONOVERFLOW") {
        return Code::NotificationOverflow;
    }
    // Without the words for people: imap-proto stumbles over those that are not ASCII.
    let plain = [b"* OK [", status.code, b"] ok\r\n"].concat();
    let code = match plain.is_ascii().then(|| response::parse(&plain)).flatten() {
        Some(Response::Data { outcome, .. }) => outcome.code,
        _ => None,
    };
    match code {
        Some(ResponseCode::UidValidity(value)) => Code::UidValidity(value),
        Some(ResponseCode::UidNext(value)) => Code::UidNext(value),
        _ => Code::None,
    }
}

fn mailbox_status<'a>(name: Cow<'a, str>, status: &[StatusAttribute]) -> Heard<'a> {
    let (mut uid_validity, mut uid_next) = (None, None);
    for attribute in status {
        match attribute {
            StatusAttribute::UidValidity(value) => uid_validity = Some(*value),
            StatusAttribute::UidNext(value) => uid_next = Some(*value),
            _ => {}
        }
    }
    Heard::Mailbox { name, uid_validity, uid_next }
}

fn message(attributes: Vec<AttributeValue<'_>>) -> Message<'_> {
    let mut message = Message::default();
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(uid) => message.uid = Some(uid),
            AttributeValue::Flags(flags) => message.flags = flags,
            AttributeValue::BodySection { data, .. } => message.headers = Some(data.unwrap_or_default()),
            _ => {}
        }
    }
    message
}

fn is_fetch(line: &[u8]) -> bool {
    line.split(|byte| *byte == b' ').nth(2).is_some_and(|word| word.eq_ignore_ascii_case(b"FETCH"))
}

/// The UID in a FETCH response that is not understood as a whole.
fn uid_in(line: &[u8]) -> Option<u32> {
    let mut words = line.split(|byte| matches!(byte, b' ' | b'(' | b')' | b'\r'));
    words.find(|word| word.eq_ignore_ascii_case(b"UID"))?;
    std::str::from_utf8(words.next()?).ok()?.parse().ok()
}
