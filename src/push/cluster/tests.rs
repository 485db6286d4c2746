//! The accounts of a node, over real watches; the state of the other nodes is given by hand.

mod loading;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::events::{EventLog, NodeEvent};
use super::*;
use crate::credentials::Credentials;
use crate::ownership::Epoch;
use crate::push::account::Account;
use crate::push::settling::Settling;
use crate::push::watcher::testing::{MailboxServer, Watching, in_steps, token, until};
use crate::store::{
    AccountRecord, Announce, FetchHabit, ForwardedFact, Generation, Loaded, Position, StoredToken,
    TokenPost, Unannounced, UnixTime, change,
};

/// A state that other nodes change.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<SharedTables>>);

#[derive(Default)]
struct SharedTables {
    accounts: HashMap<AccountId, AccountRecord>,
    pending: Vec<Unannounced>,
    /// The database is away.
    is_away: bool,
    /// Loads of slots that wait until they may go on, or fail: the next first.
    held_up: VecDeque<oneshot::Receiver<()>>,
    /// The slots of each load that has begun.
    loads: Vec<Vec<Slot>>,
}

impl Shared {
    fn read<T>(&self, read: impl FnOnce(&SharedTables) -> T) -> Result<T, StoreError> {
        let tables = self.0.lock().unwrap();
        if tables.is_away { Err(StoreError::NotWritten) } else { Ok(read(&tables)) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut SharedTables) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn loaded(&self, is_asked: impl Fn(&AccountId) -> bool) -> Result<Loaded, StoreError> {
        self.read(|tables| {
            let found = tables.accounts.values().filter(|record| is_asked(&record.account));
            Loaded { accounts: found.cloned().collect(), ..Loaded::default() }
        })
    }
}

impl SharedState for Shared {
    async fn load_slots(&self, slots: &[Slot]) -> Result<Loaded, StoreError> {
        let held_up = self.change(|tables| {
            tables.loads.push(slots.to_vec());
            tables.held_up.pop_front()
        });
        if let Some(held_up) = held_up {
            held_up.await.map_err(|_| StoreError::NotWritten)?;
        }
        self.loaded(|account| slots.contains(&Slot::of(account)))
    }

    async fn pending(&self, _: &[Slot]) -> Result<Loaded, StoreError> {
        self.read(|tables| Loaded { unannounced: tables.pending.clone(), ..Loaded::default() })
    }

    async fn load_account(&self, account: &AccountId) -> Result<Loaded, StoreError> {
        self.loaded(|asked| asked == account)
    }

    async fn forwarded(&self, _: &[Slot]) -> Result<Vec<ForwardedFact>, StoreError> {
        self.read(|_| vec![])
    }

    async fn token_posts(&self, hashes: &[Vec<u8>]) -> Result<Vec<TokenPost>, StoreError> {
        let is_asked = |found: &&Unannounced| hashes.contains(&token_hash(&found.token));
        self.read(|tables| {
            let unannounced = tables.pending.iter().filter(is_asked).cloned().collect();
            vec![TokenPost::Own(Loaded { unannounced, ..Loaded::default() })]
        })
    }
}

/// One node, with alice in the state.
struct Node {
    watching: Watching,
    accounts: NodeAccounts<Shared>,
    shared: Shared,
    slot: Slot,
    _settling: Settling,
}

impl Node {
    async fn start(server: &MailboxServer) -> Self {
        let (watching, shared) = (Watching::start_node(server), Shared::default());
        // In its own store, where positions are written. No client is here: it is not in memory.
        watching.register().await;
        let (seen, now) = (Position { uid_validity: 7, uid_next: 5 }, UnixTime::now());
        let seen = change::noticed(&watching.account, "INBOX", seen, Announce::Nothing, now);
        watching.registry.commit(seen).await.unwrap();
        assert!(watching.registry.is_empty());
        let record = record(&watching.account);
        shared.change(|tables| tables.accounts.insert(watching.account.clone(), record));
        let settling = Settling::default();
        let (context, state) = (Arc::clone(&watching.context), shared.clone());
        let accounts =
            NodeAccounts::of(context, state, settling.settler(), (&KeepSettings::default()).into());
        let slot = Slot::of(&watching.account);
        Self { watching, accounts, shared, slot, _settling: settling }
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.accounts.want(&[self.slot]);
        self.accounts.prepare(vec![self.slot]).await
    }

