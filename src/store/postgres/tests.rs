//! Several nodes with one state, in a real PostgreSQL.

mod loads;
mod log;
mod posters;
mod scans;
mod together;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::*;
use super::testing::Database;
use crate::credentials::Credentials;
use crate::ownership::{Epoch, Ownership, Slot};
use crate::secret::DeviceToken;

const NOW: UnixTime = UnixTime(1_700_000_000);
const MOMENT: DualTime = DualTime { wall: NOW, served: Uptime(0) };

/// A node, and what it was told.
struct Node {
    store: Store,
    ownership: Ownership,
    changes: Arc<Mutex<Vec<Change>>>,
    id: i64,
}

impl Node {
    async fn new(database: &Database, id: i64) -> Self {
        let (ownership, changes) = (Ownership::of_node(), Arc::<Mutex<Vec<Change>>>::default());
        let seen = Arc::clone(&changes);
        let changed = move |change| seen.lock().unwrap().push(change);
        let settings = database.settings("seal.key");
        let opened = Store::open_postgres(&settings, ownership.clone(), id, changed).await;
        Self { store: opened.unwrap().0, ownership, changes, id }
    }

    async fn register(&self, user: &str, name: &str) {
        let credentials = Some(Arc::new(Credentials::new(user, "sesame")));
        let change = change::register(&account(user), credentials, &token(name), true, MOMENT);
        self.store.commit(change).await.unwrap();
    }

    async fn notice(&self, user: &str, uid_next: u64) -> Result<Noticed, StoreError> {
        let position = Position { uid_validity: 7, uid_next };
        let change = change::noticed(&account(user), "INBOX", position, Announce::All, NOW);
        self.store.commit(change).await
    }

    /// A look of Alice's watch up to `uid_next`, with messages that deserve a push up to `news_next` if there are any.
    async fn look(&self, uid_next: u64, news_next: Option<u64>) -> Noticed {
        let position = Position { uid_validity: 7, uid_next };
        let look = Look { position, news_next: news_next.unwrap_or(uid_next) };
        let announce = Announce::from(news_next.is_some());
        let change = change::noticed(&account("alice"), "INBOX", look, announce, NOW);
        self.store.commit(change).await.unwrap()
    }

    /// UIDNEXT up to which Alice's mailbox is looked through.
    async fn next(&self) -> u64 {
        self.store.positions(&account("alice")).await.unwrap()[0].1.uid_next
    }

    async fn post_of(&self, name: &str) -> TokenPost {
        let posts = self.store.token_posts(&[hash(name)]).await.unwrap();
        posts.into_iter().next().unwrap()
    }

    async fn posts(&self, name: &str) -> bool {
        matches!(self.post_of(name).await, TokenPost::Own(_))
    }

    /// The announcements of a token that this node posts.
    async fn left_to_post(&self, name: &str) -> Vec<Unannounced> {
        match self.post_of(name).await {
            TokenPost::Own(left) => left.unannounced,
            other => panic!("{other:?}"),
        }
    }

    fn pending(&self) -> Vec<DeviceToken> {
        let changes = self.changes.lock().unwrap();
        let pending = changes.iter().filter_map(|change| match change {
            Change::Pending { tokens, .. } => Some(tokens.clone()),
            _ => None,
        });
        pending.flatten().collect()
    }
}

fn account(user: &str) -> AccountId {
    AccountId::new(user, "imap.example.org:993")
}

fn token(name: &str) -> DeviceToken {
    DeviceToken::new(format!("openpgp:{name}").as_bytes()).unwrap()
}

fn slot(user: &str) -> Slot {
    Slot::of(&account(user))
}

fn hash(name: &str) -> Vec<u8> {
    operations::hash(&token(name)).as_ref().to_vec()
}

