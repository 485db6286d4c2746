//! The registry of a node that owns a part of the accounts, over a store of its own: what other nodes write is given by hand.

use std::sync::Arc;

use futures_util::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::ownership::{Epoch, Slot};
use crate::store::{
    AccountRecord, FetchHabit, Idled, Loaded, Noticed, StoredToken, TokenRecord, change,
};

struct Node {
    registry: Registry,
    events: AccountEvents,
    news: TokenNews,
    _directory: TempDir,
}

fn node() -> Node {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::sealed(directory.path().join("state"));
    let (registry, events, news) = Registry::open_owning(&settings, Ownership::of_node()).unwrap();
    Node { registry, events, news, _directory: directory }
}

fn account(name: &str) -> AccountId {
    AccountId::new(name, "imap.example.org:993")
}

fn credentials(password: &str) -> Credentials {
    Credentials::new("alice", password)
}

fn token(name: &str) -> DeviceToken {
    DeviceToken::new(name.as_bytes()).unwrap()
}

fn record(name: &str, tokens: &[&str]) -> AccountRecord {
    let stored = |name: &&str| StoredToken {
        token: token(name),
        last_seen: UnixTime::now(),
        habit: FetchHabit::default(),
    };
    AccountRecord {
        account: account(name),
        credentials: Some(Arc::new(credentials("one"))),
        tokens: tokens.iter().map(stored).collect(),
        idled: vec![],
        called: None,
        is_watched: true,
    }
}

fn loaded(accounts: Vec<AccountRecord>) -> Loaded {
    Loaded { accounts, ..Loaded::default() }
}

fn slots(names: &[&str]) -> Vec<Slot> {
    names.iter().map(|name| Slot::of(&account(name))).collect()
}

impl Node {
    fn hold(&self, records: Vec<AccountRecord>) {
        let slots: Vec<Slot> = records.iter().map(|record| Slot::of(&record.account)).collect();
        let load = self.registry.begin_load();
        self.registry.want(&slots);
        let loading = self.registry.hold(&slots);
        assert!(self.registry.insert_loaded(loaded(records), loading.slots(), load).is_empty());
        loading.end();
    }

    fn own(&self, name: &str) {
        self.registry.ownership().grant(Slot::of(&account(name)), Epoch(1));
    }

    /// A client of the account is here from now on, or is gone.
    fn client(&self, name: &str, is_here: bool) {
        self.registry.change_clients(&account(name), |clients| {
            clients.here = clients.here + u32::from(is_here) - u32::from(!is_here);
        });
    }

    fn replace(&self, name: &str, found: Vec<AccountRecord>) {
        let load = self.registry.begin_load();
        assert!(self.registry.replace_account(&account(name), loaded(found), load));
    }

    fn events(&mut self) -> Vec<(AccountId, AccountEvent)> {
        std::iter::from_fn(|| self.events.try_recv()).collect()
    }
}

#[tokio::test]
async fn accounts_come_and_go_with_their_slots() {
    let mut node = node();
    node.hold(vec![record("alice", &["a"]), record("bob", &["b"])]);
    let watch = |name: &str| (account(name), AccountEvent::Watch);
    assert_eq!(node.events(), [watch("alice"), watch("bob")]);
    assert!(node.registry.is_watched_here(&account("alice")));
    node.client("bob", true);
    assert!(node.registry.forget_posts(&slots(&["alice", "bob"])).is_empty());
    node.registry.release(&slots(&["alice", "bob"]));
    assert_eq!(node.registry.names(), [account("bob")], "its client is here");
    assert!(node.registry.watched_here().is_empty());
    let mut gone = [node.news.try_recv().unwrap(), node.news.try_recv().unwrap()];
    gone.sort_by_key(|(token, _)| token.clone());
    assert_eq!(gone, [(token("a"), News::Gone), (token("b"), News::Gone)]);
    node.client("bob", false);
    assert!(node.registry.is_empty());
    node.hold(vec![record("bob", &["b"])]);
    assert_eq!(node.events(), [watch("bob")]);
}