    fn known(&self) -> Arc<Account> {
        self.watching.registry.get(&self.watching.account).unwrap()
    }

    fn grant(&self) {
        self.watching.registry.ownership().grant(self.slot, Epoch(1));
    }

    fn revoke(&self) {
        self.watching.registry.ownership().revoke(self.slot);
    }

    fn waits_in_idle(&self) -> bool {
        self.known().watch.is_watching()
    }
}

fn record(account: &AccountId) -> AccountRecord {
    let habit = FetchHabit::default();
    AccountRecord {
        account: account.clone(),
        credentials: Some(Arc::new(Credentials::new("alice@lab.test", "sesame"))),
        tokens: vec![StoredToken { token: token(), last_seen: UnixTime::now(), habit }],
        idled: vec![],
        called: None,
        is_watched: true,
    }
}

fn unannounced() -> Unannounced {
    Unannounced { token: token(), generation: Generation(7), since: UnixTime::now() }
}

#[tokio::test]
async fn slot_moves_without_a_gap() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut node = Node::start(&server).await;
    node.prepare().await.unwrap();
    assert!(node.waits_in_idle(), "before it is owned");
    server.deliver();
    until("the new mail is fetched", || server.count("UID FETCH") > 0).await;
    until("the watch stands by", || node.known().watch.is_settled()).await;
    assert!(node.watching.posted().is_empty());
    node.grant();
    node.shared.change(|tables| tables.pending = vec![unannounced()]);
    node.accounts.take(vec![node.slot]).await.unwrap();
    assert_eq!(server.count("AUTHENTICATE"), 1, "the same session");
    let mut posted = node.watching.posted();
    assert_eq!(posted, [token()], "what the owner before has left");
    until("the new mail is announced", || {
        posted.extend(node.watching.posted());
        posted.len() > 1
    })
    .await;
    node.accounts.lapse(vec![node.slot]);
    assert!(node.waits_in_idle(), "a lapsed node stands by");
    let known = node.known();
    node.revoke();
    node.accounts.drop(vec![node.slot]);
    assert!(known.is_erased() && node.watching.registry.is_empty());
}

#[tokio::test]
async fn slots_that_cannot_be_loaded_are_not_prepared() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let node = Node::start(&server).await;
    node.shared.change(|tables| tables.is_away = true);
    assert!(node.prepare().await.is_err());
    assert!(!node.watching.registry.is_watched_here(&node.watching.account));
    node.shared.change(|tables| tables.is_away = false);
    node.grant();
    node.accounts.take(vec![node.slot]).await.unwrap();
    until("it is watched", || node.waits_in_idle()).await;
}

#[tokio::test]
async fn news_of_a_slot_that_is_given_away_is_left_to_the_next_owner() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut node = Node::start(&server).await;
    node.grant();
    node.accounts.take(vec![node.slot]).await.unwrap();
    until("it is watched", || node.waits_in_idle()).await;
    // Nobody is there to answer for POSTs in flight: there are none.
    let registry = node.watching.registry.clone();
    assert_eq!(registry.settle(&[node.slot]), [token()].into());
    server.deliver();
    let position = async || registry.positions(&node.watching.account).await.unwrap();
    let began = position().await;
    while position().await == began {
        tokio::task::yield_now().await;
    }
    assert!(node.watching.posted().is_empty());
    node.shared.change(|tables| tables.pending = vec![unannounced()]);
    node.accounts.take(vec![node.slot]).await.unwrap();
    assert_eq!(node.watching.posted(), [token()], "it was not given away after all");
}

/// The database is away, or the slot another node's, for hours: the watch with the new mail stays.
#[tokio::test]
async fn watch_that_waits_for_the_slot_renews_its_session() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut node = Node::start(&server).await;
    node.prepare().await.unwrap();
    server.deliver();
    until("the new mail is fetched", || server.count("UID FETCH") > 0).await;
    let before = server.count("IDLE");
    in_steps("it idles again and again", Duration::from_secs(60), || {
        server.count("IDLE") > before + 3
    })
    .await;
    server.deliver();
    in_steps("more is fetched", Duration::from_secs(60), || server.count("UID FETCH") > 1).await;
    assert_eq!(server.count("AUTHENTICATE"), 1, "the same session");
    assert!(node.watching.posted().is_empty());
    node.grant();
    node.accounts.take(vec![node.slot]).await.unwrap();
    until("it is announced", || node.watching.posted() == [token()]).await;
}

