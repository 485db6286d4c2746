//! Recognition of a password that is not stored: a salted Argon2id hash (RFC 9106), in memory only.
//!
//! One hash takes 19 MiB for some hundredths of a second, as OWASP's cheat sheet for password storage asks for at least. One is
//! made at a time, in memory that is allocated once and wiped after each use. Callers take turns (`turns.rs`), and one who would
//! have to wait long goes without a hash: its login succeeds all the same, and resumes no kept session.

mod turns;

use std::fmt;
use std::hint::black_box;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroize;

use crate::secret::Secret;
use turns::HashQueue;
pub(super) use turns::HashRequester;

/// Memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(1);

/// Stack that a hash may have used.
const STACK: usize = 64 * 1024;

/// Recognizes a password without storing it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PasswordHash {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

/// Makes hashes, and compares. Clones take turns with each other.
#[derive(Clone, Default)]
pub(super) struct PasswordHasher(Arc<HasherShared>);

#[derive(Default)]
struct HasherShared {
    turns: Mutex<HashQueue<oneshot::Sender<()>>>,
    /// Argon2's memory: none until the first hash, and the same one ever since.
    blocks: Mutex<Vec<Block>>,
}

/// A place in the queue, until it is dropped.
struct HashTurn {
    shared: Arc<HasherShared>,
    number: u64,
}

impl fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHasher")
    }
}

impl PasswordHasher {
    /// The hash of a password, with a salt of its own; `None` if too many hashes wait, in all or for the caller.
    pub(super) async fn hash(
        &self,
        password: &Secret,
        caller: HashRequester,
    ) -> Option<PasswordHash> {
        let mut salt = [0; 16];
        SystemRandom::new().fill(&mut salt).ok()?;
        let hash = self.hash_with(password, salt, caller).await?;
        Some(PasswordHash { salt, hash })
    }

    /// Reports if a hash is that of this password, in a time that does not depend on the number of equal bytes.
    pub(super) async fn is_same(
        &self,
        password: &Secret,
        known: &PasswordHash,
        caller: HashRequester,
    ) -> bool {
        let hash = self.hash_with(password, known.salt, caller).await;
        hash.is_some_and(|hash| verify_slices_are_equal(&hash, &known.hash).is_ok())
    }

    async fn hash_with(
        &self,
        password: &Secret,
        salt: [u8; 16],
        caller: HashRequester,
    ) -> Option<[u8; 32]> {
        let turn = self.turn(caller).await?;
        let password = password.clone();
        let made = spawn_blocking(move || {
            // Given back when the hash is made, not when nobody wants it any more.
            let hash = argon2id(password, salt, &mut lock(&turn.shared.blocks));
            overwrite_stack();
            hash
        });
        made.await.ok().flatten()
    }

    async fn turn(&self, caller: HashRequester) -> Option<HashTurn> {
        let (wake, woken) = oneshot::channel();
        let number = lock(&self.0.turns).enter(caller, wake, wake_up)?;
        let turn = HashTurn { shared: Arc::clone(&self.0), number };
        timeout(PATIENCE, woken).await.ok()?.ok()?;
        Some(turn)
    }
}

impl Drop for HashTurn {
    fn drop(&mut self) {
        lock(&self.shared.turns).leave(self.number, wake_up);
    }
}

/// If nobody waits there any more, its [`HashTurn`] is about to be dropped.
fn wake_up(waiting: oneshot::Sender<()>) {
    let _ = waiting.send(());
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[inline(never)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the password is wiped before the hash is returned"
)]
fn argon2id(password: Secret, salt: [u8; 16], blocks: &mut Vec<Block>) -> Option<[u8; 32]> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).ok()?;
    blocks.resize(params.block_count(), Block::default());
    let mut hash = [0; 32];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let made = argon2.hash_password_into_with_memory(
        password.expose(),
        &salt,
        &mut hash,
        blocks.as_mut_slice(),
    );
    blocks.iter_mut().for_each(Zeroize::zeroize);
    made.ok().map(|()| hash)
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
    use crate::account::AccountId;

    fn alice() -> HashRequester {
        let account =
            AccountId { user: "alice@example.org".into(), upstream: "imap.example.org:993".into() };
        HashRequester { account, prefix: [192, 0, 2, 1].into() }
    }

    /// Of forty logins at once two get a hash: the others do not wait for it.
    #[tokio::test]
    async fn logins_beyond_an_accounts_share_go_without_a_hash_and_memory_stays_one_wiped_buffer() {
        let hasher = PasswordHasher::default();
        let hashes: Vec<_> = (0..40)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(
                    async move { hasher.hash(&Secret::new(b"sesame".to_vec()), alice()).await },
                )
            })
            .collect();
        let mut made = 0;
        for hash in hashes {
            made += usize::from(hash.await.unwrap().is_some());
        }
        assert_eq!(made, 2);
        let blocks = |hasher: &PasswordHasher| {
            let blocks = lock(&hasher.0.blocks);
            assert!(
                blocks.iter().all(|block| block.as_ref().iter().all(|word| *word == 0)),
                "it is wiped"
            );
            (blocks.as_ptr() as usize, blocks.len())
        };
        let first = blocks(&hasher);
        assert!(
            hasher.hash(&Secret::new(b"sesame".to_vec()), alice()).await.is_some(),
            "all have left"
        );
        assert_eq!(blocks(&hasher), first);
        assert_eq!(first.1, 19 * 1024);
    }

    #[tokio::test]
    async fn password_is_known_again_and_no_other() {
        let hasher = PasswordHasher::default();
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let known = hasher.hash(&secret("sesame"), alice()).await.unwrap();
        assert!(hasher.is_same(&secret("sesame"), &known, alice()).await);
        assert!(!hasher.is_same(&secret("Sesame"), &known, alice()).await);
        assert_ne!(
            hasher.hash(&secret("sesame"), alice()).await.unwrap(),
            known,
            "each has a salt of its own"
        );
        assert_eq!(format!("{known:?}"), "[hash]");
    }

    /// RFC 9106 has no vector without a secret and associated data; this one is of the reference implementation's tests
    /// (argon2id, version 19, t=2, m=65536, p=1).
    #[test]
    fn it_is_argon2id() {
        let argon2 = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(65536, 2, 1, None).unwrap(),
        );
        let mut hash = [0; 32];
        argon2.hash_password_into(b"password", b"somesalt", &mut hash).unwrap();
        assert_eq!(hash[..8], [0x09, 0x31, 0x61, 0x15, 0xd5, 0xcf, 0x24, 0xed]);
    }
}
