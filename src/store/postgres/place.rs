//! A place in the event log, and the signs that the log has lost rows since.
//!
//! Transactions are committed in another order than rows get their numbers. So the log is read from the oldest transaction
//! that was under way, and rows that were seen are skipped.
//!
//! A standby that becomes the primary may lack commits, and then it gives their numbers out again. It lacks the latest: so the
//! rows that came last, and the last one that this node has written, are looked for at each read.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::events::StoredEvent;

/// Rows are removed ten minutes after they were written. Those that were young when they came are there for so long.
const KEPT: Duration = Duration::from_secs(8 * 60);
/// The age of a young row, in microseconds.
const YOUNG: i64 = 60_000_000;

/// A row of the log. Its number alone may be given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store) struct EventKey {
    pub(super) id: i64,
    /// In microseconds, by the database's clock.
    pub(super) at: i64,
}

/// A row that this node has written, and when its commit was acknowledged.
pub(super) type Told = (EventKey, Instant);

pub(super) struct StoredRow {
    pub(super) key: EventKey,
    pub(super) transaction: i64,
    /// True if this node has written it, by a change: not by a request of its lease.
    pub(super) is_own: bool,
    /// None if it is of no interest here.
    pub(super) event: Option<StoredEvent>,
}

/// Rows of the log from a transaction on.
pub(super) struct Found {
    /// The oldest transaction that was under way.
    pub(super) oldest: i64,
    /// The database's time, in microseconds.
    pub(super) time: i64,
    pub(super) rows: Vec<StoredRow>,
}

/// A place in the log.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The first transaction to read: no older one is under way, and the rows that came last are not older.
    since: i64,
    /// The rows from there on that were seen.
    seen: HashSet<EventKey>,
    /// Those of the rows that came last that were young then, the oldest transaction of them all, and when they came.
    latest: HashSet<EventKey>,
    latest_from: i64,
    came: Instant,
    /// The newest row of this node that was seen.
    own: i64,
    /// A row of this node that was found to be lost.
    lost: Option<EventKey>,
    /// The age of the oldest row that came with the last read.
    lag: Option<Duration>,
}

impl Place {
    /// The place after these rows, which are all that there are.
    pub(super) fn after(found: &Found, told: Option<Told>, now: Instant) -> Self {
        let mut place = Self {
            since: found.oldest,
            seen: HashSet::new(),
            latest: HashSet::new(),
            latest_from: 0,
            came: now,
            own: 0,
            lost: None,
            lag: None,
        };
        place.pass(found, now);
        place.lag = None;
        place.lost = told.map(|(key, _)| key).filter(|key| key.id > place.own);
        place
    }

    /// The first transaction to read.
    pub(super) const fn since(&self) -> i64 {
        self.since
    }

    /// Reports if the database has lost commits. `found` begins at [`since`](Self::since).
    pub(super) fn is_rewound(&self, found: &Found, told: Option<Told>, now: Instant) -> bool {
        let is_kept = |at: Instant| now.saturating_duration_since(at) < KEPT;
        let rows: HashSet<EventKey> = found.rows.iter().map(|row| row.key).collect();
        let is_there = |key: &EventKey| rows.contains(key);
        let is_lost = |(key, at): Told| {
            key.id > self.own && self.lost != Some(key) && is_kept(at) && !is_there(&key)
        };
        found.oldest < self.since
            || is_kept(self.came) && !self.latest.iter().all(is_there)
            || told.is_some_and(is_lost)
    }

    /// Takes the place after the rows, and returns the events of those that are new.
    pub(super) fn advance(&mut self, mut found: Found, now: Instant) -> Vec<StoredEvent> {
        let before = std::mem::take(&mut self.seen);
        let is_new = |row: &StoredRow| !before.contains(&row.key);
        let seen: Vec<_> = found.rows.extract_if(.., |row| !is_new(row)).collect();
        self.pass(&found, now);
        let kept = seen.iter().filter(|row| row.transaction >= self.since);
        self.seen.extend(kept.map(|row| row.key));
        found.rows.into_iter().filter_map(|row| row.event).collect()
    }

    /// The age of the oldest row that came with the last read, if any came.
    pub(super) const fn lag(&self) -> Option<Duration> {
        self.lag
    }

