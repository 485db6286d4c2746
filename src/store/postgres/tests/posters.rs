//! A token of accounts of two nodes: it is posted by one of them, whatever happens to its accounts at a third.

use std::sync::mpsc;

use super::*;

/// Alice, the first one with the token, is the first node's, bob the second's. The third has none.
struct Nodes {
    database: Database,
    one: Node,
    two: Node,
    three: Node,
}

const SHARED: &str = "shared";

impl Nodes {
    async fn new() -> Self {
        let database = Database::new();
        let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
        let three = Node::new(&database, 3).await;
        three.register("alice", SHARED).await;
        three.register("bob", SHARED).await;
        database.give(1, &one.ownership, &[slot("alice")]);
        database.give(2, &two.ownership, &[slot("bob")]);
        Self { database, one, two, three }
    }

    fn slots() -> [Slot; 2] {
        ["alice", "bob"].map(slot)
    }
}

/// Reads the log, and reports if it has to be looked for the poster of the token.
async fn looks(log: &mut EventLog) -> bool {
    log.read().await.unwrap().contains(&StoredEvent::Pending(hash(SHARED)))
}

#[tokio::test]
async fn post_moves_with_the_first_account_however_that_loses_the_token() {
    let nodes = Nodes::new().await;
    let Nodes { one, two, three, .. } = &nodes;
    let mut logs = [one, two, three].map(|node| node.store.event_log().unwrap());
    for log in &mut logs {
        assert_eq!(log.read().await.unwrap(), []);
    }
    let mut surplus: Vec<_> = (0..MAX_TOKENS).map(|number| format!("surplus-{number}")).collect();
    let newest = surplus.pop().unwrap();
    for (uid_next, way) in [(5, "token"), (6, "account"), (7, "surplus"), (8, "age")] {
        three.store.commit(change::remove_account(&account("alice"))).await.unwrap();
        three.store.commit(change::remove_account(&account("bob"))).await.unwrap();
        three.register("alice", SHARED).await;
        three.register("bob", SHARED).await;
        for name in surplus.iter().filter(|_| way == "surplus") {
            three.register("alice", name).await;
        }
        assert_eq!(two.notice("bob", uid_next).await.unwrap(), Noticed::New);
        assert_eq!(one.left_to_post(SHARED).await.len(), 1);
        assert!(!two.posts(SHARED).await);
        for log in &mut logs {
            assert!(looks(log).await, "also the one that has noticed it");
        }
        match way {
            "token" => {
                let change = change::remove_token(&account("alice"), &token(SHARED));
                three.store.commit(change).await.unwrap();
            }
            "account" => {
                three.store.commit(change::remove_account(&account("alice"))).await.unwrap();
            }
            "surplus" => three.register("alice", &newest).await,
            _ => {
                let old = "UPDATE tokens SET last_served = -9 WHERE account = (SELECT min(id) FROM accounts)";
                nodes.database.sql(old);
                let expired = three.store.commit(change::expire(Uptime(0), Uptime(-1))).await;
                assert_eq!(expired.unwrap().tokens, 1);
            }
        }
        for log in &mut logs {
            assert!(looks(log).await, "{way}");
        }
        assert_eq!(two.left_to_post(SHARED).await.len(), 1, "{way}");
        assert!(!one.posts(SHARED).await, "{way}");
        assert_eq!(two.store.pending(&Nodes::slots()).await.unwrap().unannounced.len(), 1);
    }
    assert_eq!(two.pending(), [], "it was always for the other to post");
}

#[tokio::test]
async fn news_that_is_noticed_while_the_poster_changes_is_not_lost() {
    let nodes = Nodes::new().await;
    let Nodes { one, two, three, .. } = &nodes;
    let mut logs = [one, two].map(|node| node.store.event_log().unwrap());
    for log in &mut logs {
        assert_eq!(log.read().await.unwrap(), []);
    }
    let position = Position { uid_validity: 7, uid_next: 5 };
    let mut notice = change::noticed(&account("bob"), "INBOX", position, Announce::All, NOW);
    let ((marked, is_marked), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
    let slow = two.store.clone();
    let noticed = tokio::spawn(async move {
        let change = move |state: &mut Operation<'_>| {
            let noticed = notice(state)?;
            marked.send(()).unwrap();
            may_go_on.recv_timeout(Duration::from_secs(40)).unwrap();
            Ok(noticed)
        };
        slow.commit(change).await
    });
    let waited = tokio::task::spawn_blocking(move || {
        is_marked.recv_timeout(Duration::from_secs(40)).unwrap();
    });
    waited.await.unwrap();
    let change = change::remove_token(&account("alice"), &token(SHARED));
    three.store.commit(change).await.unwrap();
    for log in &mut logs {
        assert!(looks(log).await);
    }
    assert_eq!(two.left_to_post(SHARED).await, [], "it is not committed yet");
    go_on.send(()).unwrap();
    assert_eq!(noticed.await.unwrap().unwrap(), Noticed::New);
    assert!(looks(&mut logs[1]).await);
    assert_eq!(two.left_to_post(SHARED).await.len(), 1);
    assert!(!one.posts(SHARED).await);
}

#[tokio::test]
async fn poster_knows_what_other_nodes_know_of_its_token() {
    let nodes = Nodes::new().await;
    let Nodes { database, one, two, three } = &nodes;
    let mut log = one.store.event_log().unwrap();
    assert_eq!(log.read().await.unwrap(), []);
    let record = async |node: &Node| match node.post_of(SHARED).await {
        TokenPost::Own(known) => known,
        other => panic!("{other:?}"),
    };
    let hour = NOW.after(Duration::from_secs(3600));
    one.store.commit(change::quarantined(&token(SHARED), 2, hour, MOMENT)).await.unwrap();
    // The device hands it over again, for the account of another node.
    three.register("bob", SHARED).await;
    assert!(looks(&mut log).await);
    let quarantine = record(one).await.tokens[0].1.quarantine.unwrap();
    assert!(quarantine.answers == 2 && quarantine.until < hour, "it may be posted soon");

    let now = UnixTime::now();
    one.store.commit(change::announced(&token(SHARED), Generation(0), now)).await.unwrap();
    three.store.commit(change::remove_account(&account("alice"))).await.unwrap();
    assert!(looks(&mut log).await);
    assert_eq!(record(two).await.accepted, [(token(SHARED), now)], "within the window");

    // The first account gets it back, or its node changes: the new poster has to look.
    three.register("zoe", SHARED).await;
    assert!(looks(&mut log).await && record(two).await.unannounced.is_empty());
    database.give(3, &three.ownership, &[slot("bob")]);
    assert!(record(three).await.unannounced.is_empty());
    let late = two.store.commit(change::announced(&token(SHARED), Generation(9), now)).await;
    assert!(matches!(late, Err(StoreError::NotOwner)), "its epoch is over, and it does not know");
}
