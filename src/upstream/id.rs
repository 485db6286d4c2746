//! The ID command to an upstream (RFC 2971): the client's own fields, and deltapush's name. Never an empty list, which
//! some servers refuse.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::borrow::Cow;

use crate::parser::id::{Field, MAX_FIELDS, MAX_VALUE};
use crate::parser::quote::is_quotable;

/// The field in which deltapush says that it stands between the two.
const VIA: &[u8] = b"x-via";

/// deltapush and its version.
const DELTAPUSH: &str = concat!("deltapush ", env!("CARGO_PKG_VERSION"));

/// Prefixes of the fields by which a proxy tells a Dovecot that trusts it for whom it speaks. From a client they would be a
/// lie that is believed, because deltapush may be trusted.
const OF_PROXIES: [&[u8]; 5] =
    [b"x-originating-", b"x-connected-", b"x-proxy-", b"x-session-", b"x-forward-"];

/// The fields that an upstream gets for what a client said: its own, without those that only a proxy may send, and
/// deltapush's name. For a client that said nothing, those of deltapush.
#[must_use]
pub fn with_own_name(client: &[Field]) -> Vec<Field> {
    let mut fields: Vec<Field> =
        client.iter().filter(|(name, _)| !is_of_proxies(name)).cloned().collect();
    if fields.is_empty() {
        return own();
    }
    let mut via = DELTAPUSH.as_bytes().to_vec();
    // Another proxy came first. A field may stand there once only.
    if let Some((_, Some(before))) = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(VIA))
        && before.len().saturating_add(via.len()).saturating_add(2) <= MAX_VALUE
    {
        via = [before, b", ".as_slice(), &via].concat();
    }
    fields.retain(|(name, _)| !name.eq_ignore_ascii_case(VIA));
    fields.truncate(MAX_FIELDS.saturating_sub(1));
    fields.push((VIA.to_vec(), Some(via)));
    fields
}

/// deltapush's identification of itself for its own sessions.
#[must_use]
pub fn own() -> Vec<Field> {
    let field =
        |name: &str, value: &str| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    vec![field("name", "deltapush"), field("version", env!("CARGO_PKG_VERSION"))]
}

fn is_of_proxies(name: &[u8]) -> bool {
    OF_PROXIES
        .iter()
        .any(|start| name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)))
}

/// Reports if a command may have a field that only a proxy may send.
#[must_use]
pub fn may_speak_for_others(command: &[u8]) -> bool {
    (0..command.len()).any(|start| command.get(start..).is_some_and(is_of_proxies))
}

/// The identification of a login: the fields, and the times at which they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The client's ID before its login; `None` if it sent none, and may send it after.
    pub client: Option<Vec<Field>>,
    /// Further fields for before the login: what a server that trusts deltapush learns of the client's connection.
    pub extra: Vec<Field>,
}

impl Introduction {
    /// The fields for before the login; `None` if nothing is to be said then.
    #[must_use]
    pub fn before_login(&self) -> Option<Vec<Field>> {
        if self.client.is_none() && self.extra.is_empty() {
            return None;
        }
        let mut fields = with_own_name(self.client.as_deref().unwrap_or_default());
        // Fields that the server relies on take precedence over the client's. deltapush's name stands last.
        let room = MAX_FIELDS.saturating_sub(self.extra.len()).max(1);
        let from = fields.len().saturating_sub(room);
        fields.drain(..from);
        fields.extend_from_slice(&self.extra);
        Some(fields)
    }

    /// The fields for after the login.
    #[must_use]
    pub fn after_login(&self) -> Vec<Field> {
        with_own_name(self.client.as_deref().unwrap_or_default())
    }
}

/// An ID command without its tag, all strings quoted. Fields that cannot be quoted are left out: a login has no place for
/// literals other than those of the password.
#[must_use]
pub fn command(fields: &[Field]) -> String {
    let quotable = |bytes: &Vec<u8>| is_quotable(bytes);
    let fields =
        fields.iter().filter(|(name, value)| quotable(name) && value.as_ref().is_none_or(quotable));
    let shown: Vec<String> = fields
        .map(|(name, value)| match value {
            Some(value) => format!("{} {}", quoted(name), quoted(value)),
            None => format!("{} NIL", quoted(name)),
        })
        .collect();
    format!("ID ({})\r\n", shown.join(" "))
}

fn quoted(bytes: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<Field> {
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec())))
            .collect()
    }

    fn sent(client: &[(&str, &str)]) -> String {
        command(&with_own_name(&fields(client)))
            .replace(env!("CARGO_PKG_VERSION"), "1.0")
            .trim_end()
            .to_owned()
    }

    #[test]
    fn deltapush_adds_its_name() {
        assert_eq!(sent(&[]), "ID (\"name\" \"deltapush\" \"version\" \"1.0\")");
        assert_eq!(
            sent(&[("name", "Delta \"Chat\"")]),
            "ID (\"name\" \"Delta \\\"Chat\\\"\" \"x-via\" \"deltapush 1.0\")"
        );
        assert_eq!(
            sent(&[("X-Via", "other"), ("os", "x")]),
            "ID (\"os\" \"x\" \"x-via\" \"other, deltapush 1.0\")"
        );
        let long = "v".repeat(1020);
        assert_eq!(sent(&[("x-via", &long)]), "ID (\"x-via\" \"deltapush 1.0\")");
        assert_eq!(sent(&[("name", "gr\u{fc}n")]), "ID (\"x-via\" \"deltapush 1.0\")");
    }

    #[test]
    fn there_are_never_more_fields_than_allowed() {
        let many = with_own_name(&fields(&[("f", "x"); 30]));
        assert_eq!((many.len(), many.last().unwrap().0.as_slice()), (30, VIA));
        let introduction = Introduction {
            client: Some(fields(&[("f", "x"); 30])),
            extra: fields(&[("x-originating-ip", "::1"); 3]),
        };
        let before = introduction.before_login().unwrap();
        assert_eq!(
            (before.len(), before[26].0.as_slice(), before[29].0.as_slice()),
            (30, VIA, &b"x-originating-ip"[..])
        );
        assert_eq!(Introduction::default().before_login(), None);
    }

    #[test]
    fn client_cannot_say_that_it_speaks_for_another() {
        let forged = [
            ("X-Originating-IP", "1.2.3.4"),
            ("x-connected-port", "1"),
            ("x-proxy-ttl", "5"),
            ("x-session-id", "a"),
            ("x-forward-user", "root"),
            ("name", "x"),
        ];
        assert_eq!(sent(&forged), "ID (\"name\" \"x\" \"x-via\" \"deltapush 1.0\")");
        assert_eq!(sent(&forged[..5]), "ID (\"name\" \"deltapush\" \"version\" \"1.0\")");
    }
}
