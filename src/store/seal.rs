//! Sealing of credentials at rest: AES-256-GCM (NIST SP 800-38D) with a random nonce for each sealing, bound to the account
//! so that sealed credentials cannot be moved from one account to another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};

use crate::account::AccountId;
use crate::credentials::Mechanism;
use crate::credentials::{CredentialKind, Credentials};

/// Stands before the nonce, so that another sealing can be told from this one later.
const FORMAT: u8 = 1;

/// Stands before the message of what is no password, and then a byte that says what it is. No message begins with it: names
/// are UTF-8.
const TAGGED: u8 = 0xff;

/// Meanings of the first byte. They are on disk: none may change.
const KINDS: [(u8, CredentialKind); 3] = [
    (1, CredentialKind::Token),
    (2, CredentialKind::Exchange(Mechanism::ScramSha1)),
    (3, CredentialKind::Exchange(Mechanism::ScramSha256)),
];

fn tag(kind: CredentialKind) -> Option<u8> {
    KINDS.iter().find(|(_, known)| *known == kind).map(|(tag, _)| *tag)
}

fn kind(tag: u8) -> Option<CredentialKind> {
    KINDS.iter().find(|(known, _)| *known == tag).map(|(_, kind)| *kind)
}

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// A key's length in bytes.
pub(super) const KEY_LEN: usize = 32;

/// Why something was not sealed or unsealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A NUL in the login name, which no login can have (RFC 4616 section 2).
    #[error("the login name contains a NUL character and cannot be stored")]
    Nul,
    /// Made with another key or for another account, or changed since.
    #[error("the sealed credentials do not belong to this account and key, or are damaged")]
    NotAuthentic,
    /// The system's cryptography failed.
    #[error("the credentials cannot be sealed: the operating system provides no random numbers")]
    System,
}

/// Seals and unseals with one key.
pub(super) struct Sealer {
    key: RandomizedNonceKey,
}

impl Sealer {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Result<Self, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::System)?;
        Ok(Self { key })
    }

    pub(super) fn seal(
        &self,
        account: &AccountId,
        credentials: &Credentials,
    ) -> Result<Vec<u8>, SealError> {
        let authorization = credentials.authorization.as_deref().unwrap_or_default();
        if credentials.user.contains('\0') || authorization.contains('\0') {
            return Err(SealError::Nul);
        }
        let kept = credentials.to_keep();
        let message = kept.plain_message();
        let tagged = tag(kept.kind).map(|tag| [&[TAGGED, tag], message.as_slice()].concat());
        self.seal_bytes(&associated(account), tagged.as_deref().unwrap_or(&message))
    }

    pub(super) fn unseal(
        &self,
        account: &AccountId,
        sealed: &[u8],
    ) -> Result<Credentials, SealError> {
        let message = self.unseal_bytes(&associated(account), sealed)?;
        let (kind, message) = match message.as_slice() {
            [TAGGED, tag, rest @ ..] => (kind(*tag).ok_or(SealError::NotAuthentic)?, rest),
            password => (CredentialKind::Password, password),
        };
        let mut parts = message.splitn(3, |byte| *byte == 0);
        let mut text =
            || parts.next().and_then(|part| std::str::from_utf8(part).ok()).map(str::to_owned);
        let (Some(authorization), Some(user)) = (text(), text()) else {
            return Err(SealError::NotAuthentic);
        };
        let mut credentials = Credentials::new(user, parts.next().ok_or(SealError::NotAuthentic)?);
        credentials.authorization = Some(authorization).filter(|name| !name.is_empty());
        credentials.kind = kind;
        Ok(credentials)
    }

    /// Format, nonce, then the ciphertext with its tag.
    pub(super) fn seal_bytes(&self, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        // Exactly sized and encrypted in place: nothing unsealed is left behind in memory.
        let mut text = Vec::with_capacity(plain.len() + TAG_LEN);
        text.extend_from_slice(plain);
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(associated), &mut text)
            .map_err(|_| SealError::System)?;
        Ok([&[FORMAT], nonce.as_ref().as_slice(), &text].concat())
    }

    pub(super) fn unseal_bytes(
        &self,
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let Some((&FORMAT, rest)) = sealed.split_first() else {
            return Err(SealError::NotAuthentic);
        };
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::NotAuthentic)?;
        let mut text = text.to_vec();
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(associated), &mut text)
            .map_err(|_| SealError::NotAuthentic)?
            .len();
        text.truncate(plain);
        Ok(text)
    }
}

