//! POSTs of other nodes that were accepted lately: a token that one of them has posted is not posted here within the same
//! `push.coalesce`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::secret::DeviceToken;
use crate::store::UnixTime;

/// A POST is forgotten after this time: a longer `push.coalesce` does not hold across a takeover.
const MEMORY: Duration = Duration::from_secs(2 * 3600);

/// Old POSTs are looked for so often.
const CLEANING: Duration = Duration::from_secs(60);

/// When each of these tokens was last posted by another node. Empty on a node without companions.
#[derive(Debug, Default)]
pub(super) struct RecentPosts(Mutex<KnownPosts>);

#[derive(Debug, Default)]
struct KnownPosts {
    last: HashMap<DeviceToken, UnixTime>,
    /// When old ones were last looked for.
    cleaned: Option<UnixTime>,
}

impl RecentPosts {
    /// Adds POSTs, and forgets old ones from time to time.
    pub(super) fn add(&self, posts: Vec<(DeviceToken, UnixTime)>, now: UnixTime) {
        if posts.is_empty() {
            return;
        }
        let mut known = self.lock();
        for (token, at) in posts {
            let entry = known.last.entry(token).or_insert(at);
            *entry = at.max(*entry);
        }
        // Also if the clock was set back.
        let is_due = |last: UnixTime| last > now || last.age(now) >= CLEANING;
        if known.cleaned.is_none_or(is_due) {
            known.cleaned = Some(now);
            known.last.retain(|_, at| at.age(now) < MEMORY);
        }
    }

    /// The time since the last one of the token, in whole seconds, rounded down.
    pub(super) fn age(&self, token: &DeviceToken, now: UnixTime) -> Option<Duration> {
        self.lock().last.get(token).map(|at| at.age(now))
    }

    fn lock(&self) -> MutexGuard<'_, KnownPosts> {
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
        // Once a minute: each account that is loaded again adds a few.
        posts.add(vec![(token(b"c"), UnixTime(1_000))], UnixTime(10_059));
        assert!(posts.age(&token(b"c"), UnixTime(10_059)).is_some());
        posts.add(vec![(token(b"b"), UnixTime(10_060))], UnixTime(10_060));
        assert_eq!(posts.age(&token(b"c"), UnixTime(10_060)), None);
    }
}
