//! A place in the event log, and the signs that the log has lost rows since.
//!
//! Transactions are committed in another order than rows get their numbers. So a read names the transactions whose rows the last
//! one could not see: those that were under way, and all that began later. However long a transaction of somebody else stays
//! open, no row is read twice.
//!
//! A standby that becomes the primary may lack commits, and then it gives their numbers out again. It lacks the latest: so the
//! rows that came last, and the last one that this node has written, are looked for at each read. Numbers that are given out
//! again are higher than those of all rows that were seen and are still there.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::events::StoredEvent;
use super::unseen::Unseen;

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

/// Rows of the log.
pub(super) struct Found {
    pub(super) unseen: Unseen,
    /// The database's time, in microseconds.
    pub(super) time: i64,
    pub(super) rows: Vec<StoredRow>,
}

/// A place in the log.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The newest transaction with rows that were seen.
    newest: i64,
    /// Older ones that were still under way.
    running: Vec<i64>,
    /// A row of each transaction whose rows came last and were young then, and when they came.
    latest: HashSet<EventKey>,
    came: Instant,
    /// The newest row of this node that was seen.
    own: i64,
    /// A row of this node that was found to be lost.
    lost: Option<EventKey>,
    /// The age of the oldest row that came with the last read.
    lag: Option<Duration>,
}