#[tokio::test]
async fn owner_alone_moves_positions_and_marks() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    one.register("alice", "a").await;
    assert!(matches!(one.notice("alice", 5).await, Err(StoreError::NotOwner)), "owned by nobody");
    database.give(1, &one.ownership, &[slot("alice")]);
    assert_eq!(one.notice("alice", 5).await.unwrap(), Noticed::New);
    assert_eq!(one.pending(), [token("a")]);

    // The other one takes over while the first is paused and does not know.
    database.give(2, &two.ownership, &[slot("alice")]);
    assert!(matches!(one.notice("alice", 9).await, Err(StoreError::NotOwner)));
    let newest = Generation(u64::MAX);
    for refused in [
        one.store.commit(change::announced(&token("a"), newest, NOW)).await,
        one.store.commit(change::gave_up(&token("a"), newest, "refused", NOW)).await,
        one.store.commit(change::call(&account("alice"), NOW)).await,
        one.store.commit(change::quarantined(&token("a"), 1, NOW, MOMENT)).await.map(drop),
        one.store
            .commit(change::told(&account("alice"), "INBOX", None, Announce::All, NOW))
            .await
            .map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::NotOwner)), "{refused:?}");
    }
    assert!(!one.store.is_failing(), "the database works");
    let left = two.store.pending(&[slot("alice")]).await.unwrap();
    assert_eq!(
        left.unannounced.iter().map(|found| &found.token).collect::<Vec<_>>(),
        [&token("a")]
    );
    let position = Position { uid_validity: 7, uid_next: 5 };
    let positions = two.store.positions(&account("alice")).await.unwrap();
    assert_eq!(positions, [(MailboxName::inbox(), position)]);
    assert_eq!(two.notice("alice", 5).await.unwrap(), Noticed::Known, "announced by the first");
    assert_eq!(two.notice("alice", 4).await.unwrap(), Noticed::Known);
    assert_eq!(two.pending(), [], "nothing is announced twice");
    assert_eq!(two.notice("alice", 6).await.unwrap(), Noticed::New);
    two.store.commit(change::announced(&token("a"), newest, UnixTime::now())).await.unwrap();
    let left = two.store.pending(&[slot("alice")]).await.unwrap();
    assert_eq!(left.unannounced, []);
    let loaded = two.store.load_slots(&[slot("alice")]).await.unwrap();
    assert_eq!(loaded.accepted.len(), 1, "posted lately");
    for node in [one, two] {
        node.store.close().await;
    }
}

/// While an account moves, the next owner looks into its mailboxes before it owns it, and what it finds is stored later.
#[tokio::test]
async fn next_owner_announces_nothing_again_that_it_found_with_other_messages() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    one.register("alice", "a").await;
    database.give(1, &one.ownership, &[slot("alice")]);
    assert_eq!(one.look(6, Some(6)).await, Noticed::New);
    database.give(2, &two.ownership, &[slot("alice")]);
    assert_eq!(two.look(8, Some(6)).await, Noticed::Known, "others wake nobody");
    assert_eq!((two.next().await, two.pending()), (8, vec![]));
    assert_eq!(two.look(7, None).await, Noticed::New);
    assert_eq!(two.next().await, 8, "nothing is forgotten");
    assert_eq!(two.look(8, Some(8)).await, Noticed::Known);
    assert_eq!(two.look(9, Some(9)).await, Noticed::New);
    assert_eq!(two.pending(), [token("a")]);
    assert_eq!(two.look(3, Some(3)).await, Noticed::Known);
    for node in [one, two] {
        node.store.close().await;
    }
}

/// A standby becomes the primary without the claim of the first node: the second one claims in the same epoch.
#[tokio::test]
async fn epoch_that_was_given_out_twice_is_its_owners() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    one.register("alice", "a").await;
    database.give(1, &one.ownership, &[slot("alice")]);
    let epoch = one.ownership.epoch(slot("alice")).unwrap();
    database.sql(&format!("UPDATE slots SET owner = 2 WHERE slot = {}", slot("alice").number()));
    two.ownership.grant(slot("alice"), epoch);
    assert!(matches!(one.notice("alice", 5).await, Err(StoreError::NotOwner)));
    assert_eq!(two.notice("alice", 5).await.unwrap(), Noticed::New);
}

