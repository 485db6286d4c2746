//! The event log: rows that are committed late, and the removal of old rows.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_row_is_read_once_while_somebody_elses_transaction_stays_open() {
    let database = Arc::new(Database::new());
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    let mut log = two.store.event_log().unwrap();
    log.read().await.unwrap();
    let open = |statement: &'static str| {
        let database = Arc::clone(&database);
        tokio::task::spawn_blocking(move || database.sql(statement))
    };
    let others = open("SELECT pg_current_xact_id(); SELECT pg_sleep(2)");
    let late = open(
        "INSERT INTO events (node, kind, data) VALUES (1, 'pending', 'late'); SELECT pg_sleep(1)",
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    for number in 0..20_u8 {
        let event = StoredEvent::Pending(vec![number]);
        one.store.commit(change::tell(event.clone())).await.unwrap();
        assert_eq!(log.read().await.unwrap(), [event]);
        assert_eq!(log.read().await.unwrap(), []);
    }
    late.await.unwrap();
    assert_eq!(log.read().await.unwrap(), [StoredEvent::Pending(b"late".to_vec())]);
    assert_eq!(log.read().await.unwrap(), []);
    others.await.unwrap();
    assert_eq!(log.read().await.unwrap(), []);
}

#[tokio::test]
async fn posters_of_many_tokens_are_found_at_once() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give(1, &one.ownership, &[slot("alice")]);
    for (user, token) in [("alice", "a"), ("alice", "b"), ("bob", "c")] {
        one.register(user, token).await;
    }
    one.notice("alice", 5).await.unwrap();
    let hashes: Vec<_> = ["a", "unknown", "b", "c"].map(hash).into();
    let posts = one.store.token_posts(&hashes).await.unwrap();
    let own = posts.iter().filter_map(|post| match post {
        TokenPost::Own(left) => Some(left.unannounced.len()),
        TokenPost::Other(_) => None,
    });
    assert_eq!(own.collect::<Vec<_>>(), [1, 1]);
    assert_eq!(posts.len(), 3);
    assert!(posts.contains(&TokenPost::Other(token("c"))));
    assert_eq!(one.store.token_posts(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn old_rows_are_removed_in_portions() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.sql(
        "INSERT INTO events (node, kind, at)
             SELECT 2, 'slots', now() - CASE WHEN i <= 5000 THEN INTERVAL '1 hour' ELSE INTERVAL '1 minute' END
             FROM generate_series(1, 9000) i",
    );
    let mut log = one.store.event_log().unwrap();
    for left in [7000, 5000, 4000, 4000] {
        log.prune().await;
        assert_eq!(database.sql("SELECT count(*) FROM events"), left.to_string());
    }
}
