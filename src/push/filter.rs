//! The push filter: decides from a message's flags and some of its headers whether it is worth a push. A pure function.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use mail_parser::{HeaderValue, Message, MessageParser};

use super::encrypted_only;
use crate::policy::Messages;

/// The decision about waking the account's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushDecision {
    /// Wake them.
    Push,
    /// Leave them alone.
    Skip(SkipReason),
}

/// The reason for which a message is not pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// It has the flag `\Seen`: some device has shown it.
    Seen,
    /// It has the flag `\Deleted`.
    Deleted,
    /// It has the keyword `$Junk` (RFC 8621 registers it): a filter sorted it out.
    Junk,
    /// `Auto-Submitted: auto-replied` or `auto-generated` (RFC 3834 section 5): a vacation reply, a bot, a receipt.
    AutoSubmitted,
    /// The account itself is the sender: a copy of what another device has sent.
    OwnMail,
    /// It is no chat message, and only those are wanted.
    NotChat,
    /// It is not encrypted, and the account's apps fetch encrypted messages only.
    NotEncrypted,
}

impl SkipReason {
    /// In words, for a log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "already seen",
            Self::Deleted => "deleted",
            Self::Junk => "junk",
            Self::AutoSubmitted => "sent automatically",
            Self::OwnMail => "sent by the account itself",
            Self::NotChat => "no chat message",
            Self::NotEncrypted => "not encrypted: the app would not fetch it",
        }
    }
}

impl PushDecision {
    /// The reason for no push, in words; `None` if it is pushed.
    #[must_use]
    pub fn skipped(self) -> Option<&'static str> {
        match self {
            Self::Push => None,
            Self::Skip(reason) => Some(reason.as_str()),
        }
    }
}

impl fmt::Display for PushDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push => f.write_str("push"),
            Self::Skip(reason) => write!(f, "no push: {}", reason.as_str()),
        }
    }
}

/// The push filter of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushFilter {
    /// The account's own addresses.
    pub addresses: Vec<String>,
    /// Messages that wake a device.
    pub messages: Messages,
    /// With [`Messages::Auto`]: all the account's apps are known to fetch encrypted messages only.
    pub encrypted_only: bool,
}

/// Flags that rule a message out.
const FLAGS: [(&str, SkipReason); 3] =
    [("\\Seen", SkipReason::Seen), ("\\Deleted", SkipReason::Deleted), ("$Junk", SkipReason::Junk)];

/// Header fields that only chat messages have (chatmail/core).
const CHAT_FIELDS: [&str; 3] = ["Chat-Version", "Secure-Join", "Autocrypt-Setup-Message"];

impl PushFilter {
    /// The header fields that are read, as they stand in a FETCH.
    #[must_use]
    pub fn header_fields(&self) -> &'static str {
        match self.messages {
            Messages::All => "FROM AUTO-SUBMITTED MESSAGE-ID",
            // Also while all are wanted: that may change in the middle of a session.
            Messages::Auto | Messages::Encrypted => {
                "FROM AUTO-SUBMITTED MESSAGE-ID CONTENT-TYPE SECURE-JOIN"
            }
            Messages::Chat => {
                "FROM AUTO-SUBMITTED MESSAGE-ID CHAT-VERSION SECURE-JOIN AUTOCRYPT-SETUP-MESSAGE CONTENT-TYPE IN-REPLY-TO \
                 REFERENCES"
            }
        }
    }

    /// Judges a message whose headers are not known by its `flags`: they may rule it out, otherwise it is a push.
    #[must_use]
    pub fn by_flags<'a>(&self, flags: impl Iterator<Item = &'a str>) -> PushDecision {
        ruled_out(flags).map_or(PushDecision::Push, PushDecision::Skip)
    }

    /// Judges a message by its `flags` and its `headers` (raw, as fetched). In doubt it is a push: one too many costs a little
    /// battery, one too few a message.
    #[must_use]
    pub fn verdict<'a>(
        &self,
        flags: impl Iterator<Item = &'a str>,
        headers: &[u8],
    ) -> PushDecision {
        if let Some(reason) = ruled_out(flags) {
            return PushDecision::Skip(reason);
        }
        let Some(message) = MessageParser::new().parse_headers(headers) else {
            return PushDecision::Push;
        };
        if message.header_raw("Auto-Submitted").is_some_and(is_automatic) {
            return PushDecision::Skip(SkipReason::AutoSubmitted);
        }
        if sender(&message).is_some_and(|sender| self.is_own(sender)) {
            return PushDecision::Skip(SkipReason::OwnMail);
        }
        match self.messages {
            Messages::Chat if !is_chat(&message) => PushDecision::Skip(SkipReason::NotChat),
            _ if self.wants_encrypted_only() && !encrypted_only::is_fetched(headers) => {
                PushDecision::Skip(SkipReason::NotEncrypted)
            }
            _ => PushDecision::Push,
        }
    }

    /// Reports if `address` is one of the account's own.
    #[must_use]
    pub fn is_own(&self, address: &str) -> bool {
        self.addresses.iter().any(|own| own.eq_ignore_ascii_case(address))
    }

    /// Reports if only messages are pushed that are fetched by an app which accepts encrypted mail only.
    #[must_use]
    pub fn wants_encrypted_only(&self) -> bool {
        self.messages == Messages::Encrypted
            || self.messages == Messages::Auto && self.encrypted_only
    }
}

