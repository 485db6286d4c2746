//! Login names, networks and mail servers of accepted logins. They survive restarts: changes are collected here and
//! written to the state in batches.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::fair_map::{EntryOrigin, FairMap};
use super::key::AdmissionKey;

/// Time for which a login name is known after the last accepted login: as long as a token without its device.
const NAMES_LIVE: Duration = Duration::from_secs(90 * DAY);

/// Time for which the networks of accepted logins are known.
const PLACES_LIVE: Duration = Duration::from_secs(30 * DAY);

/// An entry that was written within this time is not written again.
const WRITE_AGAIN: Duration = Duration::from_secs(DAY);

const DAY: u64 = 24 * 3600;

/// Entries of each kind. One takes some 100 bytes.
const CAPACITY: usize = 40_000;

/// Changes that wait to be written. One without room is written at its next use.
const MAX_CHANGES: usize = 4096;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownKind {
    /// A login name, or a mail server.
    Name,
    /// A network of clients, for a login name or a mail server.
    Place,
}

/// An entry, as it is handed to the state and comes back from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownEntry {
    /// The hash of its subject.
    pub key: AdmissionKey,
    /// The kind.
    pub kind: KnownKind,
    /// The origin of the login that caused it.
    pub origin: EntryOrigin,
    /// Time since it was last part of an accepted login.
    pub age: Duration,
}

/// Changes to store.
#[derive(Debug, Default)]
pub struct KnownChanges {
    /// New, or used again.
    pub used: Vec<KnownEntry>,
    /// Forgotten.
    pub forgotten: Vec<AdmissionKey>,
}

impl KnownChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty() && self.forgotten.is_empty()
    }
}

/// All that is known.
#[derive(Debug)]
pub(super) struct KnownLogins {
    names: FairMap<AdmissionKey, Noted>,
    places: FairMap<AdmissionKey, Noted>,
    changed: HashMap<AdmissionKey, KnownKind>,
    forgotten: Vec<AdmissionKey>,
}

#[derive(Debug, Default)]
struct Noted {
    /// Since when it is known; `None`: since before the start.
    since: Option<Instant>,
    /// When it was last handed to the state.
    written: Option<Instant>,
}

impl KnownLogins {
    pub(super) fn new() -> Self {
        Self {
            names: FairMap::new(CAPACITY, NAMES_LIVE),
            places: FairMap::new(CAPACITY, PLACES_LIVE),
            changed: HashMap::new(),
            forgotten: Vec::new(),
        }
    }

    pub(super) fn has_name(&self, key: &AdmissionKey, now: Instant) -> bool {
        self.names.get(key, now).is_some()
    }

    /// When a login with the name was last accepted.
    pub(super) fn accepted_at(&self, key: &AdmissionKey) -> Option<Instant> {
        self.names.used(key).map(|(at, _)| at)
    }

    /// Tells whether the name is known for at least so long, or since before the start.
    pub(super) fn is_old_name(&self, key: &AdmissionKey, age: Duration, now: Instant) -> bool {
        let is_old = |since| now.saturating_duration_since(since) >= age;
        self.names.get(key, now).is_some_and(|noted| noted.since.is_none_or(is_old))
    }

    pub(super) fn has_place(&self, key: &AdmissionKey, now: Instant) -> bool {
        self.places.get(key, now).is_some()
    }

    /// Takes in an entry that was part of an accepted login.
    pub(super) fn touch(
        &mut self,
        kind: KnownKind,
        key: AdmissionKey,
        origin: EntryOrigin,
        now: Instant,
    ) {
        let Self { names, places, changed, forgotten } = self;
        let map = if kind == KnownKind::Name { names } else { places };
        let new = || Noted { since: Some(now), written: None };
        let noted = map.entry_evicting(key, origin, now, forgotten, new);
        let is_due =
            noted.written.is_none_or(|then| now.saturating_duration_since(then) >= WRITE_AGAIN);
        if is_due && changed.len() < MAX_CHANGES {
            noted.written = Some(now);
            changed.insert(key, kind);
        }
        // Beyond this the state forgets by itself, by age and number.
        forgotten.truncate(CAPACITY);
    }

    pub(super) fn forget_name(&mut self, key: &AdmissionKey, now: Instant) {
        if self.has_name(key, now) {
            self.names.remove(key);
            self.changed.remove(key);
            self.forgotten.push(*key);
        }
    }

    /// Hands over the changes since the last time.
    pub(super) fn take_changes(&mut self, now: Instant) -> KnownChanges {
        let changed = std::mem::take(&mut self.changed);
        let entry = |(key, kind): (AdmissionKey, KnownKind)| {
            let map = if kind == KnownKind::Name { &self.names } else { &self.places };
            let (used, origin) = map.used(&key)?;
            Some(KnownEntry { key, kind, origin, age: now.saturating_duration_since(used) })
        };
        let used = changed.into_iter().filter_map(entry).collect();
        KnownChanges { used, forgotten: std::mem::take(&mut self.forgotten) }
    }

    /// Takes back what the state has, the oldest first.
    pub(super) fn restore(&mut self, entries: &[KnownEntry], now: Instant) {
        for KnownEntry { key, kind, origin, age } in entries {
            let Some(used) = now.checked_sub(*age) else { continue };
            let map = if *kind == KnownKind::Name { &mut self.names } else { &mut self.places };
            map.entry(*key, *origin, used, Noted::default).written = Some(used);
        }
    }

    /// Takes in what other nodes have stored lately. It counts as known from now on.
    pub(super) fn learn(&mut self, entries: &[KnownEntry], now: Instant) {
        for KnownEntry { key, kind, origin, age } in entries {
            let Some(used) = now.checked_sub(*age) else { continue };
            let map = if *kind == KnownKind::Name { &mut self.names } else { &mut self.places };
            if map.used(key).is_none_or(|(known, _)| known < used) {
                let new = || Noted { since: Some(now), written: None };
                map.entry(*key, *origin, used, new).written = Some(used);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.names.len() + self.places.len()
    }
}