#[tokio::test]
async fn visitor_has_no_watch_until_its_slot_comes() {
    let mut node = node();
    let it = &node.registry;
    it.register(&account("alice"), &credentials("one"), &token("a")).await.unwrap();
    assert!(!it.is_known(&account("alice")), "no client is here");
    node.client("alice", true);
    let it = &node.registry;
    it.register(&account("alice"), &credentials("one"), &token("a")).await.unwrap();
    it.login_succeeded(&account("alice"), &credentials("two")).await.unwrap();
    it.client_idles(&account("alice"), "DeltaChat").await.unwrap();
    assert_eq!(*it.credentials(&account("alice")).unwrap(), credentials("two"));
    assert!(!it.rewatch(&account("eve")) && it.waiting() == 0);
    assert_eq!(node.events(), []);
    let known = node.registry.get(&account("alice")).unwrap();
    assert!(!known.is_from_before());
    node.hold(vec![record("alice", &["a"])]);
    assert!(known.is_from_before(), "mail may have come that no watch has seen");
    assert_eq!(node.events(), [(account("alice"), AccountEvent::Watch)]);
    node.client("alice", false);
    assert!(node.registry.is_known(&account("alice")), "it is watched here");
}

#[tokio::test]
async fn account_that_another_node_has_changed_is_taken_over() {
    let mut node = node();
    node.hold(vec![record("alice", &["a", "b"])]);
    node.events();
    node.replace("alice", vec![record("alice", &["a", "b"])]);
    assert_eq!(node.events(), [], "nothing has changed");
    let idled = vec![Idled { name: "DeltaChat".into(), last: Uptime(7) }];
    let credentials = Some(Arc::new(credentials("two")));
    let found = AccountRecord { idled, credentials, ..record("alice", &["b", "c"]) };
    node.replace("alice", vec![found]);
    assert_eq!(node.events(), [(account("alice"), AccountEvent::MailboxesChanged)]);
    assert_eq!(node.registry.tokens(&account("alice")), [token("b"), token("c")]);
    assert_eq!(node.news.try_recv(), Some((token("a"), News::Gone)));
    let waits = AccountRecord { is_watched: false, credentials: None, ..record("alice", &["c"]) };
    node.replace("alice", vec![waits]);
    let known = node.registry.get(&account("alice")).unwrap();
    assert!(!known.is_watched() && known.credentials().is_none());
    node.replace("alice", vec![]);
    assert!(known.is_erased() && node.registry.is_empty());
    node.replace("bob", vec![record("bob", &["b"])]);
    assert!(node.registry.is_empty(), "it is no business of this node");
}

#[tokio::test]
async fn change_during_a_load_is_not_overwritten() {
    let node = node();
    node.client("alice", true);
    let load = node.registry.begin_load();
    node.registry.want(&slots(&["alice"]));
    let new = node.registry.hold(&slots(&["alice"]));
    node.registry.register(&account("alice"), &credentials("one"), &token("new")).await.unwrap();
    let found = loaded(vec![record("alice", &["old"])]);
    let again = node.registry.insert_loaded(found, new.slots(), load);
    assert!(again.contains(&account("alice")), "to be loaded once more");
    let load = node.registry.begin_load();
    let remove = change::remove_account(&account("alice"));
    node.registry.commit(remove).await.unwrap();
    let found = loaded(vec![record("alice", &["new"])]);
    assert!(!node.registry.replace_account(&account("alice"), found, load));
}

#[tokio::test]
async fn slots_are_loaded_until_they_are_dropped() {
    let node = node();
    let (it, alice, bob) = (&node.registry, slots(&["alice"]), slots(&["bob"]));
    assert!(it.hold(&alice).slots().is_empty(), "nobody wants it");
    it.want(&[alice[0], bob[0]]);
    assert!(!it.is_watched_here(&account("alice")));
    let failed = it.hold(&alice);
    assert_eq!(failed.slots(), alice);
    let insert = |loading: &SlotsLoading<'_>, names: &[&str]| {
        let found = names.iter().map(|name| record(name, &["a"])).collect();
        assert!(it.insert_loaded(loaded(found), loading.slots(), it.begin_load()).is_empty());
    };
    insert(&failed, &["alice"]);
    assert!(it.is_known(&account("alice")) && it.loaded_slots().is_empty());
    drop(failed);
    assert!(it.is_empty(), "an unfinished load leaves nothing");
    let loading = it.hold(&[alice[0], bob[0]]);
    assert_eq!(loading.slots(), [alice[0], bob[0]]);
    it.release(&bob);
    insert(&loading, &["alice", "bob"]);
    loading.end();
    assert_eq!((it.names(), it.loaded_slots()), (vec![account("alice")], alice.clone()));
    it.want(&alice);
    assert!(it.hold(&alice).slots().is_empty(), "it is loaded");
    it.release(&alice);
    assert!(it.is_empty() && it.loaded_slots().is_empty());
}

