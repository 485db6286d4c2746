//! POSTs that were accepted and whose answers are not written: the database is away, or the account is another node's for now. The
//! state still has them as pending. This node does not post them again, and writes the answers when it can.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bounded::Bounded;
use crate::clock::now;
use crate::secret::DeviceToken;
use crate::store::Generation;

/// Most POSTs that are remembered. A database that is away keeps further ones from being noticed.
const CAPACITY: usize = 16 * 1024;
/// Pushes are given up after five hours.
const MEMORY: Duration = Duration::from_secs(6 * 3600);

/// The accepted POSTs of each token. Empty on a node without companions.
#[derive(Debug)]
pub(super) struct UnwrittenPosts(Mutex<Bounded<DeviceToken, UnwrittenPost>>);

#[derive(Debug, Clone, Copy)]
struct UnwrittenPost {
    /// Up to where the token was announced.
    generation: Generation,
    /// The answer could not be written. Otherwise that is under way.
    has_failed: bool,
}

impl Default for UnwrittenPosts {
    fn default() -> Self {
        Self(Mutex::new(Bounded::new(CAPACITY, MEMORY)))
    }
}

impl UnwrittenPosts {
    /// A POST for the generation was accepted, and its answer is about to be written.
    pub(super) fn add(&self, token: &DeviceToken, generation: Generation) {
        let mut posts = self.lock();
        let new = || UnwrittenPost { generation, has_failed: false };
        let known = posts.entry(token.clone(), now(), new);
        known.generation = generation.max(known.generation);
    }

    /// The answer cannot be written at the moment.
    pub(super) fn failed(&self, token: &DeviceToken) {
        if let Some(known) = self.lock().get_mut(token) {
            known.has_failed = true;
        }
    }

    /// The answer to the POST for the generation is written. It is remembered all the same: a load that began before may find the
    /// push pending, and generations are never given out again.
    pub(super) fn written(&self, token: &DeviceToken, generation: Generation) {
        let mut posts = self.lock();
        let known = posts.get_mut(token).filter(|known| known.generation <= generation);
        known.into_iter().for_each(|known| known.has_failed = false);
    }

    /// Reports if the token was announced up to this generation.
    pub(super) fn has(&self, token: &DeviceToken, generation: Generation) -> bool {
        self.lock().get(token, now()).is_some_and(|known| known.generation >= generation)
    }

    /// Those whose answers could not be written, in no order.
    pub(super) fn all_failed(&self) -> Vec<(DeviceToken, Generation)> {
        let posts = self.lock();
        let failed = posts.iter(now()).filter(|(_, known)| known.has_failed);
        failed.map(|(token, known)| (token.clone(), known.generation)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Bounded<DeviceToken, UnwrittenPost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_accepted_generation_counts_until_it_is_written() {
        let posts = UnwrittenPosts::default();
        let token = DeviceToken::new(b"openpgp:a").unwrap();
        assert!(!posts.has(&token, Generation(1)));
        posts.add(&token, Generation(5));
        posts.add(&token, Generation(3));
        assert!(posts.has(&token, Generation(5)) && !posts.has(&token, Generation(6)));
        posts.written(&token, Generation(3));
        assert_eq!(posts.all_failed(), [], "it is being written");
        posts.failed(&token);
        assert_eq!(posts.all_failed(), [(token.clone(), Generation(5))]);
        posts.written(&token, Generation(4));
        assert_eq!(posts.all_failed().len(), 1, "a later one is not written");
        posts.written(&token, Generation(5));
        assert!(posts.all_failed().is_empty());
        assert!(posts.has(&token, Generation(5)) && !posts.has(&token, Generation(6)));
    }
}