/// The identifier of a message, a hash of its Message-ID; `None` without one.
#[must_use]
pub fn message_id(headers: &[u8]) -> Option<u64> {
    let message = MessageParser::new().parse_headers(headers)?;
    message_id_alone(message.message_id()?)
}

/// The same identifier of a Message-ID alone, with or without its angle brackets.
#[must_use]
pub fn message_id_alone(id: &str) -> Option<u64> {
    let id = id.trim().trim_start_matches('<').trim_end_matches('>');
    if id.is_empty() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    Some(hasher.finish())
}

/// Why flags rule a message out, if they do.
fn ruled_out<'a>(flags: impl Iterator<Item = &'a str>) -> Option<SkipReason> {
    let reason = |flag: &str| {
        FLAGS.iter().find(|(name, _)| name.eq_ignore_ascii_case(flag)).map(|(_, reason)| *reason)
    };
    flags.filter_map(reason).next()
}

/// Reports if the value of an Auto-Submitted field is replied or generated; `no` and unknown values are neither. Parameters
/// may follow a semicolon, comments are in parentheses.
fn is_automatic(value: &str) -> bool {
    let keyword = value.split([';', '(']).next().unwrap_or_default().trim();
    keyword.eq_ignore_ascii_case("auto-replied") || keyword.eq_ignore_ascii_case("auto-generated")
}

fn sender<'a>(message: &'a Message<'_>) -> Option<&'a str> {
    match message.header("From") {
        Some(HeaderValue::Address(from)) => from.first()?.address.as_deref(),
        _ => None,
    }
}

/// Reports if Delta Chat would show the message in a chat by itself: a message of a chat client, an encrypted one (whose
/// headers are inside), or an answer to such.
fn is_chat(message: &Message<'_>) -> bool {
    let has_field = |name: &str| message.header_raw(name).is_some();
    let is_encrypted = || {
        let content_type = message
            .header_raw("Content-Type")
            .unwrap_or_default()
            .trim_start()
            .to_ascii_lowercase();
        content_type.starts_with("multipart/encrypted")
    };
    let answers_chat = || {
        ["In-Reply-To", "References"]
            .iter()
            .filter_map(|name| message.header_raw(*name))
            .any(|ids| ids.split_ascii_whitespace().any(is_chat_message_id))
    };
    CHAT_FIELDS.into_iter().any(has_field) || is_encrypted() || answers_chat()
}