#[tokio::test]
async fn accounts_without_credentials_count_where_they_are_watched() {
    let node = node();
    let waits = |name: &str| AccountRecord { credentials: None, ..record(name, &["a"]) };
    node.client("alice", true);
    node.replace("alice", vec![waits("alice")]);
    assert_eq!(node.registry.waiting(), 0);
    node.hold(vec![waits("alice"), waits("bob"), record("carol", &["c"])]);
    assert_eq!(node.registry.waiting(), 2);
    let two = credentials("two");
    node.registry.register(&account("alice"), &two, &token("a")).await.unwrap();
    assert_eq!(node.registry.waiting(), 1);
    node.registry.release(&slots(&["alice", "bob", "carol"]));
    assert_eq!(node.registry.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn news_waits_until_the_account_is_owned() {
    let mut node = node();
    let position = Position { uid_validity: 1, uid_next: 2 };
    let it = node.registry.clone();
    assert!(it.noticed(&account("alice"), "INBOX", position, true).await.is_err(), "not here");
    node.hold(vec![record("alice", &["a"])]);
    // The store of this test is the node's own.
    node.registry.register(&account("alice"), &credentials("two"), &token("a")).await.unwrap();
    let known = node.registry.get(&account("alice")).unwrap();
    known.watch.begin(Duration::ZERO);
    let id = account("alice");
    let mut noticing = Box::pin(it.noticed(&id, "INBOX", position, true));
    assert!((&mut noticing).now_or_never().is_none());
    assert!(known.watch.is_settled(), "it stands by");
    assert_eq!(node.news.try_recv(), None, "nothing is pushed from memory");
    node.own("alice");
    assert_eq!(noticing.await.unwrap(), Noticed::New);
    assert!(!known.watch.is_settled(), "it goes on");
    let (pushed, News::Pending { .. }) = node.news.try_recv().unwrap() else { panic!("pending") };
    assert_eq!(pushed, token("a"));
    node.registry.ownership().revoke(Slot::of(&id));
    let mut noticing = Box::pin(it.noticed(&id, "INBOX", position, true));
    assert!((&mut noticing).now_or_never().is_none());
    drop(noticing);
    node.registry.release(&slots(&["alice"]));
    assert!(known.is_erased());
}

#[tokio::test]
async fn posts_of_other_nodes_delay_those_of_this_one() {
    let node = node();
    let load = node.registry.begin_load();
    node.registry.want(&slots(&["alice"]));
    let new = node.registry.hold(&slots(&["alice"]));
    let record = record("alice", &["a"]);
    let now = UnixTime::now();
    let found = Loaded {
        accepted: vec![(token("a"), now)],
        tokens: vec![(token("a"), TokenRecord { accepted: true, quarantine: None })],
        ..loaded(vec![record])
    };
    assert!(node.registry.insert_loaded(found, new.slots(), load).is_empty());
    let state = node.registry.standing(&token("a")).unwrap();
    assert!(state.accepted && state.since_post.unwrap() < Duration::from_secs(60));
}

/// In the time of one look at all accounts, much more than one slot, or one new account, is looked at.
#[tokio::test]
async fn slots_are_looked_at_without_the_accounts_of_others() {
    let node = node();
    let it = &node.registry;
    let records = (0..20_000).map(|number| record(&number.to_string(), &[&number.to_string()]));
    it.want(&Slot::all().collect::<Vec<_>>());
    let loading = it.hold(&Slot::all().collect::<Vec<_>>());
    let found = loaded(records.collect());
    assert!(it.insert_loaded(found, loading.slots(), it.begin_load()).is_empty());
    loading.end();
    let shortest = |run: &dyn Fn()| {
        let took = |_| {
            let began = std::time::Instant::now();
            run();
            began.elapsed()
        };
        (0..7).map(took).min().unwrap()
    };
    let all = shortest(&|| assert_eq!(it.len(), 20_000));
    let slots = slots(&["7"]);
    let slot = shortest(&|| assert!((5..60).contains(&it.in_slots(&slots).len())));
    assert!(slot < all / 10, "{slot:?} of {all:?}");
    let origin = AccountOrigin { prefix: [192, 0, 2, 1].into(), is_open: false };
    let admitted = shortest(&|| drop(it.admit(&account("new"), origin).unwrap()));
    assert!(admitted < all, "{admitted:?} of {all:?}");
    assert_eq!(it.0.accounts.estimated_len(), 20_000);
    it.release(&slots);
    assert!(it.in_slots(&slots).is_empty() && it.watched_here().len() == it.len());
}
