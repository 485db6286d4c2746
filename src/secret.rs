//! Secrets by type: what must never reach a log, a trace, an error or Debug output.
//!
//! Each type here masks itself in `Debug`, and passwords wipe their memory when dropped. The bytes are reached through a method whose
//! name says so (`expose`), which makes every use easy to find.

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::parser::sasl::Mechanism;

/// Bytes that nobody may read by accident: a password, a SASL response.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves, for the wire or for sealing only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a secret that logs in is, and so for how long it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A password: until it is changed.
    Password,
    /// An OAuth access token (RFC 6750): for an hour or so.
    Token,
    /// The first message of a challenge-response exchange: for that exchange only.
    Exchange(Mechanism),
}

/// What a login consists of (RFC 4616: authorization identity, authentication identity, password).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Whose mailbox is asked for, where it is not the user's own. Usually absent.
    pub authorization: Option<String>,
    /// The login name, as the client gave it.
    pub user: String,
    /// The password, or what [`Kind`] says. Empty where it was good for one exchange and that is over.
    pub password: Secret,
    /// What the password is.
    pub kind: Kind,
}

impl Credentials {
    /// Credentials without an authorization identity, as `LOGIN` gives them.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        Self { authorization: None, user: user.into(), password: Secret::new(password.into()), kind: Kind::Password }
    }

    /// An access token, as XOAUTH2 and OAUTHBEARER give it.
    #[must_use]
    pub fn bearer(user: impl Into<String>, token: impl Into<Vec<u8>>) -> Self {
        Self { kind: Kind::Token, ..Self::new(user, token) }
    }

    /// The first message of an exchange by `mechanism`.
    #[must_use]
    pub fn exchange(mechanism: Mechanism, user: impl Into<String>, first: impl Into<Vec<u8>>) -> Self {
        Self { kind: Kind::Exchange(mechanism), ..Self::new(user, first) }
    }

    /// The same for the mailbox of `other`; nobody, or the user itself, is nobody else.
    #[must_use]
    pub fn on_behalf_of(mut self, other: String) -> Self {
        self.authorization = Some(other).filter(|other| !other.is_empty() && *other != self.user);
        self
    }

    /// Whether one can log in with them again: so that a mailbox can be watched.
    #[must_use]
    pub fn can_be_used_again(&self) -> bool {
        !matches!(self.kind, Kind::Exchange(_))
    }

    /// What is worth keeping: all of a password or token; of an exchange only that there was one.
    #[must_use]
    pub fn to_keep(&self) -> Self {
        let mut kept = self.clone();
        if !self.can_be_used_again() {
            kept.password = Secret::new(Vec::new());
        }
        kept
    }

    /// Whose mailbox the login leads to.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.authorization.as_deref().unwrap_or(&self.user)
    }

    /// The message of SASL PLAIN (RFC 4616 section 2): authorization NUL user NUL password.
    #[must_use]
    pub fn plain_message(&self) -> Zeroizing<Vec<u8>> {
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let parts = [authorization.as_bytes(), b"\0", self.user.as_bytes(), b"\0", self.password.expose()];
        // Exactly sized: a vector that grows leaves copies of a password behind.
        let mut message = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
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

/// A device token as the client sent it: an opaque string that wakes one phone (chatmail/core pads and encrypts it to the
/// notification server: `openpgp:` and base64, about 930 characters). Whoever has it can wake that phone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceToken(Arc<str>);

/// Why a string cannot be a device token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`DeviceToken::MAX_LEN`].
    #[error("the device token is longer than {} bytes", DeviceToken::MAX_LEN)]
    TooLong,
    /// Empty, or with a byte that is not printable ASCII: `GETMETADATA` lists tokens separated by spaces, and the token is
    /// the body of an HTTP request.
    #[error("the device token is empty or has characters other than printable ASCII")]
    NotPrintable,
}

impl DeviceToken {
    /// The longest token that is accepted, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Takes a token as it was received.
    ///
    /// # Errors
    /// [`TokenError`] if it is too long or not made of printable ASCII.
    pub fn new(value: &[u8]) -> Result<Self, TokenError> {
        if value.len() > Self::MAX_LEN {
            return Err(TokenError::TooLong);
        }
        match std::str::from_utf8(value) {
            Ok(text) if !text.is_empty() && value.iter().all(u8::is_ascii_graphic) => Ok(Self(text.into())),
            _ => Err(TokenError::NotPrintable),
        }
    }

    /// The token itself, for the notification server, the state file and its owner only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A short hash that names the token in logs without giving it away: eight hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{:08x}", self.short_hash())
    }

    /// The same as a number, for those who keep many.
    #[must_use]
    pub fn short_hash(&self) -> u32 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.as_bytes());
        digest.as_ref().iter().take(4).fold(0, |hash, byte| hash << 8 | u32::from(*byte))
    }
}

impl fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceToken({})", self.fingerprint())
    }
}

impl fmt::Display for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_gives_nothing_away() {
        let credentials = Credentials::new("alice@example.org", "sesame");
        let token = DeviceToken::new(b"openpgp:sesame").unwrap();
        let shown = format!("{credentials:?} {:?} {token:?} {token}", credentials.password);
        assert!(shown.contains("alice@example.org"), "{shown}");
        assert!(!shown.contains("sesame") && !shown.contains("115, 101"), "{shown}");
    }

    #[test]
    fn plain_message_is_that_of_rfc_4616() {
        let mut credentials = Credentials::new("tim", "tanstaaftanstaaf");
        assert_eq!(&**credentials.plain_message(), b"\0tim\0tanstaaftanstaaf");
        credentials.authorization = Some("Ursel".into());
        assert_eq!(&**credentials.plain_message(), b"Ursel\0tim\0tanstaaftanstaaf");
    }

    #[test]
    fn tokens_are_bounded_and_printable() {
        assert_eq!(DeviceToken::new(b""), Err(TokenError::NotPrintable));
        assert_eq!(DeviceToken::new(b"two words"), Err(TokenError::NotPrintable));
        assert_eq!(DeviceToken::new(b"a\r\nb"), Err(TokenError::NotPrintable));
        assert_eq!(DeviceToken::new(&[b'a'; 4097]), Err(TokenError::TooLong));
        assert_eq!(DeviceToken::new(&[b'a'; 4096]).unwrap().expose().len(), 4096);
    }
}
