//! Secrets by type: what must never reach a log, a trace, an error or Debug output.
//!
//! Each type here masks itself in `Debug`, and [`Secret`] wipes its memory when dropped, with any allocator. The bytes are reached
//! through a method whose name says so (`expose`), which makes every use easy to find.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop};

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

/// A device token as the client sent it: an opaque string that wakes one phone (chatmail/core pads and encrypts it to the
/// notification server: `openpgp:` and base64, about 930 characters). Its holder can wake that phone.
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
            Ok(text) if !text.is_empty() && value.iter().all(u8::is_ascii_graphic) => {
                Ok(Self(text.into()))
            }
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
        let (secret, token) =
            (Secret::new(b"sesame".to_vec()), DeviceToken::new(b"openpgp:sesame").unwrap());
        let shown = format!("{secret:?} {token:?} {token}");
        assert!(!shown.contains("sesame") && !shown.contains("115, 101"), "{shown}");
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