/// The data to which the sealed bytes are bound. The length distinguishes `ab` on `c` from `a` on `bc`.
fn associated(account: &AccountId) -> Vec<u8> {
    let length = u64::try_from(account.user.len()).unwrap_or(u64::MAX).to_be_bytes();
    [
        b"deltapush credentials\0",
        length.as_slice(),
        account.user.as_bytes(),
        account.upstream.as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&[byte; KEY_LEN]).unwrap()
    }

    #[test]
    fn sealed_credentials_are_unsealed_unchanged() {
        let account = AccountId::new("alice", "imap.example.org:993");
        let mut credentials = Credentials::new("alice", "pass\0word\u{fc}".as_bytes());
        for authorization in [None, Some("bob".to_owned())] {
            credentials.authorization = authorization;
            let sealed = sealer(1).seal(&account, &credentials).unwrap();
            assert_eq!(sealer(1).unseal(&account, &sealed).unwrap(), credentials);
        }
    }

    #[test]
    fn tokens_are_told_from_passwords_and_of_an_exchange_nothing_is_kept_but_that() {
        let account = AccountId::new("alice", "imap.example.org:993");
        let reopened = |credentials: &Credentials| {
            let sealed = sealer(1).seal(&account, credentials).unwrap();
            sealer(1).unseal(&account, &sealed).unwrap()
        };
        let token = Credentials::bearer("alice", "ya29.sesame");
        assert_eq!(reopened(&token), token);
        for mechanism in [Mechanism::ScramSha1, Mechanism::ScramSha256] {
            let exchange = Credentials::exchange(mechanism, "alice", "n,,n=alice,r=sesame")
                .on_behalf_of("bob".into());
            let kept = reopened(&exchange);
            assert_eq!(
                (kept.kind, kept.password.expose()),
                (CredentialKind::Exchange(mechanism), &b""[..])
            );
            assert_eq!((kept.authorization.as_deref(), kept.user.as_str()), (Some("bob"), "alice"));
        }
        let unknown = sealer(1).seal_bytes(&associated(&account), b"\xff\x63\0alice\0x").unwrap();
        assert_eq!(sealer(1).unseal(&account, &unknown), Err(SealError::NotAuthentic));
    }

    #[test]
    fn passwords_sealed_before_there_were_tokens_open() {
        let account = AccountId::new("alice", "imap.example.org:993");
        let sealed = sealer(1).seal_bytes(&associated(&account), b"\0alice\0sesame").unwrap();
        assert_eq!(
            sealer(1).unseal(&account, &sealed).unwrap(),
            Credentials::new("alice", "sesame")
        );
    }

    #[test]
    fn same_credentials_never_look_the_same() {
        let account = AccountId::new("alice", "imap.example.org:993");
        let credentials = Credentials::new("alice", "sesame");
        let sealed = [0; 2].map(|_| sealer(1).seal(&account, &credentials).unwrap());
        assert_ne!(sealed[0], sealed[1]);
        assert!(!sealed[0].windows(6).any(|bytes| bytes == b"sesame"));
    }

    #[test]
    fn another_key_another_account_and_any_changed_bit_are_found_out() {
        let account = AccountId::new("alice", "imap.example.org:993");
        let sealed = sealer(1).seal(&account, &Credentials::new("alice", "sesame")).unwrap();
        assert_eq!(sealer(2).unseal(&account, &sealed), Err(SealError::NotAuthentic));
        for other in [
            ("alice", "imap.example.org:143"),
            ("bob", "imap.example.org:993"),
            ("alicei", "map.example.org:993"),
        ] {
            let other = AccountId::new(other.0, other.1);
            assert_eq!(sealer(1).unseal(&other, &sealed), Err(SealError::NotAuthentic));
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(sealer(1).unseal(&account, &changed), Err(SealError::NotAuthentic));
            assert_eq!(sealer(1).unseal(&account, &sealed[..index]), Err(SealError::NotAuthentic));
        }
    }

    #[test]
    fn login_name_that_would_move_into_the_password_is_refused() {
        let account = AccountId::new("a\0b", "imap.example.org:993");
        assert_eq!(sealer(1).seal(&account, &Credentials::new("a\0b", "c")), Err(SealError::Nul));
    }
}