impl Place {
    /// The place after these rows, which are the newest that there are.
    pub(super) fn after(found: &Found, told: Option<Told>, now: Instant) -> Self {
        let mut place = Self {
            newest: 0,
            running: Vec::new(),
            latest: HashSet::new(),
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

    /// All rows of later transactions are to be read,
    pub(super) const fn newest(&self) -> i64 {
        self.newest
    }

    /// and those of these,
    pub(super) fn running(&self) -> &[i64] {
        &self.running
    }

    /// and these rows, which must still be there.
    pub(super) fn latest(&self) -> impl Iterator<Item = i64> {
        self.latest.iter().map(|key| key.id)
    }

    /// Reports if the database has lost commits. `found` is what is to be read from this place.
    pub(super) fn is_rewound(&self, found: &Found, told: Option<Told>, now: Instant) -> bool {
        let is_kept = |at: Instant| now.saturating_duration_since(at) < KEPT;
        let rows: HashSet<EventKey> = found.rows.iter().map(|row| row.key).collect();
        let is_there = |key: &EventKey| rows.contains(key);
        let is_lost = |(key, at): Told| {
            key.id > self.own && self.lost != Some(key) && is_kept(at) && !is_there(&key)
        };
        found.unseen.next <= self.newest
            || is_kept(self.came) && !self.latest.iter().all(is_there)
            || told.is_some_and(is_lost)
    }

    /// Takes the place after the rows, and returns the events of those that are new.
    pub(super) fn advance(&mut self, mut found: Found, now: Instant) -> Vec<StoredEvent> {
        let is_new = |row: &StoredRow| {
            row.transaction > self.newest || self.running.contains(&row.transaction)
        };
        found.rows.retain(is_new);
        self.pass(&found, now);
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
        if !new.rows.is_empty() {
            let young = |row: &&StoredRow| row.key.at > new.time.saturating_sub(YOUNG);
            let young = new.rows.iter().filter(young);
            // All rows of a transaction are there, or none.
            let latest: BTreeMap<i64, EventKey> =
                young.map(|row| (row.transaction, row.key)).collect();
            (self.latest, self.came) = (latest.into_values().collect(), now);
        }
        let newest = new.rows.iter().map(|row| row.transaction).max();
        self.newest = newest.unwrap_or_default().max(self.newest);
        let newest = self.newest;
        let running = new.unseen.running.iter().copied();
        self.running = running.filter(|transaction| *transaction < newest).collect();
        let own = new.rows.iter().filter(|row| row.is_own).map(|row| row.key.id);
        self.own = own.chain([self.own]).max().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows by their numbers and transactions; those from 100 on are this node's.
    fn found(snapshot: &str, rows: &[(i64, i64)]) -> Found {
        let row = |(id, transaction): &(i64, i64)| StoredRow {
            key: key(*id),
            transaction: *transaction,
            is_own: *id >= 100,
            event: Some(StoredEvent::Pending(vec![u8::try_from(*id).unwrap()])),
        };
        let unseen = Unseen::parse(snapshot).unwrap();
        Found { unseen, time: 0, rows: rows.iter().map(row).collect() }
    }

    fn key(id: i64) -> EventKey {
        EventKey { id, at: 0 }
    }

    /// The rows that are to be read.
    fn from(place: &Place, snapshot: &str, rows: &[(i64, i64)]) -> Found {
        let latest: Vec<i64> = place.latest().collect();
        let is_read = |(id, transaction): &(i64, i64)| {
            *transaction > place.newest()
                || place.running().contains(transaction)
                || latest.contains(id)
        };
        found(snapshot, &rows.iter().copied().filter(is_read).collect::<Vec<_>>())
    }

    fn read(place: &mut Place, snapshot: &str, rows: &[(i64, i64)]) -> Vec<u8> {
        let now = Instant::now();
        assert!(!place.is_rewound(&from(place, snapshot, rows), None, now));
        let news = place.advance(from(place, snapshot, rows), now);
        let number = |event| match event {
            StoredEvent::Pending(number) => number[0],
            event => panic!("{event:?}"),
        };
        news.into_iter().map(number).collect()
    }

    #[test]
    fn each_row_is_news_once_whenever_it_is_committed() {
        let mut rows = vec![(1, 9), (2, 11)];
        let mut place = Place::after(&found("10:12:10", &rows), None, Instant::now());
        rows.push((4, 12));
        assert_eq!(read(&mut place, "10:13:10", &rows), [4]);
        rows.push((3, 10));
        assert_eq!(read(&mut place, "13:13:", &rows), [3], "committed late");
        assert_eq!(read(&mut place, "13:13:", &rows), [0; 0]);
        rows.push((5, 13));
        assert_eq!(read(&mut place, "14:14:", &rows), [5]);
        assert_eq!(read(&mut place, "20:20:", &rows), [0; 0]);
    }

    #[test]
    fn transaction_that_stays_open_makes_no_read_longer() {
        let mut rows = vec![(1, 9)];
        let mut place = Place::after(&found("5:10:5", &rows), None, Instant::now());
        for transaction in 10..60 {
            rows.push((transaction, transaction));
            let snapshot = format!("5:{}:5", transaction + 1);
            assert!(from(&place, &snapshot, &rows).rows.len() <= 2, "the new one, and the last");
            assert_eq!(read(&mut place, &snapshot, &rows), [u8::try_from(transaction).unwrap()]);
        }
        // It was one of a node.
        rows.push((2, 5));
        assert_eq!(read(&mut place, "60:60:", &rows), [2]);
        assert_eq!(read(&mut place, "60:60:", &rows), [0; 0]);
    }

    #[test]
    fn lost_commits_are_noticed_by_what_came_last() {
        let now = Instant::now();
        let mut place = Place::after(&found("10:10:", &[(1, 5)]), None, now);
        assert_eq!(read(&mut place, "11:13:11", &[(1, 5), (2, 12)]), [2]);
        assert_eq!(read(&mut place, "20:20:", &[(1, 5), (2, 12), (3, 11)]), [3]);
        let is_rewound = |snapshot, rows: &[(i64, i64)], now| {
            place.is_rewound(&from(&place, snapshot, rows), None, now)
        };
        // The transactions after 12 are lost, and their numbers are given out once more.
        assert_eq!(read(&mut place.clone(), "14:14:", &[(2, 12), (3, 11), (4, 13)]), [4]);
        assert!(is_rewound("30:30:", &[(2, 12), (4, 25)], now), "3 was read last");
        let mut again = found("30:30:", &[(3, 11)]);
        again.rows[0].key.at = 9;
        assert!(place.is_rewound(&again, None, now), "another row with the number");
        assert!(is_rewound("10:10:", &[(3, 11)], now), "another server");
        assert!(!is_rewound("30:30:", &[], now + 2 * KEPT), "it was removed by and by");
    }

    #[test]
    fn one_row_of_each_transaction_is_looked_for() {
        let rows = [(1, 5), (2, 5), (3, 6), (4, 6)];
        let place = Place::after(&found("7:7:", &rows), None, Instant::now());
        assert_eq!(place.latest().count(), 2);
    }

    #[test]
    fn rows_that_are_removed_by_and_by_are_not_missed() {
        let now = Instant::now();
        let old = Found { time: YOUNG, ..found("10:10:", &[(1, 5)]) };
        let place = Place::after(&old, None, now);
        assert_eq!(place.newest(), 5, "numbers after it may be given out again all the same");
        assert!(!place.is_rewound(&found("30:30:", &[]), None, now));
        let place = Place::after(&found("10:10:", &[]), None, now);
        assert_eq!(place.newest(), 0);
    }

    #[test]
    fn own_commits_that_are_lost_are_noticed_once() {
        let now = Instant::now();
        let told = |id| Some((key(id), now));
        let mut place = Place::after(&found("10:10:", &[(100, 5)]), told(100), now);
        let is_rewound = |place: &Place, rows: &[(i64, i64)], told, now| {
            place.is_rewound(&from(place, "20:20:", rows), told, now)
        };
        assert!(!is_rewound(&place, &[(100, 5)], told(100), now));
        assert!(!is_rewound(&place, &[(100, 5), (101, 11)], told(101), now));
        assert_eq!(read(&mut place, "20:20:", &[(100, 5), (101, 11)]), [101]);
        assert_eq!(read(&mut place, "20:20:", &[(100, 5), (101, 11), (1, 15)]), [1]);
        assert!(!is_rewound(&place, &[(1, 15)], told(101), now), "it was seen");
        assert!(is_rewound(&place, &[(1, 15)], told(102), now));
        assert!(!is_rewound(&place, &[(1, 15)], told(102), now + KEPT));
        let place = Place::after(&found("20:20:", &[(1, 15)]), told(102), now);
        assert!(!is_rewound(&place, &[(1, 15)], told(102), now));
    }
}
