//! The form of Dovecot's OX push driver (`push_notification_driver = ox:…`), which sends one message in each request.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::{BodyProblem, sender};
use crate::push::server_news::{NewsHeaders, ServerNews};

/// The event of a new message. The driver has no other so far.
const NEW: &str = "messageNew";

#[derive(Deserialize)]
struct Event {
    event: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Message {
    user: String,
    /// The mailbox, in UTF-8.
    folder: String,
    imap_uid: NonZeroU32,
    imap_uidvalidity: NonZeroU32,
    /// The From field, decoded.
    from: Option<String>,
}

pub(super) fn read(body: &[u8]) -> Result<Vec<ServerNews>, BodyProblem> {
    let wrong = |_| BodyProblem::Dovecot;
    let Event { event } = serde_json::from_slice(body).map_err(wrong)?;
    if !event.eq_ignore_ascii_case(NEW) {
        return Ok(Vec::new());
    }
    let message: Message = serde_json::from_slice(body).map_err(wrong)?;
    if message.user.is_empty() {
        return Err(BodyProblem::Dovecot);
    }
    Ok(vec![ServerNews {
        name: message.user,
        mailbox: message.folder,
        uid: Some(message.imap_uid.get().into()),
        uid_validity: Some(message.imap_uidvalidity.get().into()),
        flags: Vec::new(),
        headers: message.from.as_deref().map_or(NewsHeaders::Unknown, sender),
        ..ServerNews::default()
    }])
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn new_message_is_news_and_other_events_are_not() {
        let body = br#"{"user":"alice@example.org","event":"messageNew","folder":"INBOX","imap-uidvalidity":1476876343,
            "imap-uid":9,"from":"Bob <bob@a.example>","subject":"s","snippet":"\"x\"","unseen":3}"#;
        let expected = ServerNews {
            name: "alice@example.org".into(),
            mailbox: "INBOX".into(),
            uid: Some(9),
            uid_validity: Some(1_476_876_343),
            flags: vec![],
            headers: NewsHeaders::From("bob@a.example".into()),
            ..ServerNews::default()
        };
        assert_eq!(read(body), Ok(vec![expected]));
        assert_eq!(read(br#"{"user":"a","event":"messageRead","folder":"INBOX"}"#), Ok(vec![]));
    }

    #[test]
    fn message_without_its_uid_is_refused() {
        for body in [
            r#"{"event":"messageNew"}"#,
            r#"{"event":7}"#,
            r#"{"user":"","event":"messageNew","folder":"INBOX","imap-uidvalidity":1,"imap-uid":9}"#,
            r#"{"user":"a","event":"messageNew","folder":"INBOX","imap-uidvalidity":1}"#,
            r#"{"user":"a","event":"messageNew","folder":"INBOX","imap-uidvalidity":1,"imap-uid":0}"#,
        ] {
            assert_eq!(read(body.as_bytes()), Err(BodyProblem::Dovecot), "{body}");
        }
    }
}