#[tokio::test]
async fn facts_about_servers_are_known_to_all_and_sealed() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    let fact = |value: &str, found| StoredFact {
        name: "domain example.org".to_owned(),
        value: value.into(),
        found: UnixTime(found),
    };
    let share = async |node: &Node, fact| {
        let facts = vec![fact];
        node.store.commit(change::share_server_facts(facts, UnixTime(1000))).await.unwrap();
    };
    let known = async |since| two.store.server_facts_since(UnixTime(since)).await.unwrap();
    share(&one, fact("first", 10)).await;
    assert_eq!((known(1000).await, known(1001).await), (vec![fact("first", 10)], vec![]));
    share(&two, fact("second", 20)).await;
    share(&one, fact("late", 15)).await;
    assert_eq!(known(0).await, [fact("second", 20)]);
    let readable = "SELECT count(*) FROM server_facts WHERE position('second'::BYTEA IN value) > 0";
    assert_eq!(database.sql(readable), "0");
    database.sql("UPDATE server_facts SET name = 'domain evil.example'");
    assert_eq!(known(0).await, [], "a fact is bound to its name");
    let later = UnixTime(1000 + 9 * 24 * 3600);
    one.store.commit(change::share_server_facts(vec![], later)).await.unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM server_facts"), "0", "nobody has found it again");
    for node in [one, two] {
        node.store.close().await;
    }
}

/// Up to where there is something to announce to the token `a`.
async fn newest_generation(node: &Node) -> Generation {
    match node.post_of("a").await {
        TokenPost::Own(loaded) => loaded.unannounced[0].generation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn generations_go_on_where_a_standby_lacks_the_last_ones() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    one.register("alice", "a").await;
    let mut last = Generation::default();
    for (uid_next, lost) in [(5, "1"), (6, "1"), (7, "9000000000000000000")] {
        one.notice("alice", uid_next).await.unwrap();
        let next = newest_generation(&one).await;
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
        database.sql(&format!("SELECT setval('generations', {lost})"));
    }
    one.notice("alice", 8).await.unwrap();
    let next = newest_generation(&one).await;
    assert_eq!(next, Generation(9_000_000_000_000_000_001), "the clock was set back");
}

#[tokio::test]
async fn token_of_two_nodes_is_posted_by_the_owner_of_its_first_account() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    assert_ne!(slot("alice"), slot("bob"));
    one.register("alice", "shared").await;
    two.register("bob", "shared").await;
    database.give(1, &one.ownership, &[slot("alice")]);
    database.give(2, &two.ownership, &[slot("bob")]);
    let mut log = one.store.event_log().unwrap();
    assert_eq!(log.read().await.unwrap(), []);
    two.notice("bob", 5).await.unwrap();
    assert_eq!(two.pending(), []);
    tokio::time::timeout(Duration::from_secs(3), log.changed()).await.unwrap();
    assert_eq!(log.read().await.unwrap(), [StoredEvent::Pending(hash("shared"))]);
    assert_eq!(log.read().await.unwrap(), []);
    let [mine] = one.left_to_post("shared").await.try_into().unwrap();
    assert_eq!(mine.token, token("shared"));
    assert!(!two.posts("shared").await);
    assert_eq!(two.store.pending(&[slot("bob")]).await.unwrap().unannounced, []);
    one.store.commit(change::announced(&token("shared"), mine.generation, NOW)).await.unwrap();
    assert_eq!(one.left_to_post("shared").await, []);
    one.store.commit(change::remove_account(&account("alice"))).await.unwrap();
    two.notice("bob", 6).await.unwrap();
    assert_eq!(two.pending(), [token("shared")], "now it is the only one");
}

