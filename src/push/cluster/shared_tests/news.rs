//! A mail server that tells one node of the accounts of another.

use super::*;
use crate::ownership::Ownership;
use crate::push::server_news::{NewsError, NewsOutcome, NewsReceiver, OpenedMailbox};
use crate::store::{DualTime, StoreError, UnixTime, Uptime};

/// The first node is told, the second one owns everything.
async fn two_nodes(server: &MailboxServer, database: &Database, news: &str) -> (Node, Node) {
    let told = Node::start_with(server, database, 1, news).await;
    let owner = Node::start_with(server, database, 2, news).await;
    database.give_all(2, owner.registry().ownership());
    owner.accounts.take(Slot::all().collect()).await.unwrap();
    told.watching.register().await;
    let alice = &told.watching.account;
    until("the owner has the account", || owner.registry().is_known(alice)).await;
    (told, owner)
}

async fn nothing_is_left(node: &Node) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    let slots: Vec<Slot> = Slot::all().collect();
    while !node.accounts.state.forwarded(&slots).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn news_may_come_to_any_node() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (told, mut owner) = two_nodes(&server, &database, "server").await;
    for (uid, posts) in [(900, true), (901, true), (901, false), (900, false)] {
        let began = std::time::Instant::now();
        assert_eq!(told.watching.tell(uid).await.unwrap(), NewsOutcome::Announced);
        let mut posted = vec![];
        if posts {
            until("the owner posts", || {
                posted.extend(owner.watching.posted());
                posted == [token()]
            })
            .await;
            let took = began.elapsed();
            assert!(took < Duration::from_secs(4), "by the notification, not by a look: {took:?}");
        }
        nothing_is_left(&owner).await;
        assert_eq!(owner.watching.posted(), [], "{uid} was known");
    }
    let positions = told.registry().positions(&told.watching.account).await.unwrap();
    assert_eq!(positions, [("INBOX".into(), Position { uid_validity: 7, uid_next: 902 })]);

    // Without its UID a message is known by its Message-ID, whichever node is told again.
    assert_eq!(told.watching.tell_by_header(7).await.unwrap(), NewsOutcome::Announced);
    until("the owner posts", || owner.watching.posted() == [token()]).await;
    assert_eq!(told.watching.tell_by_header(7).await.unwrap(), NewsOutcome::Known);
    assert_eq!(owner.watching.tell_by_header(7).await.unwrap(), NewsOutcome::Known);
    assert_eq!(owner.watching.tell_by_header(8).await.unwrap(), NewsOutcome::Announced);
    until("the owner posts", || owner.watching.posted() == [token()]).await;
    assert_eq!(told.watching.tell_by_header(8).await.unwrap(), NewsOutcome::Announced);
    nothing_is_left(&owner).await;
    assert_eq!(owner.watching.posted(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn news_outlives_the_owner_and_is_taken_in_by_the_next() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (mut told, owner) = two_nodes(&server, &database, "server").await;
    let mut heir = Node::start_with(&server, &database, 3, "server").await;
    let slots: Vec<Slot> = Slot::all().collect();
    // It has ended, and nobody knows yet.
    slots.iter().for_each(|slot| owner.registry().ownership().revoke(*slot));
    assert_eq!(told.watching.tell(900).await.unwrap(), NewsOutcome::Announced);
    assert_eq!(told.accounts.state.forwarded(&slots).await.unwrap().len(), 1);
    database.give_all(3, heir.registry().ownership());
    heir.accounts.take(slots.clone()).await.unwrap();
    until("the heir posts", || heir.watching.posted() == [token()]).await;
    nothing_is_left(&heir).await;

    // A node that does not know that it has lost the slots changes nothing.
    database.give_all(9, &Ownership::of_node());
    assert_eq!(told.watching.tell(901).await.unwrap(), NewsOutcome::Announced);
    let [fact] = heir.accounts.state.forwarded(&slots).await.unwrap().try_into().unwrap();
    let refused = NewsReceiver::of(&heir.accounts.context).take_in(fact).await;
    assert!(matches!(refused, Err(StoreError::NotOwner)), "{refused:?}");
    assert_eq!((heir.watching.posted(), told.watching.posted()), (vec![], vec![]));
    database.give_all(1, told.registry().ownership());
    told.accounts.take(slots).await.unwrap();
    until("the one that was told posts", || told.watching.posted() == [token()]).await;
    nothing_is_left(&told).await;
}

/// While the nodes are upgraded one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn news_that_a_newer_node_forwards_in_other_words_wakes_all_devices_once() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (told, mut owner) = two_nodes(&server, &database, "server").await;
    let newer = br#"{"told":{"mailbox":"INBOX","uid":900,"skipped":"OfANewerVersion"}}"#.to_vec();
    let forward = change::forward(&told.watching.account, newer, UnixTime::now());
    told.registry().commit(forward).await.unwrap();
    until("the owner posts", || owner.watching.posted() == [token()]).await;
    nothing_is_left(&owner).await;
    assert_eq!(owner.watching.posted(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_an_account_is_bounded_at_a_node_that_does_not_own_it() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (told, owner) = two_nodes(&server, &database, "server").await;
    Slot::all().for_each(|slot| owner.registry().ownership().revoke(slot));
    let mut outcomes = vec![];
    for uid in 900..1050 {
        outcomes.push(told.watching.tell(uid).await);
    }
    let is_too_many = |outcome: &Result<_, NewsError>| matches!(outcome, Err(NewsError::TooMany));
    assert!(outcomes[..100].iter().all(Result::is_ok), "{outcomes:?}");
    assert!(outcomes.last().is_some_and(is_too_many), "{outcomes:?}");
    let waiting = told.accounts.state.forwarded(&Slot::all().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(waiting.len(), 100);

    let alice = told.watching.account.clone();
    told.registry().commit(change::remove_account(&alice)).await.unwrap();
    assert_eq!(told.watching.tell(2000).await.unwrap(), NewsOutcome::NoDevice);
    database.shut();
    let refused = told.watching.tell(2001).await;
    assert!(matches!(refused, Err(NewsError::Store(_))), "{refused:?}");
    database.reopen();
}

#[tokio::test(flavor = "multi_thread")]
async fn message_that_the_mail_server_left_out_is_found_by_a_client_at_any_node() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let (told, mut owner) = two_nodes(&server, &database, "server").await;
    let alice = told.watching.account.clone();
    let other = DeviceToken::new(b"openpgp:other").unwrap();
    let credentials = Credentials::new("alice@lab.test", "sesame");
    told.registry().register(&alice, &credentials, &other).await.unwrap();
    assert_eq!(told.watching.tell(900).await.unwrap(), NewsOutcome::Announced);
    let mut posted = vec![];
    until("the owner posts", || {
        posted.extend(owner.watching.posted());
        posted.len() == 2
    })
    .await;
    let _visit = told.registry().visit(&alice).await;
    let position = Position { uid_validity: 7, uid_next: 903 };
    let opened = OpenedMailbox { mailbox: "INBOX".into(), position };
    told.watching.receiver.opened(&alice, Some(&token()), opened.clone()).await;
    until("the other device is woken", || owner.watching.posted() == [other.clone()]).await;
    nothing_is_left(&owner).await;
    told.watching.receiver.opened(&alice, Some(&token()), opened).await;
    assert!(told.accounts.state.forwarded(&[Slot::of(&alice)]).await.unwrap().is_empty());
    assert_eq!(owner.watching.known().news_status().missed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_found_by_their_local_part_with_one_indexed_statement() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let node = Node::start_with(&server, &database, 1, "server").await;
    database.sql(
        "INSERT INTO accounts (name, upstream, slot, credentials, created)
         SELECT 'user' || n || '@example.org', 'imap.example.org:993', n % 1024, '', 0
         FROM generate_series(1, 20000) n;
         ANALYZE accounts",
    );
    let upstream = "imap.example.org:993";
    for name in ["Älice@Example.org", "bob", "BOB@example.net", "a@b@example.org"] {
        let account = AccountId::new(name, upstream);
        let (credentials, now) = (None, DualTime { wall: UnixTime::now(), served: Uptime(0) });
        let register = change::register(&account, credentials, &token(), true, now);
        node.registry().commit(register).await.unwrap();
    }
    let found = async |part: &str, name: &str| {
        let found = node.accounts.state.with_local_parts(&[part], &[name]).await.unwrap();
        found.into_iter().map(|id| id.user.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found("USER7", "").await, ["user7@example.org"]);
    assert_eq!(found("älice", "").await, ["Älice@Example.org"]);
    assert_eq!(found("bob", "BOB@example.net").await, ["BOB@example.net", "bob"], "exact first");
    assert_eq!(found("a@b", "").await, ["a@b@example.org"]);
    assert_eq!(found("nobody", "").await, [""; 0]);
    let plan = database.sql(
        "EXPLAIN SELECT name FROM accounts
         WHERE lower(regexp_replace(name, '@[^@]*$', '')) = ANY (string_to_array('bob', chr(1)))",
    );
    assert!(plan.contains("accounts_by_local_part"), "{plan}");
}
