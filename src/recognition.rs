//! Knowing a password again without keeping it: a salted Argon2id hash (RFC 9106), in memory only.
//!
//! One hash takes 19 MiB for some hundredths of a second, as OWASP's cheat sheet for password storage asks for at least. One is
//! made at a time, and whoever would have to wait long goes without: so a small machine is not brought to its knees by logins.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::secret::Secret;

/// Memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Hashes that are made at the same time.
const AT_ONCE: usize = 1;

/// How long somebody waits for a turn.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much of the stack may have been used for a hash.
const STACK: usize = 64 * 1024;

/// What a password is known by.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

/// Makes hashes, and compares. Clones take turns with each other.
#[derive(Debug, Clone)]
pub struct Recognizer(Arc<Semaphore>);

impl Default for Recognizer {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Recognizer {
    /// The hash of a password, with a salt of its own; `None` if there is too much to do.
    pub async fn hash(&self, password: &Secret) -> Option<PasswordHash> {
        let mut salt = [0; 16];
        SystemRandom::new().fill(&mut salt).ok()?;
        let hash = self.hash_with(password, salt).await?;
        Some(PasswordHash { salt, hash })
    }

    /// Whether a hash is that of this password. How long that takes does not depend on how much is equal.
    pub async fn is_same(&self, password: &Secret, known: &PasswordHash) -> bool {
        let hash = self.hash_with(password, known.salt).await;
        hash.is_some_and(|hash| verify_slices_are_equal(&hash, &known.hash).is_ok())
    }

    async fn hash_with(&self, password: &Secret, salt: [u8; 16]) -> Option<[u8; 32]> {
        let turn = timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok()?;
        let password = password.clone();
        let made = spawn_blocking(move || {
            // Given back when the hash is made, not when nobody wants it any more.
            let _turn = turn;
            let hash = argon2id(password, salt);
            overwrite_stack();
            hash
        });
        made.await.ok().flatten()
    }
}

#[inline(never)]
#[expect(clippy::needless_pass_by_value, reason = "the password is wiped before the hash is returned")]
fn argon2id(password: Secret, salt: [u8; 16]) -> Option<[u8; 32]> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).ok()?;
    let mut hash = [0; 32];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password.expose(), &salt, &mut hash).ok()?;
    Some(hash)
}

/// The hash function's buffers stood on the stack, with the password in them, and the thread lives on.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "that is what it is for")]
fn overwrite_stack() {
    black_box(&mut [0_u8; STACK]).fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other() {
        let recognizer = Recognizer::default();
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let known = recognizer.hash(&secret("sesame")).await.unwrap();
        assert!(recognizer.is_same(&secret("sesame"), &known).await);
        assert!(!recognizer.is_same(&secret("Sesame"), &known).await);
        assert_ne!(recognizer.hash(&secret("sesame")).await.unwrap(), known, "each has a salt of its own");
        assert_eq!(format!("{known:?}"), "[hash]");
    }

    /// RFC 9106 has no vector without a secret and associated data; this one is of the reference implementation's tests
    /// (argon2id, version 19, t=2, m=65536, p=1).
    #[test]
    fn it_is_argon2id() {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(65536, 2, 1, None).unwrap());
        let mut hash = [0; 32];
        argon2.hash_password_into(b"password", b"somesalt", &mut hash).unwrap();
        assert_eq!(hash[..8], [0x09, 0x31, 0x61, 0x15, 0xd5, 0xcf, 0x24, 0xed]);
    }
}