    /// Passes new rows.
    fn pass(&mut self, new: &Found, now: Instant) {
        let age = |row: &StoredRow| {
            Duration::from_micros(
                u64::try_from(new.time.saturating_sub(row.key.at)).unwrap_or_default(),
            )
        };
        self.lag = new.rows.iter().map(age).max();
        if let Some(first) = new.rows.iter().map(|row| row.transaction).min() {
            let young = |key: &EventKey| key.at > new.time.saturating_sub(YOUNG);
            self.latest = new.rows.iter().map(|row| row.key).filter(young).collect();
            (self.latest_from, self.came) = (first, now);
        }
        self.since = new.oldest.min(self.latest_from);
        self.seen.extend(new.rows.iter().map(|row| row.key));
        let own = new.rows.iter().filter(|row| row.is_own).map(|row| row.key.id);
        self.own = own.chain([self.own]).max().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows by their numbers and transactions; those from 100 on are this node's.
    fn found(oldest: i64, rows: &[(i64, i64)]) -> Found {
        let row = |(id, transaction): &(i64, i64)| StoredRow {
            key: key(*id),
            transaction: *transaction,
            is_own: *id >= 100,
            event: Some(StoredEvent::Pending(vec![u8::try_from(*id).unwrap()])),
        };
        Found { oldest, time: 0, rows: rows.iter().map(row).collect() }
    }

    fn key(id: i64) -> EventKey {
        EventKey { id, at: 0 }
    }

    fn read(place: &mut Place, oldest: i64, rows: &[(i64, i64)]) -> Vec<u8> {
        let now = Instant::now();
        let rows: Vec<_> = rows.iter().copied().filter(|row| row.1 >= place.since()).collect();
        assert!(!place.is_rewound(&found(oldest, &rows), None, now));
        let news = place.advance(found(oldest, &rows), now);
        let number = |event| match event {
            StoredEvent::Pending(number) => number[0],
            event => panic!("{event:?}"),
        };
        news.into_iter().map(number).collect()
    }

    #[test]
    fn each_row_is_news_once_whenever_it_is_committed() {
        let mut rows = vec![(1, 9), (2, 11)];
        let mut place = Place::after(&found(10, &rows), None, Instant::now());
        rows.push((4, 12));
        assert_eq!(read(&mut place, 10, &rows), [4]);
        rows.push((3, 10));
        assert_eq!(read(&mut place, 10, &rows), [3], "committed late");
        assert_eq!(read(&mut place, 13, &rows), [0; 0]);
        rows.push((5, 13));
        assert_eq!(read(&mut place, 14, &rows), [5]);
        assert_eq!(place.since(), 13, "the row that came last is looked for");
        assert_eq!(read(&mut place, 20, &rows), [0; 0]);
        assert_eq!((place.since(), place.seen.len()), (13, 1));
    }

    #[test]
    fn lost_commits_are_noticed_by_what_came_last() {
        let now = Instant::now();
        let mut place = Place::after(&found(10, &[(1, 5)]), None, now);
        assert_eq!(read(&mut place, 11, &[(1, 5), (2, 12)]), [2]);
        assert_eq!(read(&mut place, 20, &[(1, 5), (2, 12), (3, 11)]), [3]);
        // The transactions after 11 are lost, and their numbers are given out once more.
        assert_eq!(read(&mut place.clone(), 30, &[(2, 12), (3, 11), (4, 12)]), [4]);
        assert!(place.is_rewound(&found(30, &[(2, 12), (4, 25)]), None, now), "3 was read last");
        let again =
            StoredRow { key: EventKey { id: 3, at: 9 }, ..found(0, &[(3, 11)]).rows.remove(0) };
        let again = Found { oldest: 30, time: 0, rows: vec![again] };
        assert!(place.is_rewound(&again, None, now), "another row with the number");
        assert!(place.is_rewound(&found(10, &[(3, 11)]), None, now), "another server");
        let later = now + 2 * KEPT;
        assert!(!place.is_rewound(&found(30, &[]), None, later), "it was removed by and by");
    }

    #[test]
    fn rows_that_are_removed_by_and_by_are_not_missed() {
        let now = Instant::now();
        let old = Found { time: YOUNG, ..found(10, &[(1, 5)]) };
        let place = Place::after(&old, None, now);
        assert_eq!(place.since(), 5, "numbers after it may be given out again all the same");
        assert!(!place.is_rewound(&found(30, &[]), None, now));
        let place = Place::after(&found(10, &[]), None, now);
        assert_eq!(place.since(), 0);
    }

    #[test]
    fn own_commits_that_are_lost_are_noticed_once() {
        let now = Instant::now();
        let told = |id| Some((key(id), now));
        let mut place = Place::after(&found(10, &[(100, 5)]), told(100), now);
        assert!(!place.is_rewound(&found(20, &[(100, 5)]), told(100), now));
        assert!(!place.is_rewound(&found(20, &[(100, 5), (101, 11)]), told(101), now));
        assert_eq!(read(&mut place, 20, &[(100, 5), (101, 11)]), [101]);
        assert_eq!(read(&mut place, 20, &[(100, 5), (101, 11), (1, 15)]), [1]);
        assert!(!place.is_rewound(&found(20, &[(1, 15)]), told(101), now), "it was seen");
        assert!(place.is_rewound(&found(20, &[(1, 15)]), told(102), now));
        assert!(!place.is_rewound(&found(20, &[(1, 15)]), told(102), now + KEPT));
        let place = Place::after(&found(20, &[(1, 15)]), told(102), now);
        assert!(!place.is_rewound(&found(20, &[(1, 15)]), told(102), now));
    }
}