/// The lease lapses after a POST was accepted, and before that is written: the state has the push as pending.
#[tokio::test]
async fn push_that_was_accepted_is_not_posted_again_when_the_slot_comes_back() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut node = Node::start(&server).await;
    node.grant();
    node.accounts.take(vec![node.slot]).await.unwrap();
    let registry = node.watching.registry.clone();
    registry.close().await;
    assert!(registry.announced(&token(), Generation(7)).await.is_err());
    node.accounts.lapse(vec![node.slot]);
    _ = node.watching.posted();
    node.shared.change(|tables| tables.pending = vec![unannounced()]);
    node.accounts.take(vec![node.slot]).await.unwrap();
    assert!(node.watching.posted().is_empty(), "it was accepted");
    let later = Unannounced { generation: Generation(8), ..unannounced() };
    node.shared.change(|tables| tables.pending = vec![later]);
    node.accounts.take(vec![node.slot]).await.unwrap();
    assert_eq!(node.watching.posted(), [token()], "that is news");
}

/// The log of other nodes, in the test's hand.
struct Log(mpsc::UnboundedReceiver<NodeEvent>);

impl EventLog for Log {
    async fn changed(&mut self) {
        while self.0.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn read(&mut self) -> Result<Vec<NodeEvent>, StoreError> {
        Ok(std::iter::from_fn(|| self.0.try_recv().ok()).collect())
    }
}

#[tokio::test]
async fn changes_of_other_nodes_are_followed() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut node = Node::start(&server).await;
    node.grant();
    node.accounts.take(vec![node.slot]).await.unwrap();
    until("it is watched", || node.waits_in_idle()).await;
    let (tell, events) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let (began, begins) = oneshot::channel();
    tokio::spawn(node.accounts.clone().follow(Log(events), began, stop.clone()));
    begins.await.unwrap();
    let alice = node.watching.account.clone();

    node.known().watch.begin(Duration::ZERO);
    let fetch = [token_hash(&token()).as_slice(), &u64::MAX.to_be_bytes()].concat();
    tell.send(NodeEvent::Fetches(alice.clone(), fetch)).unwrap();
    let before = tokio::time::Instant::now() - Duration::from_secs(60);
    let fetched = || node.known().watch.fetched_since(before);
    until("the device fetches elsewhere", || fetched() == [token()]).await;

    node.shared.change(|tables| tables.pending = vec![unannounced()]);
    tell.send(NodeEvent::Pending(token_hash(&token()))).unwrap();
    let mut posted = vec![];
    until("the token is posted here", || {
        posted.extend(node.watching.posted());
        posted == [token()]
    })
    .await;

    let logins = server.count("AUTHENTICATE");
    tell.send(NodeEvent::Rewatch(alice.clone())).unwrap();
    until("the watch begins again", || server.count("AUTHENTICATE") > logins).await;

    // A standby has become the primary that lacks one token and has another account.
    let bob = AccountId::new("bob@lab.test", &alice.upstream);
    node.shared.change(|tables| {
        tables.accounts.clear();
        tables.accounts.insert(bob.clone(), record(&bob));
    });
    let registry = node.watching.registry.clone();
    registry.ownership().grant(Slot::of(&bob), Epoch(1));
    registry.want(&[Slot::of(&bob)]);
    registry.hold(&[Slot::of(&bob)]).end();
    tell.send(NodeEvent::Rewound).unwrap();
    until("memory is as the state", || registry.names() == [bob.clone()]).await;
    let alices = record(&alice);
    node.shared.change(|tables| tables.accounts.insert(alice.clone(), alices));
    tell.send(NodeEvent::Account(alice.clone())).unwrap();
    until("the token is handed over again", || registry.is_known(&alice)).await;

    node.shared.change(|tables| {
        tables.is_away = true;
        tables.accounts.clear();
    });
    tell.send(NodeEvent::Account(alice.clone())).unwrap();
    tokio::task::yield_now().await;
    assert!(node.watching.registry.is_known(&alice), "the database is away");
    node.shared.change(|tables| tables.is_away = false);
    until("it is gone", || !node.watching.registry.is_known(&alice)).await;
    stop.cancel();
}
