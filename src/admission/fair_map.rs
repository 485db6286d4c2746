//! A bounded map with expiry for entries caused by untrusted peers. When it is full, it drops entries of the network or
//! mail server that has most of them: a peer that fills it displaces its own entries.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The network and the server that are responsible for an entry. Names are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryOrigin {
    /// The network of the client.
    pub network: i64,
    /// The mail server.
    pub upstream: i64,
    /// The mail server is one that the login has named, and not the configuration: anybody may have one.
    pub is_open: bool,
}

/// The map.
#[derive(Debug)]
pub(super) struct FairMap<K, V> {
    entries: HashMap<K, FairMapEntry<V>>,
    capacity: usize,
    lifetime: Duration,
}

#[derive(Debug)]
struct FairMapEntry<V> {
    used: Instant,
    origin: EntryOrigin,
    value: V,
}

/// Entries that share the responsible party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    Network(i64),
    Upstream(i64),
}

impl EntryOrigin {
    fn groups(self) -> [Group; 2] {
        [Group::Network(self.network), Group::Upstream(self.upstream)]
    }
}

impl<K: Hash + Eq + Ord + Copy, V> FairMap<K, V> {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), capacity, lifetime }
    }

    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries
            .get(key)
            .filter(|entry| now.saturating_duration_since(entry.used) < self.lifetime)
            .map(|entry| &entry.value)
    }

    /// The entry if it is there; unlike [`entry`](Self::entry) this does not make it younger.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// The entry, made if it is not there, and used now. Keys evicted for it are appended to `evicted`.
    pub(super) fn entry_evicting(
        &mut self,
        key: K,
        origin: EntryOrigin,
        now: Instant,
        evicted: &mut Vec<K>,
        default: impl FnOnce() -> V,
    ) -> &mut V {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.capacity {
            self.make_room(now, evicted);
        }
        let entry = self.entries.entry(key).or_insert_with(|| FairMapEntry {
            used: now,
            origin,
            value: default(),
        });
        entry.used = now;
        &mut entry.value
    }

    pub(super) fn entry(
        &mut self,
        key: K,
        origin: EntryOrigin,
        now: Instant,
        default: impl FnOnce() -> V,
    ) -> &mut V {
        self.entry_evicting(key, origin, now, &mut Vec::new(), default)
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// When and on whose account the entry was last used.
    pub(super) fn used(&self, key: &K) -> Option<(Instant, EntryOrigin)> {
        self.entries.get(key).map(|entry| (entry.used, entry.origin))
    }

    /// Removes what has expired, and if that is too little, a sixteenth of all: so that a full map is not looked through at
    /// each insertion.
    fn make_room(&mut self, now: Instant, evicted: &mut Vec<K>) {
        let Self { entries, lifetime, capacity } = self;
        entries.retain(|key, entry| {
            let lives = now.saturating_duration_since(entry.used) < *lifetime;
            if !lives {
                evicted.push(*key);
            }
            lives
        });
        let enough = *capacity - (*capacity / 16).max(1);
        let surplus = entries.len().saturating_sub(enough);
        for key in Crowd::of(entries, *capacity).leave(surplus) {
            entries.remove(&key);
            evicted.push(key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Entries by who is responsible for them, to choose those that go.
struct Crowd<K> {
    /// The youngest first, so that the oldest is popped.
    members: HashMap<Group, Vec<(Instant, K)>>,
    sizes: HashMap<Group, usize>,
    origins: HashMap<K, EntryOrigin>,
}

impl<K: Hash + Eq + Ord + Copy> Crowd<K> {
    /// Half of the room is kept for the mail servers of the configuration: beyond it only entries of others go.
    fn of<V>(entries: &HashMap<K, FairMapEntry<V>>, capacity: usize) -> Self {
        let is_crowded =
            entries.values().filter(|entry| entry.origin.is_open).count() >= capacity / 2;
        let mut crowd =
            Self { members: HashMap::new(), sizes: HashMap::new(), origins: HashMap::new() };
        for (key, entry) in entries.iter().filter(|(_, entry)| entry.origin.is_open || !is_crowded)
        {
            crowd.origins.insert(*key, entry.origin);
            for group in entry.origin.groups() {
                crowd.members.entry(group).or_default().push((entry.used, *key));
            }
        }
        for (group, members) in &mut crowd.members {
            members.sort_unstable_by_key(|(used, key)| Reverse((*used, *key)));
            crowd.sizes.insert(*group, members.len());
        }
        crowd
    }

    /// So many of them, one by one from the group that is largest then, its oldest first.
    fn leave(mut self, count: usize) -> Vec<K> {
        let rank = |members: &Vec<(Instant, K)>| Reverse(members.last().map(|(used, _)| *used));
        let mut ranked: BinaryHeap<_> = self
            .members
            .iter()
            .map(|(group, members)| (members.len(), rank(members), *group))
            .collect();
        let mut leaving = Vec::new();
        while leaving.len() < count {
            let Some((size, _, group)) = ranked.pop() else { break };
            let (Some(actual), Some(members)) =
                (self.sizes.get(&group).copied(), self.members.get_mut(&group))
            else {
                continue;
            };
            if actual == size {
                // Those that have gone as members of another group are still in the list.
                let oldest = std::iter::from_fn(|| members.pop())
                    .find(|(_, key)| self.origins.contains_key(key));
                let Some((_, key)) = oldest else { continue };
                let Some(origin) = self.origins.remove(&key) else { continue };
                for group in origin.groups() {
                    self.sizes.entry(group).and_modify(|size| *size -= 1);
                }
                leaving.push(key);
            }
            if let Some(actual) = self.sizes.get(&group).copied().filter(|size| *size > 0) {
                ranked.push((actual, rank(members), group));
            }
        }
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(network: i64, upstream: i64) -> EntryOrigin {
        EntryOrigin { network, upstream, is_open: true }
    }

    #[test]
    fn map_never_grows_beyond_its_capacity_and_keeps_the_youngest_of_equals() {
        let start = Instant::now();
        let at = |second: i64| start + Duration::from_secs(second.unsigned_abs());
        let mut map = FairMap::new(80, Duration::from_secs(1000));
        for second in 0..500 {
            *map.entry(second, origin(second, second), at(second), || 0) = second;
            assert!(map.len() <= 80);
            assert!(map.get(&(second - 70).max(0), at(second)).is_some(), "{second}");
        }
        assert_eq!(map.get(&499, at(1498)), Some(&499));
        assert_eq!(map.get(&499, at(1499)), None);
    }

    #[test]
    fn origin_that_fills_the_map_evicts_its_own_entries() {
        let now = Instant::now();
        for (network, upstream) in [(true, false), (false, true), (true, true)] {
            let mut map = FairMap::new(200, Duration::from_secs(1000));
            (0..50)
                .for_each(|key| *map.entry(key, origin(key % 7, 7 + key % 5), now, || key) = key);
            let later = now + Duration::from_secs(1);
            for key in 1000..5000 {
                let of = origin(if network { 99 } else { key }, if upstream { 99 } else { key });
                map.entry(key, of, later, || key);
            }
            assert!((0..50).all(|key| map.get(&key, later).is_some()), "{network} {upstream}");
        }
    }

    #[test]
    fn mail_servers_of_the_configuration_keep_half_of_the_room() {
        let now = Instant::now();
        let mut map = FairMap::new(200, Duration::from_secs(1000));
        for key in 0..100 {
            map.entry(key, EntryOrigin { network: 1, upstream: 1, is_open: false }, now, || ());
        }
        // From everywhere, each at a server of its own.
        (1000..5000).for_each(|key| *map.entry(key, origin(key, key), now, || ()) = ());
        assert!((0..100).all(|key| map.get(&key, now).is_some()));
    }

    #[test]
    fn smallest_maps_work() {
        let now = Instant::now();
        for capacity in 1..4 {
            let mut map = FairMap::new(capacity, Duration::from_secs(1));
            for key in 0..10 {
                map.entry(key, origin(1, 1), now + Duration::from_millis(key), || key);
            }
            assert!(map.len() <= capacity && map.get(&9, now) == Some(&9));
        }
    }
}