#[tokio::test]
async fn changes_of_clients_reach_the_other_nodes() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    let mut log = two.store.event_log().unwrap();
    log.read().await.unwrap();
    one.register("alice", "a").await;
    one.store.commit(change::client_idles(&account("alice"), "INBOX", Uptime(3))).await.unwrap();
    let fetches = StoredEvent::Fetches(account("alice"), hash("a"));
    one.store.commit(change::tell(fetches.clone())).await.unwrap();
    two.store.commit(change::tell(StoredEvent::Slots)).await.unwrap();
    let changed = StoredEvent::Account(account("alice"));
    assert_eq!(log.read().await.unwrap(), [changed.clone(), changed.clone(), fetches]);
    let loaded = two.store.load_account(&account("alice")).await.unwrap();
    let [alice] = loaded.accounts.as_slice() else { panic!("{loaded:?}") };
    assert_eq!(alice.credentials.as_deref(), Some(&Credentials::new("alice", "sesame")));
    assert_eq!(alice.idled, [Idled { name: "INBOX".into(), last: Uptime(3) }]);
    assert_eq!(two.store.load_slots(&[slot("alice")]).await.unwrap(), loaded);
    let other = Slot::all().find(|other| *other != slot("alice")).unwrap();
    assert_eq!(two.store.load_slots(&[other]).await.unwrap(), Loaded::default());
    two.store.commit(change::remove_token(&account("alice"), &token("a"))).await.unwrap();
    assert_eq!(log.read().await.unwrap(), [], "its own");
    assert_eq!(one.store.load_account(&account("alice")).await.unwrap(), Loaded::default());
}

/// The next events. Transactions of other tests may be under way, whose end is waited for.
async fn next_events(log: &mut EventLog) -> Vec<StoredEvent> {
    let next = async {
        loop {
            log.changed().await;
            let events = log.read().await.unwrap();
            if !events.is_empty() {
                return events;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), next).await.unwrap()
}

/// A commit that was not answered: the change is in the database, and the node that made it hears of it from the log.
#[tokio::test]
async fn change_of_unknown_outcome_is_told_to_its_own_node() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    let mut log = one.store.event_log().unwrap();
    log.read().await.unwrap();
    one.register("alice", "a").await;
    one.notice("alice", 5).await.unwrap();
    assert_eq!(log.read().await.unwrap(), []);
    one.store.shared.as_ref().unwrap().doubts.add();
    let expected = [StoredEvent::Account(account("alice")), StoredEvent::Pending(hash("a"))];
    assert_eq!(next_events(&mut log).await, expected);
    assert_eq!(log.read().await.unwrap(), []);
}

/// The same while the server is still at the commit: it waits for its standby, and nobody waits for it.
#[tokio::test]
async fn change_of_unknown_outcome_is_told_when_the_server_has_ended_it() {
    let database = Arc::new(Database::new());
    let one = Node::new(&database, 1).await;
    let mut log = one.store.event_log().unwrap();
    log.read().await.unwrap();
    let server = Arc::clone(&database);
    let commit = tokio::task::spawn_blocking(move || {
        server.sql(
            "BEGIN; INSERT INTO events (node, kind, data) VALUES (1, 'account', 'alice\\000imap.example.org:993');
             SELECT pg_sleep(1.5); COMMIT",
        )
    });
    let sleeps = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while database.sql(sleeps) == "0" {
        assert!(!commit.is_finished(), "it does not take its time");
    }
    one.store.shared.as_ref().unwrap().doubts.add();
    assert_eq!(log.read().await.unwrap(), [], "it is not visible yet");
    let told = next_events(&mut log).await;
    assert_eq!(told, [StoredEvent::Account(account("alice"))]);
    assert_eq!(log.read().await.unwrap(), []);
    commit.await.unwrap();
}

