//! The rule by which Delta Chat selects the messages that it fetches where it accepts encrypted mail only (`force_encryption`, the
//! default of profiles made since core 2.50): `Content-Type: multipart/encrypted`, a Secure-Join field, or a bounce
//! (chatmail/core, `prefetch_should_download`). The first field of a name counts.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::borrow::Cow;

use mail_parser::{HeaderValue, MessageParser};

/// Text in the From field of a bounce, in lower case.
const BOUNCES: [&str; 2] = ["mailer-daemon", "mail-daemon"];

/// Reports if the app fetches a message with these header fields. In doubt it does: a header without its end may lack any
/// field.
#[must_use]
pub fn is_fetched(headers: &[u8]) -> bool {
    !is_complete(headers)
        || field(headers, "Secure-Join").is_some()
        || field(headers, "Content-Type").is_some_and(|value| is_encrypted(&value))
        || field(headers, "From").is_some_and(|value| is_bounce(&value))
}

/// The sender of a message that the app does not fetch, in lower case; `None` if it fetches it, or nobody sent it.
#[must_use]
pub fn sender_of_unfetched(headers: &[u8]) -> Option<String> {
    if is_fetched(headers) {
        return None;
    }
    let from = field(headers, "From")?;
    addresses(&from).into_iter().find_map(|(_, address)| address)
}

/// An empty line ends the header of a message, also where the server selects fields of it (RFC 9051 section 6.4.5).
fn is_complete(headers: &[u8]) -> bool {
    [b"\r\n\r\n".as_slice(), b"\n\n"].iter().any(|end| headers.ends_with(end)) || headers == b"\r\n"
}

/// The value of the first field with this name, unfolded.
fn field<'a>(headers: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let mut lines = headers.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let Some((found, value)) = line.split_at_checked(name.len()) else { continue };
        let value =
            value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()));
        let Some(value) = value else { continue };
        let mut unfolded = String::from_utf8_lossy(value.trim_ascii());
        while let Some(more) =
            lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t"))
        {
            let unfolded = unfolded.to_mut();
            unfolded.push(' ');
            unfolded.push_str(&String::from_utf8_lossy(more.trim_ascii()));
        }
        return Some(unfolded);
    }
    None
}

fn is_encrypted(content_type: &str) -> bool {
    let mime_type = content_type.split(';').next().unwrap_or_default();
    mime_type.trim().eq_ignore_ascii_case("multipart/encrypted")
}

fn is_bounce(from: &str) -> bool {
    let has = |text: &str| {
        let text = text.to_lowercase();
        BOUNCES.iter().any(|name| text.contains(name))
    };
    // A name may be an encoded word.
    has(from) || addresses(from).iter().any(|(name, _)| name.as_deref().is_some_and(has))
}