/// Reports if chatmail/core made this Message-ID (create_outgoing_rfc724_mid): `<UUID@localhost>`, in old cores `<Mr.…>` or
/// `<Gr.…>`.
fn is_chat_message_id(id: &str) -> bool {
    let id = id.trim_matches(['<', '>']);
    id.ends_with("@localhost") || id.starts_with("Mr.") || id.starts_with("Gr.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(messages: Messages) -> PushFilter {
        let addresses = vec!["alice@example.org".into(), "al@example.net".into()];
        PushFilter { addresses, messages, encrypted_only: false }
    }

    fn judged(flags: &[&str], headers: &str) -> PushDecision {
        judge(Messages::All).verdict(flags.iter().copied(), headers.as_bytes())
    }

    #[test]
    fn each_verdict_has_a_counter_of_its_own() {
        use SkipReason::{AutoSubmitted, Deleted, Junk, NotChat, NotEncrypted, OwnMail, Seen};
        let reasons = [Seen, Deleted, Junk, AutoSubmitted, OwnMail, NotChat, NotEncrypted]
            .map(PushDecision::Skip);
        let words: Vec<_> =
            std::iter::once(PushDecision::Push).chain(reasons).map(PushDecision::skipped).collect();
        assert_eq!(words, crate::telemetry::metrics::VERDICTS.map(|(words, _)| words));
    }

    #[test]
    fn messages_that_wake_a_device_and_those_that_do_not() {
        use SkipReason::{AutoSubmitted, Deleted, Junk, OwnMail, Seen};
        let cases: [(&[&str], &str, PushDecision); 19] = [
            (&[], "From: bob@example.org\r\n\r\n", PushDecision::Push),
            (&["\\Recent", "$x", "$NotJunk"], "From: bob@example.org\r\n\r\n", PushDecision::Push),
            (&["\\seen"], "From: bob@example.org\r\n\r\n", PushDecision::Skip(Seen)),
            (
                &["\\Recent", "\\Deleted"],
                "From: bob@example.org\r\n\r\n",
                PushDecision::Skip(Deleted),
            ),
            (&["$JUNK"], "From: bob@example.org\r\n\r\n", PushDecision::Skip(Junk)),
            (&[], "From: Alice <ALICE@example.org>\r\n\r\n", PushDecision::Skip(OwnMail)),
            (&[], "From: al@example.net\r\n\r\n", PushDecision::Skip(OwnMail)),
            (
                &[],
                "From: =?utf-8?q?Al=C3=AD?=\r\n <alice@example.org>\r\n\r\n",
                PushDecision::Skip(OwnMail),
            ),
            (&[], "From: alice@example.org.evil\r\n\r\n", PushDecision::Push),
            (&[], "From: \"alice@example.org\" <bob@example.org>\r\n\r\n", PushDecision::Push),
            (
                &[],
                "From: bob@example.org\r\nAuto-Submitted: auto-replied\r\n\r\n",
                PushDecision::Skip(AutoSubmitted),
            ),
            (
                &[],
                "auto-submitted:\r\n Auto-Generated; x=y\r\n\r\n",
                PushDecision::Skip(AutoSubmitted),
            ),
            (
                &[],
                "Auto-Submitted: auto-replied (vacation)\r\n\r\n",
                PushDecision::Skip(AutoSubmitted),
            ),
            (&[], "Auto-Submitted: no\r\nFrom: b@c\r\n\r\n", PushDecision::Push),
            (&[], "Auto-Submitted: auto-notified\r\n\r\n", PushDecision::Push),
            (&[], "X-Auto-Submitted: auto-replied\r\n\r\n", PushDecision::Push),
            (&[], "", PushDecision::Push),
            (&[], "\r\n", PushDecision::Push),
            (&[], "From\0: \u{fffd}\r\n\r\n", PushDecision::Push),
        ];
        for (flags, headers, expected) in cases {
            assert_eq!(judged(flags, headers), expected, "{flags:?} {headers:?}");
        }
        assert_eq!(
            PushFilter::default().verdict([].into_iter(), b"From: alice\r\n\r\n"),
            PushDecision::Push
        );
    }

    #[test]
    fn chat_messages_are_told_from_others_where_only_they_are_wanted() {
        let cases = [
            ("From: b@c\r\n\r\n", false),
            ("From: b@c\r\nChat-Version: 1.0\r\n\r\n", true),
            ("Secure-Join: vc-request\r\n\r\n", true),
            ("Autocrypt-Setup-Message: v1\r\n\r\n", true),
            (
                "Content-Type: Multipart/Encrypted;\r\n protocol=\"application/pgp-encrypted\"\r\n\r\n",
                true,
            ),
            ("Content-Type: multipart/mixed\r\n\r\n", false),
            ("In-Reply-To: <0a1b@localhost>\r\n\r\n", true),
            ("References: <x@y>\r\n <Mr.abc.def@example.org>\r\n\r\n", true),
            ("In-Reply-To: <x@example.org>\r\n\r\n", false),
        ];
        for (headers, is_chat) in cases {
            let expected =
                if is_chat { PushDecision::Push } else { PushDecision::Skip(SkipReason::NotChat) };
            assert_eq!(
                judge(Messages::Chat).verdict([].into_iter(), headers.as_bytes()),
                expected,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn unencrypted_messages_wake_nobody_once_all_apps_are_known_to_leave_them() {
        let plain = b"From: bob@example.org\r\nChat-Version: 1.0\r\n\r\n".as_slice();
        let encrypted =
            b"From: bob@example.org\r\nContent-Type: multipart/encrypted\r\n\r\n".as_slice();
        let skipped = PushDecision::Skip(SkipReason::NotEncrypted);
        for (messages, encrypted_only, expected) in [
            (Messages::Auto, false, PushDecision::Push),
            (Messages::Auto, true, skipped),
            (Messages::Encrypted, false, skipped),
            (Messages::All, true, PushDecision::Push),
            (Messages::Chat, true, PushDecision::Push),
        ] {
            let judge = PushFilter { encrypted_only, ..judge(messages) };
            assert_eq!(
                judge.verdict([].into_iter(), plain),
                expected,
                "{messages:?} {encrypted_only}"
            );
            assert_eq!(
                judge.verdict([].into_iter(), encrypted),
                PushDecision::Push,
                "{messages:?} {encrypted_only}"
            );
        }
    }

    #[test]
    fn messages_are_told_apart_by_their_ids() {
        let id = |headers: &str| message_id(headers.as_bytes());
        assert_eq!(
            id("Message-ID: <a@b>\r\n\r\n"),
            id("From: x@y\r\nmessage-id:\r\n <a@b>\r\n\r\n")
        );
        assert_ne!(id("Message-ID: <a@b>\r\n\r\n"), id("Message-ID: <a@c>\r\n\r\n"));
        assert_eq!(
            (id("From: x@y\r\n\r\n"), id("Message-ID:\r\n\r\n"), id("")),
            (None, None, None)
        );
        for alone in ["<a@b>", "a@b", " <a@b>\r\n"] {
            assert_eq!(message_id_alone(alone), id("Message-ID: <a@b>\r\n\r\n"));
        }
        assert_eq!((message_id_alone("<>"), message_id_alone("")), (None, None));
    }
}
