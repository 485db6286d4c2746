//! Programs of neighbouring versions side by side on one real database: a rolling upgrade.
//!
//! A later version differs from this one by the steps of its tables alone, so that one program can be both: each member opens the
//! state, holds its lease, writes, and reads the events by the code that nodes run, and only the list of steps is another.

use std::time::{Duration, Instant};

use super::NodeId;
use super::lease::{LeaseRequest, Renewal};
use super::postgres_tests::{Member, assert_disjoint};
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::ownership::{Ownership, SLOTS, Slot};
use crate::secret::DeviceToken;
use crate::store::lease_rows::NodeIdentity;
use crate::store::postgres_testing::{Database, Version};
use crate::store::{
    Announce, DualTime, Generation, Noticed, OpenError, Position, StoreError, StoredEvent,
    UnixTime, Uptime, change,
};

const ALL: usize = SLOTS as usize;
const NOW: UnixTime = UnixTime(1_700_000_000);

fn account(number: usize) -> AccountId {
    AccountId::new(&format!("user{number}"), "imap.example.org:993")
}

fn token(number: usize) -> DeviceToken {
    DeviceToken::new(format!("openpgp:{number}").as_bytes()).unwrap()
}

impl Member {
    fn register(&self, number: usize) -> Result<(), StoreError> {
        let user = account(number).user.to_string();
        let credentials = Some(Credentials::new(user, "sesame").into());
        let now = DualTime { wall: NOW, served: Uptime(0) };
        let change = change::register(&account(number), credentials, &token(number), true, now);
        self.runtime.block_on(self.store.commit(change))
    }

    fn notice(&self, number: usize, uid_next: u64) -> Result<Noticed, StoreError> {
        let position = Position { uid_validity: 7, uid_next };
        let change = change::noticed(&account(number), "INBOX", position, Announce::All, NOW);
        self.runtime.block_on(self.store.commit(change))
    }

    /// The tokens that it has to announce.
    fn pending(&self) -> usize {
        let owned: Vec<Slot> = self.ownership.owned().into_iter().map(|(slot, _)| slot).collect();
        self.runtime.block_on(self.store.pending(&owned)).unwrap().unannounced.len()
    }

    fn announce(&self, number: usize) {
        let change = change::announced(&token(number), Generation(u64::MAX), NOW);
        self.runtime.block_on(self.store.commit(change)).unwrap();
    }
}

/// New mail of each account is noticed by its owner alone, marked, and announced.
fn announce_all(members: &[&Member], accounts: usize, uid_next: u64) {
    for number in 0..accounts {
        let slot = Slot::of(&account(number));
        let owns = |member: &&&Member| member.ownership.epoch(slot).is_some();
        let owner = members.iter().find(owns).expect("each slot has an owner");
        for member in members {
            let noticed = member.notice(number, uid_next);
            match member.ownership.epoch(slot) {
                Some(_) => assert_eq!(noticed.unwrap(), Noticed::New),
                None => assert!(matches!(noticed, Err(StoreError::NotOwner)), "{noticed:?}"),
            }
        }
        assert_eq!(owner.pending(), 1);
        owner.announce(number);
        assert_eq!(owner.pending(), 0);
    }
}

fn open_error(version: Version, database: &Database) -> OpenError {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let settings = database.settings("seal.key");
    let opened = version.open(&settings, Ownership::of_node(), 9, drop);
    runtime.block_on(opened).map(drop).unwrap_err()
}

#[test]
fn nodes_are_upgraded_one_after_the_other() {
    let database = Database::new();
    let old = Member::join(&database, 1);
    old.until_owns(ALL, Instant::now());
    old.register(0).unwrap();
    // The next version expands the tables while the old one works.
    let new = Member::join_as(Version::Next, &database, 2);
    assert_eq!(database.sql("SELECT dummy FROM accounts"), "7");
    let begun = Instant::now();
    new.until_owns(512, begun);
    old.until_owns(512, begun);
    assert_disjoint(&[&old, &new]);
    let mut log = new.store.event_log().unwrap();
    let mut read = || new.runtime.block_on(log.read()).unwrap();
    read();
    for number in 1..12 {
        if number % 2 == 0 { &old } else { &new }.register(number).unwrap();
    }
    let told = read();
    for number in (2..12).step_by(2) {
        assert!(told.contains(&StoredEvent::Account(account(number))), "{number}: {told:?}");
    }
    announce_all(&[&old, &new], 12, 5);

    // A version that removes what the old one needs does not start beside it, and changes nothing.
    let refused = open_error(Version::AfterNext, &database);
    assert!(
        matches!(&refused, OpenError::TooNew { nodes } if nodes == "push-1"),
        "the node is named: {refused}"
    );
    assert_eq!(database.sql("SELECT count(*) FROM accounts WHERE dummy = 7"), "12");
    announce_all(&[&old, &new], 12, 6);

    // The old one leaves, and is upgraded.
    let begun = Instant::now();
    old.leave.cancel();
    new.until_owns(ALL, begun);
    old.thread.join().unwrap();
    let newest = Member::join_as(Version::AfterNext, &database, 3);
    let begun = Instant::now();
    newest.until_owns(512, begun);
    new.until_owns(512, begun);
    let columns = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'dummy'";
    assert_eq!(database.sql(columns), "0");
    newest.register(12).unwrap();
    announce_all(&[&new, &newest], 13, 7);
    let refused = open_error(Version::Present, &database);
    assert!(matches!(refused, OpenError::TooOld { .. }), "{refused}");
    assert!(refused.to_string().contains("install the version that the other nodes run"));
    for member in [new, newest] {
        member.leave.cancel();
        member.thread.join().unwrap();
    }
}

/// A node of the old version stands still until its lease has ended; tables that it cannot work with are made meanwhile.
#[test]
fn old_node_that_stood_still_does_not_come_back_after_the_contraction() {
    let database = Database::new();
    let old = Member::join(&database, 1);
    old.until_owns(ALL, Instant::now());
    old.register(0).unwrap();
    old.pause(Duration::from_secs(14));
    let ended = "SELECT count(*) FROM nodes WHERE lease_until > clock_timestamp()";
    let begun = Instant::now();
    while database.sql(ended) != "0" {
        assert!(begun.elapsed() < Duration::from_secs(12), "its lease does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    let newest = Member::join_as(Version::AfterNext, &database, 2);
    newest.until_owns(ALL, Instant::now());
    // This waits until it goes on.
    let refused = old.register(1).unwrap_err();
    assert!(matches!(refused, StoreError::Outdated(_)), "{refused}");
    assert!(refused.to_string().contains("newer version"), "{refused}");
    assert_eq!(database.sql("SELECT count(*) FROM accounts"), "1");
    let identity = NodeIdentity { id: NodeId(1), name: "push-1".to_owned(), lease: super::LEASE };
    let join = LeaseRequest::Renew(Renewal { join: true, ..Renewal::default() });
    let request = old.store.lease_request(&identity, &join, Duration::from_secs(5));
    let refused = old.runtime.block_on(request).unwrap_err();
    assert!(matches!(refused, StoreError::Outdated(_)), "{refused}");
    assert_eq!(old.owns(), 0);
    assert_eq!(database.sql("SELECT count(*) FROM nodes"), "1");
    newest.leave.cancel();
    newest.thread.join().unwrap();
    old.kill();
}