/// Names, and addresses in lower case.
fn addresses(from: &str) -> Vec<(Option<String>, Option<String>)> {
    let header = format!("From: {from}\r\n\r\n");
    let Some(message) = MessageParser::new().parse_headers(header.as_bytes()) else {
        return Vec::new();
    };
    let Some(HeaderValue::Address(found)) = message.header("From") else { return Vec::new() };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    found
        .iter()
        .map(|one| (owned(one.name.as_deref()), one.address.as_deref().map(str::to_lowercase)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Header fields, and if the core fetches the message: from the core's own tests and a core 2.65 against a scripted
    /// server.
    const CASES: [(&str, bool); 24] = [
        ("From: bob@example.org", false),
        ("From: bob@example.org\r\nContent-Type: text/plain; charset=utf-8", false),
        (
            "From: bob@example.org\r\nContent-Type: multipart/mixed; boundary=\"multipart/encrypted\"",
            false,
        ),
        (
            "From: bob@example.org\r\nContent-Type: multipart/signed; protocol=\"application/pgp-signature\"",
            false,
        ),
        (
            "From: bob@example.org\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data",
            false,
        ),
        ("From: bob@example.org\r\nContent-Type: multipart/encrypted", true),
        (
            "From: bob@example.org\r\nContent-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"",
            true,
        ),
        ("From: bob@example.org\r\nContent-Type: Multipart/ENCRYPTED;\r\n\tprotocol=x", true),
        ("From: bob@example.org\r\nContent-Type:\r\n multipart/encrypted ; protocol=x", true),
        ("From: bob@example.org\r\nContent-Type: multipart/encrypted2", false),
        ("From: bob@example.org\r\nX-Content-Type: multipart/encrypted", false),
        (
            "From: bob@example.org\r\nContent-Type: text/plain\r\nContent-Type: multipart/encrypted",
            false,
        ),
        ("From: bob@example.org\r\nChat-Version: 1.0", false),
        ("From: bob@example.org\r\nIn-Reply-To: <0a1b@localhost>\r\nChat-Version: 1.0", false),
        ("From: bob@example.org\r\nAutocrypt-Setup-Message: v1", false),
        ("From: bob@example.org\r\nSecure-Join: vc-request", true),
        ("From: bob@example.org\r\nsecure-join:", true),
        ("From: MAILER-DAEMON@mx.example.org (Mail Delivery System)", true),
        ("From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>", true),
        ("From: <mail-daemon@example.org>", true),
        ("From: \"Mailer-Daemon\" <bounce@example.org>", true),
        ("From: =?utf-8?q?MAILER=2DDAEMON?= <bounce@example.org>", true),
        ("From: postmaster@example.org\r\nContent-Type: multipart/report", false),
        ("Subject: mailer-daemon", false),
    ];

    #[test]
    fn messages_are_fetched_by_the_rule_of_the_core() {
        for (fields, expected) in CASES {
            assert_eq!(is_fetched(format!("{fields}\r\n\r\n").as_bytes()), expected, "{fields:?}");
        }
    }

    #[test]
    fn cut_headers_are_fetched_in_doubt() {
        assert!(is_fetched(b""));
        assert!(is_fetched(b"From: bob@example.org\r\nConte"));
        assert!(!is_fetched(b"\r\n"), "it has none of these fields");
    }

    #[test]
    fn senders_are_of_unfetched_messages_only() {
        let sender = |fields: &str| sender_of_unfetched(format!("{fields}\r\n\r\n").as_bytes());
        assert_eq!(sender("From: Bob <BOB@Example.org>").as_deref(), Some("bob@example.org"));
        assert_eq!(
            sender("From: Bob\r\n <bob@example.org>, eve@example.org").as_deref(),
            Some("bob@example.org")
        );
        assert_eq!(sender("From: bob@example.org\r\nContent-Type: multipart/encrypted"), None);
        assert_eq!(sender("Subject: from nobody"), None);
        assert_eq!(sender("From: Undisclosed"), None);
    }

    proptest! {
        /// Order, case, folding and other fields change nothing.
        #[test]
        fn rule_depends_on_three_fields_only(
            content_type in prop::option::of(prop::sample::select(&[
                "text/plain", "multipart/encrypted", "MULTIPART/encrypted; a=b", "multipart/encrypted;", "multipart/mixed",
            ][..])),
            secure_join in any::<bool>(),
            is_bounce in any::<bool>(),
            others in prop::collection::vec("[A-Z][a-z]{1,8}-X: [ -~]{0,40}", 0..4),
            is_folded in any::<bool>(),
            turn in 0..8usize,
        ) {
            let from = if is_bounce { "MAILER-daemon@example.org" } else { "bob@example.org" };
            let gap = if is_folded { "\r\n " } else { " " };
            let mut fields = others;
            fields.push(format!("From:{gap}{from}"));
            fields.extend(content_type.map(|value| format!("content-TYPE:{gap}{value}")));
            fields.extend(secure_join.then(|| format!("Secure-Join:{gap}vc-request")));
            let turn = turn % fields.len();
            fields.rotate_left(turn);
            let headers = format!("{}\r\n\r\n", fields.join("\r\n"));
            let is_encrypted = content_type.is_some_and(|value| {
                value.to_lowercase().split(';').next() == Some("multipart/encrypted")
            });
            prop_assert_eq!(is_fetched(headers.as_bytes()), is_encrypted || secure_join || is_bounce);
            prop_assert_eq!(sender_of_unfetched(headers.as_bytes()).is_some(), !is_fetched(headers.as_bytes()));
        }

        #[test]
        fn any_bytes_are_read(headers in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (is_fetched(&headers), sender_of_unfetched(&headers));
        }
    }
}
