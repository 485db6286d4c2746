//! Accounts and pushes of slots, among many others and among rows that cannot be read.

use super::*;

/// The rows of accounts that were read until now. The server counts a transaction that begins a second after the last one at once.
async fn read_accounts(database: &Database) -> u64 {
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let read =
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'accounts'";
    database.sql(read).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_a_slot_take_time_by_its_accounts() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    // Another slot's, which all wait.
    database.sql(
        "INSERT INTO accounts (name, upstream, slot, credentials, created)
             SELECT 'user' || n, 'imap.example.org:993', n % 10, '', 0 FROM generate_series(1, 20000) n;
         INSERT INTO tokens (account, hash, token, first_seen, last_seen, pending, pending_since)
             SELECT id, sha256(CAST('openpgp:' || name AS BYTEA)), 'openpgp:' || name, 0, 0, id, 0 FROM accounts;
         ANALYZE",
    );
    assert!(slot("alice").number() >= 10);
    one.register("alice", "a").await;
    one.notice("alice", 5).await.unwrap();
    let load = async || one.store.pending(&[slot("alice")]).await.unwrap();
    load().await;
    let before = read_accounts(&database).await;
    let pending: Vec<_> = load().await.unannounced.into_iter().map(|push| push.token).collect();
    assert_eq!(pending, [token("a")]);
    let read = read_accounts(&database).await - before;
    assert!(read < 1000, "{read} rows");
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_left_out() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    for user in ["alice", "bob", "carol"] {
        one.register(user, user).await;
        one.notice(user, 5).await.unwrap();
    }
    one.register("bob", "other").await;
    database.sql(
        "UPDATE tokens SET token = '', gone = 1 WHERE token IN ('openpgp:alice', 'openpgp:bob')",
    );
    let slots: Vec<Slot> = Slot::all().collect();
    let loaded = one.store.load_slots(&slots).await.unwrap();
    let found = loaded.accounts.iter().map(|found| {
        let tokens: Vec<_> = found.tokens.iter().map(|found| found.token.clone()).collect();
        (found.account.clone(), tokens)
    });
    let expected =
        [(account("bob"), vec![token("other")]), (account("carol"), vec![token("carol")])];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let pending = one.store.pending(&slots).await.unwrap().unannounced;
    assert_eq!(pending.into_iter().map(|push| push.token).collect::<Vec<_>>(), [token("carol")]);
}

#[tokio::test]
async fn answers_about_tokens_come_with_the_pushes_of_their_slot() {
    let database = Database::new();
    let one = Node::new(&database, 1).await;
    database.give_all(1, &one.ownership);
    for user in ["alice", "bob", "carol", "dave"] {
        one.register(user, user).await;
    }
    let now = UnixTime::now();
    let long_ago = UnixTime(now.0 - 3 * 3600);
    for (name, at) in [("alice", now), ("bob", long_ago)] {
        one.store.commit(change::announced(&token(name), Generation(0), at)).await.unwrap();
    }
    let hour = NOW.after(Duration::from_secs(3600));
    one.store.commit(change::quarantined(&token("carol"), 3, hour, MOMENT)).await.unwrap();
    let found = one.store.pending(&Slot::all().collect::<Vec<_>>()).await.unwrap();
    assert_eq!((found.unannounced, found.accepted), (vec![], vec![(token("alice"), now)]));
    let mut known: Vec<_> = found
        .tokens
        .iter()
        .map(|(token, known)| (token.clone(), known.quarantine.is_some()))
        .collect();
    known.sort();
    assert_eq!(known, [(token("alice"), false), (token("carol"), true)]);
    let bobs = one.store.pending(&[slot("bob")]).await.unwrap();
    assert_eq!((bobs.tokens, bobs.accepted), (vec![], vec![]), "long ago, and of other slots");
}
