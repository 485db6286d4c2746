//! deltapush's own form: `{"name": "alice@example.org", "uid": 7}`.

use std::num::NonZeroU64;

use serde::Deserialize;

use super::{BodyProblem, sender};
use crate::push::server_news::{NewsHeaders, ServerNews};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    name: String,
    #[serde(default)]
    mailbox: String,
    uid: Option<NonZeroU64>,
    uid_validity: Option<NonZeroU64>,
    from: Option<String>,
    /// The header of the message, raw; has precedence over `from`.
    headers: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
}

pub(super) fn read(body: &[u8]) -> Result<Vec<ServerNews>, BodyProblem> {
    let own: Own = serde_json::from_slice(body).map_err(|_| BodyProblem::UnknownForm)?;
    if own.name.is_empty() {
        return Err(BodyProblem::UnknownForm);
    }
    let headers = match (own.headers, own.from) {
        (Some(headers), _) => NewsHeaders::All(headers.into_bytes()),
        (None, Some(from)) => sender(&from),
        (None, None) => NewsHeaders::Unknown,
    };
    Ok(vec![ServerNews {
        name: own.name,
        mailbox: own.mailbox,
        uid: own.uid.map(NonZeroU64::get),
        uid_validity: own.uid_validity.map(NonZeroU64::get),
        flags: own.flags,
        headers,
        ..ServerNews::default()
    }])
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn name_is_enough_and_all_else_is_taken() {
        let alone = ServerNews { name: "alice@example.org".into(), ..Default::default() };
        assert_eq!(read(br#"{"name": "alice@example.org"}"#), Ok(vec![alone.clone()]));
        let body = br#"{"name": "alice@example.org", "mailbox": "Fam\u00edlie", "uid": 7, "uid_validity": 4294967295,
            "from": "x@a.example", "headers": "From: a@b.example\r\nSubject: hi\r\n", "flags": ["\\Seen"]}"#;
        let all = ServerNews {
            mailbox: "Famílie".into(),
            uid: Some(7),
            uid_validity: Some(4_294_967_295),
            flags: vec!["\\Seen".into()],
            headers: NewsHeaders::All(b"From: a@b.example\r\nSubject: hi\r\n".into()),
            ..alone.clone()
        };
        assert_eq!(read(body), Ok(vec![all]));
        let from = ServerNews { headers: NewsHeaders::From("a@b.example".into()), ..alone };
        assert_eq!(
            read(br#"{"name": "alice@example.org", "from": "A <a@b.example>"}"#),
            Ok(vec![from])
        );
    }

    #[test]
    fn mistyped_key_or_value_is_refused() {
        for body in [
            r#"{"name": ""}"#,
            r#"{"name": 7}"#,
            r#"{"name": "a", "uidvalidity": 7}"#,
            r#"{"name": "a", "uid": 0}"#,
            r#"{"name": "a", "uid": -1}"#,
            r#"{"name": "a", "uid": 18446744073709551616}"#,
            r#"{"name": "a", "name": "b"}"#,
            r#"{"name": "a", "flags": "\\Seen"}"#,
        ] {
            assert_eq!(read(body.as_bytes()), Err(BodyProblem::UnknownForm), "{body}");
        }
    }
}
