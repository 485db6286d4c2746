//! Work by the clock takes a node no longer with many accounts than with few, and a change that is slow takes no other with it.

use super::*;

/// Many accounts with a token and a mailbox each, last seen at as many seconds as their number.
const FILL: &str =
    "INSERT INTO accounts (name, upstream, slot, credentials, created)
         SELECT 'user' || i, 'imap.example.org:993', i % 1024, 'x', 0 FROM generate_series(1, NUMBER) i;
     INSERT INTO tokens (account, hash, token, first_seen, last_seen, last_served, accepted)
         SELECT id, sha256(CAST(name AS BYTEA)), name, 0, 0, id, 5 FROM accounts;
     INSERT INTO idled SELECT id, 'INBOX', id FROM accounts;
     ANALYZE";

fn fill(database: &Database, number: usize) {
    database.sql(&FILL.replace("NUMBER", &number.to_string()));
}

/// The rows of the large tables that were read up to now, when all connections have ended.
async fn rows_read(database: &Database) -> u64 {
    let others = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while database.sql(others) != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables
         WHERE relname IN ('accounts', 'tokens', 'idled', 'events')";
    database.sql(rows).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn start_and_hourly_work_read_few_rows_of_many() {
    let database = Database::new();
    Node::new(&database, 1).await.store.close().await;
    fill(&database, 50_000);
    let before = rows_read(&database).await;
    let node = Node::new(&database, 2).await;
    database.give_all(2, &node.ownership);
    node.store.commit(change::served(Uptime(7))).await.unwrap();
    // More than the attempts after which PostgreSQL may plan a statement once for all values.
    for _ in 0..8 {
        let expire = change::expire(Uptime(7), Uptime(-1));
        assert_eq!(node.store.commit(expire).await.unwrap(), Expired { tokens: 0, has_more: true });
        let token = DeviceToken::new(b"user7").unwrap();
        let gone = DualTime { wall: NOW, served: Uptime(9 * 24 * 3600) };
        let removed =
            node.store.commit(change::quarantined(&token, 3, NOW.after(Duration::ZERO), gone));
        assert!(!removed.await.unwrap(), "no POST was accepted");
        database.sql("UPDATE tokens SET gone_served = 0 WHERE account = 7");
    }
    drop(node);
    let read = rows_read(&database).await - before;
    assert!((8 * 500..50_000).contains(&read), "{read} rows");
}

#[tokio::test]
async fn expiry_looks_through_all_accounts_in_portions_once_a_day() {
    let database = Database::new();
    let (one, two) = (Node::new(&database, 1).await, Node::new(&database, 2).await);
    fill(&database, 1300);
    let mut log = two.store.event_log().unwrap();
    log.read().await.unwrap();
    let (mut removed, mut portions) = (0, 0);
    loop {
        let node = if portions % 2 == 0 { &one } else { &two };
        let expired = node.store.commit(change::expire(Uptime(9), Uptime(651))).await.unwrap();
        assert!(expired.tokens <= 100, "{expired:?}");
        (removed, portions) = (removed + expired.tokens, portions + 1);
        if !expired.has_more {
            break;
        }
    }
    assert_eq!((removed, portions > 7), (650, true), "{portions}");
    let left = database.sql("SELECT count(*), min(id) FROM accounts");
    assert_eq!(left, "650|651");
    assert_eq!(database.sql("SELECT count(*) FROM idled"), "650");
    assert!(log.read().await.unwrap().len() >= 300, "the other node hears of it");
    let again = |now| one.store.commit(change::expire(Uptime(now), Uptime(660)));
    assert_eq!(again(10).await.unwrap(), Expired::default(), "not before the next day");
    let next = again(9 + 24 * 3600).await.unwrap();
    assert_eq!(next, Expired { tokens: 9, has_more: true });
}

/// Changes that are made in one transaction: `slow` of them run into the time limit of a statement.
async fn commit_together(
    node: &Node,
    slow: usize,
) -> (Vec<StoreError>, Result<Noticed, StoreError>) {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (began, begins) = std::sync::mpsc::channel();
    let gate = tokio::spawn({
        let store = node.store.clone();
        let wait = move |_: &mut Operation<'_>| {
            began.send(()).unwrap();
            Ok(held.recv().ok())
        };
        async move { store.commit(wait).await }
    });
    tokio::task::block_in_place(|| begins.recv().unwrap());
    let sleep = |state: &mut Operation<'_>| {
        let limit = "SELECT set_config('statement_timeout', '50', TRUE)";
        state.sql.one(limit, &[], |_| Ok(()))?;
        Ok(state.sql.execute("SELECT 1 FROM pg_sleep(3)", &[])?)
    };
    let slow = futures_util::future::join_all((0..slow).map(|_| node.store.commit(sleep)));
    let (slow, noticed, ()) =
        tokio::join!(slow, node.notice("alice", 5), async { release.send(()).unwrap() });
    gate.await.unwrap().unwrap();
    (slow.into_iter().filter_map(Result::err).collect(), noticed)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_change_fails_alone_and_keeps_the_connection() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    one.register("alice", "a").await;
    let connection = async || {
        let pid = |state: &mut Operation<'_>| {
            Ok(state.sql.one("SELECT pg_backend_pid()", &[], |row| row.get::<i64>(0))?)
        };
        one.store.commit(pid).await.unwrap()
    };
    let before = connection().await;
    let (slow, noticed) = commit_together(&one, 1).await;
    assert!(matches!(slow.as_slice(), [StoreError::Slow(_)]), "{slow:?}");
    assert_eq!(noticed.unwrap(), Noticed::New);
    // If it is not the change but the database, nobody waits for the rest of a large transaction.
    let (slow, noticed) = commit_together(&one, 5).await;
    assert_eq!(slow.len(), 5);
    assert!(matches!(noticed, Err(StoreError::Slow(_))), "{noticed:?}");
    assert!(one.store.is_failing(), "until something is written");
    assert_eq!(connection().await, before);
    assert!(!one.store.is_failing());
}
