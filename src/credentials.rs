//! Credentials of a login: a name, a secret, and how the secret is used.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::fmt;

use crate::secret::Secret;

/// A SASL mechanism that deltapush knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// `PLAIN` (RFC 4616)
    Plain,
    /// `LOGIN`: never standardized, and all that some servers have (draft-murchison-sasl-login).
    Login,
    /// `XOAUTH2`: Google's forerunner of OAUTHBEARER, and all that Outlook has.
    XOAuth2,
    /// `OAUTHBEARER` (RFC 7628)
    OAuthBearer,
    /// `SCRAM-SHA-1` (RFC 5802)
    ScramSha1,
    /// `SCRAM-SHA-256` (RFC 7677)
    ScramSha256,
}

impl Mechanism {
    /// All, with their names.
    pub const ALL: [(Self, &str); 6] = [
        (Self::Plain, "PLAIN"),
        (Self::Login, "LOGIN"),
        (Self::XOAuth2, "XOAUTH2"),
        (Self::OAuthBearer, "OAUTHBEARER"),
        (Self::ScramSha1, "SCRAM-SHA-1"),
        (Self::ScramSha256, "SCRAM-SHA-256"),
    ];

    /// The mechanism of that name, in any case.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(name))
            .map(|(mechanism, _)| *mechanism)
    }

    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| *name)
    }
}

/// The kind of a secret, which decides for how long it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// A password: until it is changed.
    Password,
    /// An OAuth access token (RFC 6750): for an hour or so.
    Token,
    /// The first message of a challenge-response exchange: for that exchange only.
    Exchange(Mechanism),
}

/// Credentials of a login (RFC 4616: authorization identity, authentication identity, password).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The owner of the mailbox that is asked for, if it is not the user's own. Usually absent.
    pub authorization: Option<String>,
    /// The login name, as the client gave it.
    pub user: String,
    /// The password, or what [`CredentialKind`] says. Empty where it was good for one exchange and that is over.
    pub password: Secret,
    /// The kind of the password.
    pub kind: CredentialKind,
}

impl Credentials {
    /// Credentials without an authorization identity, as `LOGIN` gives them.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        Self {
            authorization: None,
            user: user.into(),
            password: Secret::new(password.into()),
            kind: CredentialKind::Password,
        }
    }

    /// An access token, as XOAUTH2 and OAUTHBEARER give it.
    #[must_use]
    pub fn bearer(user: impl Into<String>, token: impl Into<Vec<u8>>) -> Self {
        Self { kind: CredentialKind::Token, ..Self::new(user, token) }
    }

    /// The first message of an exchange by `mechanism`.
    #[must_use]
    pub fn exchange(
        mechanism: Mechanism,
        user: impl Into<String>,
        first: impl Into<Vec<u8>>,
    ) -> Self {
        Self { kind: CredentialKind::Exchange(mechanism), ..Self::new(user, first) }
    }

    /// The same for the mailbox of `other`; nobody, or the user itself, is nobody else.
    #[must_use]
    pub fn on_behalf_of(mut self, other: String) -> Self {
        self.authorization = Some(other).filter(|other| !other.is_empty() && *other != self.user);
        self
    }

    /// Returns true if a second login can use them, as a watch needs.
    #[must_use]
    pub fn can_be_used_again(&self) -> bool {
        !matches!(self.kind, CredentialKind::Exchange(_))
    }

    /// The part to store: all of a password or token; of an exchange only that there was one.
    #[must_use]
    pub fn to_keep(&self) -> Self {
        let mut kept = self.clone();
        if !self.can_be_used_again() {
            kept.password = Secret::new(Vec::new());
        }
        kept
    }

    /// The owner of the mailbox that the login leads to.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.authorization.as_deref().unwrap_or(&self.user)
    }

    /// The message of SASL PLAIN (RFC 4616 section 2): authorization NUL user NUL password.
    #[must_use]
    pub fn plain_message(&self) -> Vec<u8> {
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let parts =
            [authorization.as_bytes(), b"\0", self.user.as_bytes(), b"\0", self.password.expose()];
        let mut message = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            message.extend_from_slice(part);
        }
        message
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_gives_nothing_away() {
        let credentials = Credentials::new("alice@example.org", "sesame");
        let shown = format!("{credentials:?} {:?}", credentials.password);
        assert!(shown.contains("alice@example.org"), "{shown}");
        assert!(!shown.contains("sesame") && !shown.contains("115, 101"), "{shown}");
    }

    #[test]
    fn plain_message_is_that_of_rfc_4616() {
        let mut credentials = Credentials::new("tim", "tanstaaftanstaaf");
        assert_eq!(&*credentials.plain_message(), b"\0tim\0tanstaaftanstaaf");
        credentials.authorization = Some("Ursel".into());
        assert_eq!(&*credentials.plain_message(), b"Ursel\0tim\0tanstaaftanstaaf");
    }
}
