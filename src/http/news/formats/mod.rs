//! The forms in which mail servers tell of new messages: deltapush's own, and those that servers have anyway.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod dovecot;
mod lenient;
mod mox;
mod own;
mod stalwart;

use mail_parser::MessageParser;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::push::server_news::{NewsHeaders, ServerNews};

/// The most messages that one body may tell of. Stalwart sends what has come within a second, and repeats a refused body, with
/// what has come since, until it discards it.
pub const MAX_NEWS: usize = 1000;

/// The reason for which a body is refused. No text repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// It is no JSON, or no object.
    #[error("the body is no JSON object")]
    NotAnObject,
    /// It has none of the known forms.
    #[error(
        "the body needs the key `name`, and may have `mailbox`, `uid`, `uid_validity`, `from`, `headers` (text) and `flags`; \
         or it is one of Dovecot's OX driver, Stalwart or mox"
    )]
    UnknownForm,
    /// It has the form of Dovecot's OX push driver, but not its values.
    #[error(
        "a body of Dovecot's OX driver needs `user`, `folder`, `imap-uid` and `imap-uidvalidity`"
    )]
    Dovecot,
    /// It has the form of Stalwart's webhooks, but not its values.
    #[error("a body of Stalwart needs `events`, each with `type` and `data`")]
    Stalwart,
    /// It has the form of mox's webhooks, but not its values.
    #[error("a body of mox needs `Meta` with `RcptTo`")]
    Mox,
    /// It tells of more than [`MAX_NEWS`] messages.
    #[error("the body tells of more than {MAX_NEWS} messages")]
    TooMany,
}

/// The keys by which the forms differ.
#[derive(Deserialize)]
struct Shape {
    events: Option<IgnoredAny>,
    event: Option<IgnoredAny>,
    #[serde(rename = "Meta")]
    meta: Option<IgnoredAny>,
    /// Only mox's webhooks for outgoing mail have it.
    #[serde(rename = "QueueMsgID")]
    queued: Option<IgnoredAny>,
}

/// Reads the news in a body, whatever its form. None for events of other kinds, which concern nobody here.
///
/// # Errors
/// [`BodyProblem`]: it is not acted on at all.
pub fn read(body: &[u8]) -> Result<Vec<ServerNews>, BodyProblem> {
    // Serde reads a list as an object without names.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(BodyProblem::NotAnObject);
    }
    let shape: Shape = serde_json::from_slice(body).map_err(|_| BodyProblem::NotAnObject)?;
    match shape {
        Shape { events: Some(_), .. } => stalwart::read(body),
        Shape { event: Some(_), queued: None, .. } => dovecot::read(body),
        Shape { queued: Some(_), .. } => Ok(Vec::new()),
        Shape { meta: Some(_), .. } => mox::read(body),
        _ => own::read(body),
    }
}

/// The sender by the text of a From field: an address, alone or with a name.
fn sender(from: &str) -> NewsHeaders {
    let line: String = from.chars().filter(|c| !c.is_control()).collect();
    let field = format!("From: {line}\r\n\r\n");
    let message = MessageParser::new().with_address_headers().parse_headers(field.as_bytes());
    let address = message.as_ref().and_then(|message| message.from()?.first()?.address());
    address.map_or(NewsHeaders::Unknown, |address| NewsHeaders::From(address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_that_is_no_object_or_of_no_form_is_refused() {
        for body in
            ["", " ", "[]", "\"a\"", "7", "{", "{\"name\": \"a\"", "null", "{}x", "\u{feff}{}"]
        {
            assert_eq!(read(body.as_bytes()), Err(BodyProblem::NotAnObject), "{body}");
        }
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(read(deep.as_bytes()), Err(BodyProblem::NotAnObject));
        assert_eq!(read(b"\xff"), Err(BodyProblem::NotAnObject));
        assert_eq!(read(b"{}"), Err(BodyProblem::UnknownForm));
        assert_eq!(read(b"{\"user\": \"alice\"}"), Err(BodyProblem::UnknownForm));
    }

    #[test]
    fn sender_is_the_address_of_a_field() {
        for (from, address) in [
            ("alice@example.org", "alice@example.org"),
            ("Alice <alice@example.org>", "alice@example.org"),
            ("\"Doe, J\" <j@a.example>, b@a.example", "j@a.example"),
            ("Alice\r\nFrom: <a@a.example>", "a@a.example"),
        ] {
            assert!(sender(from) == NewsHeaders::From(address.into()), "{from}");
        }
        assert!(sender("") == NewsHeaders::Unknown);
    }
}
