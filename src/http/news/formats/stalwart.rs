//! The form of Stalwart's webhooks: a list of events. An event of a delivered message has the numbers of account and mailbox, and
//! the recipients of the delivery that it is part of, from the event that began it. These name the accounts: one that is not
//! served here has no device. There is a Message-ID and no UID.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::lenient::Atoms;
use super::{BodyProblem, MAX_NEWS};
use crate::push::server_news::{NewsHeaders, ServerNews};

/// The type of a delivered message. Junk has another one, and so have messages that a client stores.
const DELIVERED: &str = "message-ingest.ham";

/// The number of INBOX. Other mailboxes have no name that could be known from their number.
const INBOX: u64 = 0;

#[derive(Deserialize)]
struct Body {
    events: Events,
}

/// The news in the events, or that it is too much.
struct Events(Result<Vec<ServerNews>, BodyProblem>);

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type", default)]
    kind: Atoms,
    #[serde(default)]
    data: EventData,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventData {
    /// Recipients of the delivery.
    to: Atoms,
    /// Its sender (MAIL FROM).
    from: Atoms,
    mailbox_id: Atoms,
    message_id: Atoms,
}

pub(super) fn read(body: &[u8]) -> Result<Vec<ServerNews>, BodyProblem> {
    let Body { events } = serde_json::from_slice(body).map_err(|_| BodyProblem::Stalwart)?;
    events.0
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Collect::default())
    }
}

/// Collects news of the events one by one: a list of them could be a thousand times longer than what it tells.
#[derive(Default)]
struct Collect {
    news: Vec<ServerNews>,
    /// Recipient and Message-ID: each recipient's event lists all recipients.
    seen: HashSet<(String, String)>,
    is_too_much: bool,
}

impl Collect {
    fn add(&mut self, event: Event) {
        let EventData { to, from, mailbox_id, message_id } = event.data;
        let is_delivered = event.kind.texts.first().is_some_and(|kind| kind == DELIVERED);
        if !is_delivered || !mailbox_id.numbers.contains(&INBOX) {
            return;
        }
        let message = message_id.texts.into_iter().next().unwrap_or_default();
        // The null sender of reports (RFC 5321 section 4.5.5) is nobody's own address.
        let sender = from.texts.into_iter().next().filter(|from| from.contains('@'));
        for name in to.texts.into_iter().filter(|name| !name.is_empty()) {
            if !message.is_empty() && !self.seen.insert((name.to_lowercase(), message.clone())) {
                continue;
            }
            if self.news.len() >= MAX_NEWS {
                self.is_too_much = true;
                return;
            }
            let headers = sender.clone().map_or(NewsHeaders::Unknown, NewsHeaders::From);
            let message_id = message.clone();
            self.news.push(ServerNews { name, headers, message_id, ..ServerNews::default() });
        }
    }
}

impl<'de> Visitor<'de> for Collect {
    type Value = Events;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Events, A::Error> {
        while let Some(event) = list.next_element::<Event>()? {
            if event.kind.texts.is_empty() {
                return Err(A::Error::custom("no type"));
            }
            self.add(event);
        }
        Ok(Events(if self.is_too_much { Err(BodyProblem::TooMany) } else { Ok(self.news) }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn event(kind: &str, data: &str) -> String {
        format!(
            r#"{{"id":"1","createdAt":"2026-11-30T10:00:00Z","type":"{kind}","data":{{{data}}}}}"#
        )
    }

    fn delivered(to: &str, mailbox: u64, message: &str) -> String {
        let data = format!(
            r#""spanId":1,"accountId":5,"documentId":7,"mailboxId":[{mailbox}],"blobId":"ab","changeId":3,
            "messageId":"{message}","size":100,"elapsed":4,"queueId":2,"from":"bob@a.example","to":{to},"total":1"#
        );
        event(DELIVERED, &data)
    }

    fn names(events: &[String]) -> Vec<String> {
        let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
        read(body.as_bytes()).unwrap().into_iter().map(|news| news.name).collect()
    }

    #[test]
    fn each_recipient_is_told_once_of_a_message() {
        let both = r#"["alice@example.org","carol@example.org"]"#;
        let events = [
            delivered(both, 0, "1@a"),
            delivered(both, 0, "1@a"),
            delivered(r#""dan@a.example""#, 0, "1@a"),
        ];
        assert_eq!(names(&events), ["alice@example.org", "carol@example.org", "dan@a.example"]);
        let again = [delivered(both, 0, "1@a"), delivered(r#"["ALICE@example.org"]"#, 0, "2@a")];
        assert_eq!(names(&again).len(), 3);
        let body = format!(r#"{{"events":[{}]}}"#, events[0]);
        let news = read(body.as_bytes()).unwrap();
        assert!(news[0].headers == NewsHeaders::From("bob@a.example".into()));
        assert_eq!((news[0].mailbox.as_str(), news[0].uid), ("", None));
        assert_eq!(news[0].message_id, "1@a");
    }

    #[test]
    fn junk_other_mailboxes_and_other_events_tell_nothing() {
        let others = [
            delivered(r#"["alice@example.org"]"#, 4, "1@a"),
            event("message-ingest.spam", r#""to":["alice@example.org"],"mailboxId":[2]"#),
            event("message-ingest.imap-append", r#""accountId":5,"mailboxId":[0]"#),
            event("auth.success", r#""to":7,"mailboxId":{"a":[]},"messageId":null"#),
            r#"{"type":"server.startup"}"#.to_owned(),
        ];
        assert!(names(&others).is_empty());
    }

    #[test]
    fn body_without_types_or_with_too_many_messages_is_refused() {
        for body in
            [r#"{"events":7}"#, r#"{"events":[{}]}"#, r#"{"events":[7]}"#, r#"{"events":{}}"#]
        {
            assert_eq!(read(body.as_bytes()), Err(BodyProblem::Stalwart), "{body}");
        }
        let many = |count: usize| {
            let events: Vec<_> = (0..count)
                .map(|i| delivered(&format!(r#"["u{i}@a.example"]"#), 0, "1@a"))
                .collect();
            read(format!(r#"{{"events":[{}]}}"#, events.join(",")).as_bytes())
        };
        assert_eq!(many(MAX_NEWS).unwrap().len(), MAX_NEWS);
        assert_eq!(many(MAX_NEWS + 1), Err(BodyProblem::TooMany));
    }
}