/// Two nodes change the same rows in opposite orders: the database ends one transaction, and its changes are made again.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_collide_are_all_made() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    for user in ["alice", "bob"] {
        one.register(user, user).await;
    }
    let touch = |names: [&'static str; 2]| {
        move |state: &mut Operation<'_>| {
            for name in names {
                state.sql.execute(
                    "UPDATE accounts SET called = coalesce(called, 0) + 1 WHERE name = ?1",
                    sql::values![name],
                )?;
                state.sql.execute("SELECT pg_sleep(0.3)", &[])?;
            }
            Ok(())
        }
    };
    let (first, second) = tokio::join!(
        one.store.commit(touch(["alice", "bob"])),
        two.store.commit(touch(["bob", "alice"])),
    );
    first.unwrap();
    second.unwrap();
    assert_eq!(database.sql("SELECT sum(called) FROM accounts"), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_change_takes_no_other_with_it() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    one.register("alice", "a").await;
    one.changes.lock().unwrap().clear();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let gate = tokio::spawn({
        let store = one.store.clone();
        async move { store.commit(move |_| Ok(held.recv().ok())).await }
    });
    let broken = |state: &mut Operation<'_>| {
        state.tell(StoredEvent::Rewatch(account("alice")))?;
        state.changes.push(Change::Gone { token: token("x") });
        Ok(state.sql.execute("INSERT INTO mailboxes VALUES (99, 'no such account', 1, 1)", &[])?)
    };
    let nul = change::client_idles(&account("alice"), "a\0b", Uptime(1));
    let changes = async {
        tokio::join!(
            one.notice("alice", 5),
            one.store.commit(broken),
            one.store.commit(nul),
            one.store.commit(change::client_idles(&account("alice"), "INBOX", Uptime(1))),
            async { release.send(()).unwrap() },
        )
    };
    let (noticed, broken, nul, idles, ()) = changes.await;
    gate.await.unwrap().unwrap();
    assert_eq!(noticed.unwrap(), Noticed::New);
    assert!(matches!(broken, Err(StoreError::Refused(_))), "{broken:?}");
    assert!(matches!(nul, Err(StoreError::Nul)), "{nul:?}");
    idles.unwrap();
    let changes = one.changes.lock().unwrap();
    assert!(
        matches!(changes.as_slice(), [Change::Pending { .. }, Change::Idled { .. }]),
        "{changes:?}"
    );
    assert_eq!(database.sql("SELECT count(*) FROM events WHERE kind = 'rewatch'"), "0");
}

