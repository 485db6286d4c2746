//! POSTs of other nodes that were accepted lately: a token that one of them has posted is not posted here within the same
//! `push.coalesce`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::secret::DeviceToken;
use crate::store::UnixTime;

/// A POST is forgotten after this time: a longer `push.coalesce` does not hold across a takeover.
const MEMORY: Duration = Duration::from_secs(2 * 3600);

/// When each of these tokens was last posted by another node. Empty on a node without companions.
#[derive(Debug, Default)]
pub(super) struct RecentPosts(Mutex<HashMap<DeviceToken, UnixTime>>);

impl RecentPosts {
    /// Adds POSTs, and forgets old ones.
    pub(super) fn add(&self, posts: Vec<(DeviceToken, UnixTime)>, now: UnixTime) {
        if posts.is_empty() {
            return;
        }
        let mut known = self.lock();
        for (token, at) in posts {
            let entry = known.entry(token).or_insert(at);
            *entry = at.max(*entry);
        }
        known.retain(|_, at| at.age(now) < MEMORY);
    }

    /// The time since the last one of the token, in whole seconds, rounded down.
    pub(super) fn age(&self, token: &DeviceToken, now: UnixTime) -> Option<Duration> {
        self.lock().get(token).map(|at| at.age(now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceToken, UnixTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_post_counts_and_old_ones_are_forgotten() {
        let (posts, token) =
            (RecentPosts::default(), |name: &[u8]| DeviceToken::new(name).unwrap());
        posts.add(vec![(token(b"a"), UnixTime(100)), (token(b"a"), UnixTime(90))], UnixTime(101));
        assert_eq!(posts.age(&token(b"a"), UnixTime(103)), Some(Duration::from_secs(3)));
        assert_eq!(posts.age(&token(b"a"), UnixTime(50)), Some(Duration::ZERO), "another clock");
        assert_eq!(posts.age(&token(b"b"), UnixTime(103)), None);
        posts.add(vec![(token(b"b"), UnixTime(10_000))], UnixTime(10_000));
        assert_eq!(posts.age(&token(b"a"), UnixTime(10_000)), None);
    }
}
