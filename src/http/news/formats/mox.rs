//! The form of mox's webhook for incoming mail (package `webhook`, type `Incoming`). It names the recipient of the message and
//! its Message-ID, and no UID: mox numbers messages in its own way there.

use serde::Deserialize;

use super::BodyProblem;
use super::lenient::{Atoms, First};
use crate::push::server_news::{NewsHeaders, ServerNews};

/// Of the fields, those that count. The text of the message is among the others.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Incoming {
    #[serde(default)]
    from: First<Address>,
    #[serde(default, rename = "MessageID")]
    message_id: Atoms,
    meta: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    /// The address that the message was sent to.
    rcpt_to: String,
    #[serde(default)]
    mailbox_name: String,
}

pub(super) fn read(body: &[u8]) -> Result<Vec<ServerNews>, BodyProblem> {
    let Incoming { from, message_id, meta } =
        serde_json::from_slice(body).map_err(|_| BodyProblem::Mox)?;
    if meta.rcpt_to.is_empty() {
        return Err(BodyProblem::Mox);
    }
    let sender = from.0.filter(|from| !from.address.is_empty());
    Ok(vec![ServerNews {
        name: meta.rcpt_to,
        message_id: message_id.texts.into_iter().next().unwrap_or_default(),
        mailbox: meta.mailbox_name,
        headers: sender.map_or(NewsHeaders::Unknown, |from| NewsHeaders::From(from.address)),
        ..ServerNews::default()
    }])
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn recipient_is_told_of_the_sender_in_the_header() {
        let body = br#"{"Version":0,"From":[{"Name":"Bob","Address":"bob@a.example"},{"Name":"","Address":"c@a.example"}],
            "To":[{"Name":"","Address":"list@b.example"}],"CC":null,"Subject":"s","MessageID":"<1@a.example>","Text":"hi",
            "Structure":{"ContentType":"text/plain","Parts":[]},
            "Meta":{"MsgID":7,"MailFrom":"bounce@a.example","RcptTo":"alice@example.org","MailboxName":"Inbox","Automated":false}}"#;
        let expected = ServerNews {
            name: "alice@example.org".into(),
            mailbox: "Inbox".into(),
            message_id: "<1@a.example>".into(),
            headers: NewsHeaders::From("bob@a.example".into()),
            ..Default::default()
        };
        assert_eq!(read(body), Ok(vec![expected.clone()]));
        for from in ["null", "[]", "[{}]"] {
            let body = format!(
                r#"{{"From":{from},"Meta":{{"RcptTo":"alice@example.org","MailboxName":"Inbox"}}}}"#
            );
            let unknown = ServerNews {
                headers: NewsHeaders::Unknown,
                message_id: String::new(),
                ..expected.clone()
            };
            assert_eq!(read(body.as_bytes()), Ok(vec![unknown]), "{from}");
        }
    }

    #[test]
    fn outgoing_mail_is_no_news_and_a_message_without_recipient_is_refused() {
        let outgoing = br#"{"Version":0,"Event":"delivered","DSN":false,"QueueMsgID":7,"FromID":"","MessageID":"<1@a>"}"#;
        assert_eq!(read(outgoing), Ok(vec![]));
        for body in [r#"{"Meta":{}}"#, r#"{"Meta":{"RcptTo":""}}"#, r#"{"Meta":7}"#] {
            assert_eq!(read(body.as_bytes()), Err(BodyProblem::Mox), "{body}");
        }
    }
}