/// A token that another node adds to an account while its last one is removed is not removed with it.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_token_survives_the_end_of_the_last_one() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    for _ in 0..30 {
        one.register("alice", "old").await;
        let added = change::register(&account("alice"), None, &token("new"), true, MOMENT);
        let (removed, added) = tokio::join!(
            one.store.commit(change::remove_token(&account("alice"), &token("old"))),
            two.store.commit(added),
        );
        removed.unwrap();
        added.unwrap();
        let loaded = one.store.load_account(&account("alice")).await.unwrap();
        let tokens: Vec<_> = loaded.accounts.iter().flat_map(|found| &found.tokens).collect();
        assert_eq!(tokens.iter().map(|found| &found.token).collect::<Vec<_>>(), [&token("new")]);
        one.store.commit(change::remove_account(&account("alice"))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_opened_again() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    one.register("alice", "a").await;
    let end_all = || {
        database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    };
    let mut log = one.store.event_log().unwrap();
    log.read().await.unwrap();
    for uid_next in 1..6 {
        end_all();
        // A connection that ends in the midst of a change is a failure; the next attempt has another one.
        if let Err(error) = one.notice("alice", uid_next).await {
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            one.store.until_writable().await;
            one.notice("alice", uid_next).await.unwrap();
        }
        assert!(one.store.status().await.is_ok());
    }
    assert!(!one.store.is_failing());
    // Notifications come again, too.
    let two = Node::new(&database, 2).await;
    log.read().await.unwrap();
    two.register("bob", "b").await;
    tokio::time::timeout(Duration::from_secs(3), log.changed()).await.unwrap();
    assert_eq!(log.read().await.unwrap(), [StoredEvent::Account(account("bob"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn database_that_is_away_is_said_at_once() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    one.register("alice", "a").await;
    database.shut();
    let begun = std::time::Instant::now();
    let error = loop {
        let change = change::client_idles(&account("alice"), "INBOX", Uptime(1));
        if let Err(error) = one.store.commit(change).await {
            break error;
        }
    };
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(error.is_about_the_disk() && error.to_string().contains("storage.postgres"), "{error}");
    assert!(one.store.is_failing());
    assert!(matches!(one.store.status().await, Err(StoreError::Unavailable(_))));
    let settings = database.settings("seal.key");
    let refused = Store::open_postgres(&settings, Ownership::of_node(), 3, drop).await;
    let refused = refused.map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Unavailable(_)) && refused.may_pass(), "{refused}");
    database.reopen();
    tokio::time::timeout(Duration::from_secs(10), one.store.until_writable()).await.unwrap();
    one.register("bob", "b").await;
}

#[tokio::test]
async fn key_is_the_same_on_each_node() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    let open = async |key: &str| {
        let settings = database.settings(key);
        Store::open_postgres(&settings, Ownership::of_node(), 2, drop).await.map(drop)
    };
    let path = database.directory.path().join("other.key");
    let missing = open("other.key").await.unwrap_err();
    assert!(matches!(missing, OpenError::SharedKeyMissing { .. }), "{missing}");
    assert!(missing.to_string().contains("copy the key file of that node"), "{missing}");
    assert!(!path.exists(), "only the first node makes one");
    std::fs::write(&path, format!("{}=\n", "A".repeat(43))).unwrap();
    let wrong = open("other.key").await.unwrap_err();
    assert!(matches!(wrong, OpenError::SharedKeyWrong { .. }), "{wrong}");
    open("seal.key").await.unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM meta WHERE name = 'login_key'"), "1");
    one.store.close().await;
}

#[tokio::test]
async fn state_is_checked_while_nodes_use_it() {
    let database = Database::new();
    let settings = database.settings("seal.key");
    let absent = check_shared(&settings).unwrap_err();
    assert!(matches!(absent, OpenError::NoTables), "{absent}");
    let one = Node::new(&database, 1).await;
    one.register("alice", "a").await;
    database.sql(
        "INSERT INTO nodes (id, name, program, schema_min, schema_max, lease_until)
         VALUES (1, 'push-1', '', 1, 1, clock_timestamp() + INTERVAL '1 minute'),
             (2, 'push-2', '', 1, 1, clock_timestamp() - INTERVAL '1 minute')",
    );
    let before = database.sql("SELECT md5(string_agg(a::TEXT, '')) FROM accounts a");
    let report = check_shared(&settings).unwrap();
    let said = report.to_string();
    assert!(said.starts_with("state      database test"), "{said}");
    assert!(said.contains("; in use by push-1\n"), "{said}");
    assert!(said.contains("accounts   1, 1 of them with sealed credentials"), "{said}");
    assert!(said.ends_with("seal.key opens all sealed credentials"), "{said}");
    let wrong = check_shared(&database.settings("other.key")).unwrap_err();
    assert!(matches!(wrong, OpenError::SharedKeyMissing { .. }), "{wrong}");
    let after = database.sql("SELECT md5(string_agg(a::TEXT, '')) FROM accounts a");
    assert_eq!(after, before, "nothing is changed");
    let copy = database.directory.path().join("copy");
    assert!(matches!(backup(&settings, &copy), Err(OpenError::BackupByDatabase)));
    assert!(matches!(rotate(&settings, None), Err(OpenError::NodesRun { .. })));
}

#[tokio::test]
async fn nodes_of_neighbouring_versions_run_side_by_side() {
    let database = Database::new();
    Node::new(&database, 1).await.store.close().await;
    let newest = postgres::Schema::PRESENT.newest();
    let set = |name: &str, value: i64| {
        database.sql(&format!("UPDATE meta SET value = '{value}' WHERE name = '{name}'"))
    };
    // A later version has added something.
    database.sql("ALTER TABLE accounts ADD COLUMN dummy BIGINT");
    set("schema_version", newest + 1);
    let one = Node::new(&database, 1).await;
    one.register("alice", "a").await;
    assert_eq!(one.store.status().await.unwrap().len(), 1);
    one.store.close().await;
    // A still later one has removed what this version needs.
    set("schema_needs", newest + 1);
    let settings = database.settings("seal.key");
    let refused = Store::open_postgres(&settings, Ownership::of_node(), 2, drop).await;
    let refused = refused.map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::TooOld { .. }), "{refused}");
}

