//! Two nodes with one PostgreSQL: the client is at one, the watch at the other.

mod callbacks;
mod news;

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::credentials::Credentials;
use crate::push::registry::News;
use crate::push::settling::Settling;
use crate::push::watcher::testing::{MailboxServer, Watching, token, until};
use crate::store::postgres_testing::Database;
use crate::store::{Announce, Generation, Position, Store, StoredEvent, UnixTime, change};

/// Without waits.
const CALLS: CallBounds = CallBounds {
    by_themselves: Duration::ZERO,
    again: Duration::from_secs(3600),
    interval: Duration::ZERO,
};

struct Node {
    watching: Watching,
    accounts: NodeAccounts<Store>,
    _settling: Settling,
    _end: DropGuard,
}

impl Node {
    async fn start(server: &MailboxServer, database: &Database, number: i64) -> Self {
        Self::start_with(server, database, number, "idle").await
    }

    async fn start_with(
        server: &MailboxServer,
        database: &Database,
        number: i64,
        news: &str,
    ) -> Self {
        let settings = database.settings("key");
        let watching = Watching::start_sharing(server, &settings, number, news).await;
        let settling = Settling::default();
        let (context, state) = (Arc::clone(&watching.context), watching.registry.store().clone());
        let log = StoredLog::new(&state, |_| {}).unwrap();
        let accounts = NodeAccounts::of(context, state, settling.settler(), CALLS);
        let (stop, (began, begins)) = (CancellationToken::new(), oneshot::channel());
        tokio::spawn(accounts.clone().follow(log, began, stop.clone()));
        begins.await.unwrap();
        Self { watching, accounts, _settling: settling, _end: stop.drop_guard() }
    }

    async fn prepare(&self, slots: &[Slot]) {
        self.accounts.want(slots);
        self.accounts.prepare(slots.to_vec()).await.unwrap();
    }

    fn registry(&self) -> &Registry {
        &self.watching.registry
    }

    fn is_watching(&self) -> bool {
        let known = self.registry().get(&self.watching.account);
        known.is_some_and(|known| known.watch.is_watching())
    }
}

/// The first node has the clients, the second one owns everything.
async fn two_nodes(server: &MailboxServer, database: &Database) -> (Node, Node) {
    let (clients, owner) =
        (Node::start(server, database, 1).await, Node::start(server, database, 2).await);
    database.give_all(2, owner.registry().ownership());
    owner.accounts.take(Slot::all().collect()).await.unwrap();
    (clients, owner)
}

