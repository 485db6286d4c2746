//! A bounded map with expiry for keys chosen by untrusted peers. It drops expired entries first, then the oldest.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A map with a bound on its length.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    entries: HashMap<K, (Instant, V)>,
    capacity: usize,
    /// For how long an entry is of use.
    lifetime: Duration,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    pub(crate) fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), capacity, lifetime }
    }

    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries
            .get(key)
            .filter(|(used, _)| now.saturating_duration_since(*used) < self.lifetime)
            .map(|(_, v)| v)
    }

    /// The entry, made by `default` if it is not there. It is used now.
    pub(crate) fn entry(&mut self, key: K, now: Instant, default: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.capacity {
            self.make_room(now);
        }
        let entry = self.entries.entry(key).or_insert_with(|| (now, default()));
        entry.0 = now;
        &mut entry.1
    }

    /// The entry without a change of its age, also one that has expired.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// The entries that have not expired, in no order.
    pub(crate) fn iter(&self, now: Instant) -> impl Iterator<Item = (&K, &V)> {
        let is_current = move |used: &Instant| now.saturating_duration_since(*used) < self.lifetime;
        self.entries
            .iter()
            .filter(move |(_, (used, _))| is_current(used))
            .map(|(key, (_, value))| (key, value))
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Takes away what is of no use any more, and if that is too little, the oldest eighth: so that a full map is not looked
    /// through at each insertion.
    fn make_room(&mut self, now: Instant) {
        let Self { entries, lifetime, capacity } = self;
        entries.retain(|_, (used, _)| now.saturating_duration_since(*used) < *lifetime);
        let enough = capacity.saturating_sub(*capacity / 8).min(capacity.saturating_sub(1));
        let surplus = entries.len().saturating_sub(enough);
        if surplus == 0 {
            return;
        }
        let mut ages: Vec<(Instant, K)> =
            entries.iter().map(|(key, (used, _))| (*used, key.clone())).collect();
        ages.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in ages.iter().take(surplus) {
            entries.remove(key);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_grows_beyond_its_capacity_and_keeps_the_youngest() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut map = Bounded::new(80, Duration::from_secs(1000));
        for second in 0..500 {
            *map.entry(second, at(second), || 0) = second;
            assert!(map.len() <= 80);
            assert!(
                map.get(&second, at(second)).is_some() && second < 10
                    || map.get(&(second - 9), at(second)).is_some()
            );
        }
        assert_eq!(map.get(&499, at(1498)), Some(&499));
        assert_eq!(map.get(&499, at(1499)), None);
        map.entry(1000, at(2000), || 0);
        assert!(map.len() <= 80);
    }

    #[test]
    fn smallest_maps_work() {
        let now = Instant::now();
        for capacity in 1..4 {
            let mut map = Bounded::new(capacity, Duration::from_secs(1));
            (0..10).for_each(|key| *map.entry(key, now, || 0) = key);
            assert!(map.len() <= capacity && map.get(&9, now) == Some(&9));
        }
    }
}