/// A node that is stopped in the midst of a transaction keeps nobody from taking its slots for long.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_node_loses_its_locks() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    one.register("alice", "a").await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let stopped = tokio::spawn({
        let store = one.store.clone();
        async move {
            let stop = move |state: &mut Operation<'_>| {
                state.owned(&account("alice"), None, false)?;
                held.recv().unwrap();
                Ok(())
            };
            store.commit(stop).await
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = std::time::Instant::now();
    database.give(2, &Ownership::of_node(), &[slot("alice")]);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    release.send(()).unwrap();
    assert!(matches!(stopped.await.unwrap(), Err(StoreError::Unavailable(_))));
    assert_eq!(one.ownership.epoch(slot("alice")).map(|epoch| epoch > Epoch(0)), Some(true));
    assert!(matches!(one.notice("alice", 9).await, Err(StoreError::NotOwner)));
    assert_eq!(one.id, 1);
}

#[tokio::test]
async fn few_of_many_accounts_are_read() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    for user in ["bob", "alice@example.org", "Alexis", "carol", "ALICE@example.net"] {
        one.register(user, user).await;
    }
    one.notice("bob", 5).await.unwrap();
    let names = |found: &[AccountId]| {
        found.iter().map(|account| account.user.to_string()).collect::<Vec<_>>()
    };
    let first = one.store.first_accounts(2).await.unwrap();
    assert_eq!(
        (names(&first.accounts), first.is_cut),
        (vec!["ALICE@example.net".into(), "Alexis".into()], true)
    );
    assert!(!one.store.first_accounts(5).await.unwrap().is_cut);

    let asked = ["bob", "alice", "no\0body", "'; DROP TABLE accounts"].map(str::to_owned);
    assert_eq!(names(&one.store.accounts_named(asked.into()).await.unwrap()), ["bob"]);
    let like = async |parts: &[&str], limit| {
        let parts = parts.iter().map(ToString::to_string).collect();
        let found = one.store.accounts_like(parts, limit).await.unwrap();
        (names(&found.accounts), found.is_cut)
    };
    let alices = vec!["ALICE@example.net".to_owned(), "alice@example.org".to_owned()];
    assert_eq!(like(&["alice"], 9).await, (alices.clone(), false));
    assert_eq!(like(&["ALICE@", "%"], 9).await, (alices.clone(), false));
    assert_eq!(like(&["EXAMPLE.ORG"], 3).await.0.len(), 3, "also by the mail server");
    assert!(like(&["example.org"], 3).await.1);
    let exact = like(&["carol", "a"], 2).await.0;
    assert_eq!(exact, ["carol", "ALICE@example.net"], "an exact name comes first");

    let asked = vec![account("carol"), account("nobody"), account("bob")];
    let found = one.store.status_of(asked).await.unwrap();
    let all = one.store.status().await.unwrap();
    assert_eq!(found, [all[3].clone(), all[4].clone()], "as in the report of all");
    assert_eq!((found[0].tokens[0].pending, found[0].mailboxes.len()), (true, 1));
    assert_eq!(one.store.status_of(vec![]).await.unwrap(), []);
    assert_eq!(one.store.count_pending().await.unwrap(), 1);
}