#[tokio::test(flavor = "multi_thread")]
async fn client_may_come_to_any_node() {
    let server = MailboxServer::start("IDLE", &["INBOX", "DeltaChat"]).await;
    let database = Database::new();
    let (clients, mut owner) = two_nodes(&server, &database).await;
    let alice = clients.watching.account.clone();
    let visit = clients.registry().visit(&alice).await;
    clients.watching.register().await;
    assert_eq!(clients.registry().tokens(&alice), [token()]);
    until("the owner watches", || owner.is_watching()).await;
    assert!(!clients.is_watching());

    server.deliver();
    let mut posted = vec![];
    until("the owner posts", || {
        posted.extend(owner.watching.posted());
        posted == [token()]
    })
    .await;

    let known = clients.registry().get(&alice).unwrap();
    clients.registry().device_fetches(&known, &token(), Duration::ZERO);
    let watched = owner.registry().get(&alice).unwrap();
    let before = tokio::time::Instant::now() - Duration::from_secs(60);
    until("the owner knows who fetches", || watched.watch.fetched_since(before) == [token()]).await;

    assert!(clients.registry().must_note_idle(&alice, "DeltaChat"));
    clients.registry().client_idles(&alice, "DeltaChat").await.unwrap();
    until("the owner opens the mailbox", || server.count("EXAMINE \"DeltaChat\"") > 0).await;

    let new = Credentials::new("alice@lab.test", "changed");
    clients.registry().login_succeeded(&alice, &new).await.unwrap();
    until("the owner has the new password", || {
        owner.registry().credentials(&alice).is_some_and(|known| *known == new)
    })
    .await;

    drop(visit);
    assert!(clients.registry().is_empty(), "a visitor leaves with its client");
    let visit = clients.registry().visit(&alice).await;
    assert_eq!(*clients.registry().credentials(&alice).unwrap(), new, "it is loaded");
    clients.registry().commit(change::remove_account(&alice)).await.unwrap();
    until("the owner ends the watch", || owner.registry().is_empty()).await;
    assert!(clients.registry().is_empty());
    drop(visit);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_begins_again_and_gives_way_by_word_of_another_node() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (clients, owner) = two_nodes(&server, &database).await;
    let alice = clients.watching.account.clone();
    let _visit = clients.registry().visit(&alice).await;
    clients.watching.register().await;
    until("the owner watches", || owner.is_watching()).await;
    let logins = server.count("AUTHENTICATE");
    clients.registry().tell(StoredEvent::Rewatch(alice.clone())).await.unwrap();
    until("it logs in again", || server.count("AUTHENTICATE") > logins && owner.is_watching())
        .await;
    assert!(clients.registry().yield_session(&alice).await);
    until("the watch gives way", || !owner.is_watching()).await;
    let named = clients.registry().store().accounts_named(vec![alice.user.to_string()]).await;
    assert_eq!(named.unwrap(), [alice]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_between_nodes_with_their_pushes() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (mut heir, mut owner) = two_nodes(&server, &database).await;
    let alice = heir.watching.account.clone();
    let visit = heir.registry().visit(&alice).await;
    heir.watching.register().await;
    drop(visit);
    until("the owner watches", || owner.is_watching()).await;
    let slots = vec![Slot::of(&alice)];
    heir.prepare(&slots).await;
    assert!(heir.is_watching() && owner.is_watching(), "without a gap");

    server.deliver();
    let mut posted = vec![];
    until("the owner posts", || {
        posted.extend(owner.watching.posted());
        posted == [token()]
    })
    .await;
    // Its POST was not accepted when the slot moves.
    database.give(1, heir.registry().ownership(), &slots);
    owner.registry().ownership().revoke(slots[0]);
    owner.accounts.drop(slots.clone());
    assert!(owner.registry().is_empty());
    heir.accounts.take(slots).await.unwrap();
    let mut posted = vec![];
    until("the heir posts", || {
        posted.extend(heir.watching.posted());
        !posted.is_empty()
    })
    .await;
    // Each node has waited once before the first message, and once after it.
    until("the heir waits for more", || server.count("IDLE") >= 4).await;
    server.deliver();
    until("news is announced by the heir", || {
        posted.extend(heir.watching.posted());
        posted.len() > 1
    })
    .await;
}

/// The owner posts while its heir prepares, and nothing is left to announce: the heir has to know all the same.
#[tokio::test(flavor = "multi_thread")]
async fn answers_during_the_preparation_are_known_to_the_heir() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (first, second) = two_nodes(&server, &database).await;
    first.watching.register().await;
    let slots = vec![Slot::of(&first.watching.account)];
    let give = async |to: &Node, number: i64, from: &Node| {
        from.registry().ownership().revoke(slots[0]);
        from.accounts.drop(slots.clone());
        database.give(number, to.registry().ownership(), &slots);
        to.accounts.take(slots.clone()).await.unwrap();
        to.registry().standing(&token()).unwrap()
    };
    first.prepare(&slots).await;
    assert_eq!(first.registry().standing(&token()).unwrap().since_post, None);
    let accepted = change::announced(&token(), Generation(u64::MAX), UnixTime::now());
    second.registry().commit(accepted).await.unwrap();
    let known = give(&first, 1, &second).await;
    assert!(known.accepted && known.since_post.unwrap() < Duration::from_secs(60));

    second.prepare(&slots).await;
    let day = Duration::from_secs(24 * 3600);
    assert!(!first.registry().quarantined(&token(), 3, day).await.unwrap());
    let known = give(&second, 2, &first).await;
    assert_eq!(known.quarantine.unwrap().answers, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_does_not_wait_for_a_database_that_is_away() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (clients, owner) = two_nodes(&server, &database).await;
    let alice = clients.watching.account.clone();
    let visit = clients.registry().visit(&alice).await;
    clients.watching.register().await;
    drop(visit);
    until("the owner watches", || owner.is_watching()).await;
    database.shut();
    let began = std::time::Instant::now();
    let visit = clients.registry().visit(&alice).await;
    assert!(began.elapsed() < Duration::from_secs(3) && !clients.registry().is_known(&alice));
    server.deliver();
    until("the new mail is fetched", || server.count("UID FETCH") > 0).await;
    assert!(owner.is_watching() || owner.registry().is_known(&alice), "the watch stays");
    database.reopen();
    until("the account of the client is loaded", || clients.registry().is_known(&alice)).await;
    drop(visit);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_a_token_move_to_the_node_that_posts_it_now() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (mut first, mut second) = two_nodes(&server, &database).await;
    let third = Node::start(&server, &database, 3).await;
    let alice = first.watching.account.clone();
    let bob = AccountId::new("bob@lab.test", &alice.upstream);
    let credentials = Credentials::new("bob@lab.test", "sesame");
    assert_ne!(Slot::of(&alice), Slot::of(&bob));
    let slots = vec![Slot::of(&alice)];
    second.registry().ownership().revoke(slots[0]);
    second.accounts.drop(slots.clone());
    database.give(1, first.registry().ownership(), &slots);
    first.accounts.take(slots).await.unwrap();
    third.watching.register().await;
    third.registry().register(&bob, &credentials, &token()).await.unwrap();
    let is_in_idle =
        |node: &Node| node.registry().accounts().iter().all(|it| it.watch.is_watching());
    until("both are watched", || {
        first.registry().len() + second.registry().len() == 2
            && is_in_idle(&first)
            && is_in_idle(&second)
    })
    .await;

    let seen = Position { uid_validity: 7, uid_next: 900 };
    second.registry().noticed(&bob, "INBOX", seen, Announce::All).await.unwrap();
    let mut posted = vec![];
    until("the owner of the first account posts", || {
        posted.extend(first.watching.posted());
        posted == [token()]
    })
    .await;
    assert_eq!(second.watching.posted(), []);
    // Its POST was not accepted when a client of a third node removes the token.
    third.registry().commit(change::remove_token(&alice, &token())).await.unwrap();
    until("the owner of the other account posts", || {
        posted.extend(second.watching.posted());
        posted.len() > 1
    })
    .await;
    let mut left = vec![];
    until("the first one leaves it", || {
        left.extend(std::iter::from_fn(|| first.watching.news.try_recv()));
        !left.is_empty()
    })
    .await;
    assert!(!left.iter().any(|(_, news)| matches!(news, News::Pending { .. })), "{left:?}");
}

/// An operator asks any node for a push.
#[tokio::test(flavor = "multi_thread")]
async fn token_that_is_proved_at_any_node_leaves_its_quarantine() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (first, second) = two_nodes(&server, &database).await;
    first.watching.register().await;
    let is_known = || second.registry().is_known(&first.watching.account);
    until("the owner has the account", is_known).await;
    let hour = Duration::from_secs(3600);
    assert!(!second.registry().quarantined(&token(), 3, hour).await.unwrap());
    let standing = || second.registry().standing(&token()).unwrap();
    assert!(standing().quarantine.is_some());
    first.registry().proved(&token()).await.unwrap();
    until("the owner knows", || standing().quarantine.is_none() && standing().accepted).await;
}
