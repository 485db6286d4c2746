//! Statements that are sent together: how many, in how many round trips, and what happens if one of them fails.

use super::super::super::sql::{Sql, values};
use super::super::link::Traffic;
use super::*;

const IDLES: &str =
    "INSERT INTO idled (account, name, last_idled) SELECT id, ?1, 1 FROM accounts WHERE name = ?2";

/// The statements of the writer up to now, and with this change its own two: it begins and ends.
async fn traffic(node: &Node) -> Traffic {
    let look = |state: &mut Operation<'_>| match state.sql {
        Sql::Postgres(connection) => Ok(*connection.session.traffic.lock().unwrap()),
        Sql::Sqlite(_) => panic!("not a database"),
    };
    let seen = node.store.commit(look).await.unwrap();
    Traffic { statements: seen.statements + 2, round_trips: seen.round_trips + 1 }
}

/// A node that owns alice's account.
async fn node_with_alice(database: &Database) -> Node {
    let one = Node::new(database, 1).await;
    database.give_all(1, &one.ownership);
    one.register("alice", "a").await;
    one.changes.lock().unwrap().clear();
    one
}

fn doubts(node: &Node) -> u64 {
    node.store.shared.as_ref().unwrap().doubts.count()
}

fn mailboxes(database: &Database) -> String {
    database.sql("SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM idled")
}

#[tokio::test]
async fn message_takes_nine_statements_in_four_round_trips() {
    let database = Database::new();
    let one = node_with_alice(&database).await;
    let generation = Generation(u64::MAX);
    for uid_next in 5..8 {
        let before = traffic(&one).await;
        assert_eq!(one.notice("alice", uid_next).await.unwrap(), Noticed::New);
        let noticed = traffic(&one).await;
        one.store.commit(change::announced(&token("a"), generation, NOW)).await.unwrap();
        let announced = traffic(&one).await;
        // Begins and reads; moves the position, marks, and commits.
        assert_eq!(noticed.statements - before.statements - 2, 5);
        assert_eq!(noticed.round_trips - before.round_trips - 1, 2);
        // Begins and reads; changes the token, and commits.
        assert_eq!(announced.statements - noticed.statements - 2, 4);
        assert_eq!(announced.round_trips - noticed.round_trips - 1, 2);
    }
    assert_eq!(one.pending(), [token("a"), token("a"), token("a")]);
    assert_eq!(one.left_to_post("a").await, []);
}

/// Without news a look at the event log is one statement.
#[tokio::test]
async fn log_without_news_takes_one_statement() {
    let database = Database::new();
    let one = node_with_alice(&database).await;
    let reader = || async {
        let session = one.store.shared.as_ref().unwrap().reader.link.session().await.unwrap();
        *session.traffic.lock().unwrap()
    };
    let mut log = one.store.event_log().unwrap();
    log.read().await.unwrap();
    let before = reader().await;
    assert_eq!(log.read().await.unwrap(), []);
    let after = reader().await;
    assert_eq!(after.statements - before.statements, 1);
    assert_eq!(after.round_trips - before.round_trips, 1);
}

/// A change that is sent with the end of the transaction fails: the transaction is undone, which is no doubt.
#[tokio::test]
async fn change_refused_with_the_commit_undoes_all() {
    let database = Database::new();
    let one = node_with_alice(&database).await;
    let broken = |state: &mut Operation<'_>| {
        state.changes.push(Change::Gone { token: token("x") });
        state.sql.execute_later(IDLES, values!["before", "alice"])?;
        state.sql.execute_later("INSERT INTO mailboxes VALUES (99, 'nobody', 1, 1)", &[])?;
        state.sql.execute_later(IDLES, values!["after", "alice"])?;
        Ok(())
    };
    let refused = one.store.commit(broken).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!((mailboxes(&database).as_str(), doubts(&one)), ("", 0));
    assert!(one.changes.lock().unwrap().is_empty());
    // A text that cannot be sent: neither is what follows it, least of all the end of the transaction.
    let nul = |state: &mut Operation<'_>| {
        state.sql.execute_later(IDLES, values!["before", "alice"])?;
        state.sql.execute_later(IDLES, values!["a\0b", "alice"])?;
        Ok(())
    };
    let refused = one.store.commit(nul).await;
    assert!(matches!(refused, Err(StoreError::Nul)), "{refused:?}");
    assert_eq!((mailboxes(&database).as_str(), doubts(&one)), ("", 0));
    let well =
        |state: &mut Operation<'_>| Ok(state.sql.execute_later(IDLES, values!["well", "alice"])?);
    one.store.commit(well).await.unwrap();
    assert_eq!(mailboxes(&database), "well");
}

/// Of several changes in one transaction, each has its own outcome.
#[tokio::test(flavor = "multi_thread")]
async fn change_refused_among_others_fails_alone() {
    let database = Database::new();
    let one = node_with_alice(&database).await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let gate = tokio::spawn({
        let store = one.store.clone();
        async move { store.commit(move |_| Ok(held.recv().ok())).await }
    });
    let idles = |name: &'static str| {
        move |state: &mut Operation<'_>| {
            Ok(state.sql.execute_later(IDLES, values![name, "alice"])?)
        }
    };
    let broken = |state: &mut Operation<'_>| {
        state.changes.push(Change::Gone { token: token("x") });
        state.sql.execute_later(IDLES, values!["broken", "alice"])?;
        Ok(state.sql.execute_later("INSERT INTO mailboxes VALUES (99, 'nobody', 1, 1)", &[])?)
    };
    let unsent = |_: &mut Operation<'_>| Err::<(), _>(StoreError::NotOwner);
    let (first, broken, unsent, nul, last, ()) = tokio::join!(
        one.store.commit(idles("first")),
        one.store.commit(broken),
        one.store.commit(unsent),
        one.store.commit(idles("a\0b")),
        one.store.commit(idles("last")),
        async { release.send(()).unwrap() },
    );
    gate.await.unwrap().unwrap();
    assert!(first.is_ok() && last.is_ok(), "{first:?} {last:?}");
    assert!(matches!(broken, Err(StoreError::Refused(_))), "{broken:?}");
    assert!(matches!(unsent, Err(StoreError::NotOwner)), "{unsent:?}");
    assert!(matches!(nul, Err(StoreError::Nul)), "{nul:?}");
    assert_eq!((mailboxes(&database).as_str(), doubts(&one)), ("first last", 0));
    assert!(one.changes.lock().unwrap().is_empty());
}

/// The connection ends before the answer to a change that was sent with the end of the transaction: that may have been committed.
#[tokio::test]
async fn connection_lost_with_the_commit_is_a_doubt() {
    let database = Database::new();
    let one = node_with_alice(&database).await;
    let lost = |state: &mut Operation<'_>| {
        state.sql.execute_later(IDLES, values!["lost", "alice"])?;
        state.sql.execute_later("SELECT pg_terminate_backend(pg_backend_pid())", &[])?;
        Ok(())
    };
    let outcome = one.store.commit(lost).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert_eq!(doubts(&one), 1);
    assert_eq!(mailboxes(&database), "");
    assert_eq!(one.notice("alice", 5).await.unwrap(), Noticed::New, "over another connection");
}

/// The state is moved while a node waits for the tables: what it waits with is refused.
#[tokio::test(flavor = "multi_thread")]
async fn premises_are_those_of_after_the_wait() {
    use crate::store::lease_rows::{LeaseRequest, NodeId, NodeIdentity, Renewal};
    let database = Database::new();
    let one = node_with_alice(&database).await;
    let lease = Duration::from_secs(9);
    let identity = NodeIdentity { id: NodeId(1), name: "push-1".to_owned(), lease };
    let renew = |join| LeaseRequest::Renew(Renewal { join, ..Renewal::default() });
    let limit = Duration::from_secs(4);
    for join in [true, false, false] {
        one.store.lease_request(&identity, &renew(join), limit).await.unwrap();
    }
    one.register("bob", "b").await;
    let moving = std::thread::spawn({
        let name = database.name.clone();
        move || {
            super::super::testing::sql(
                &name,
                "BEGIN; LOCK TABLE nodes, events IN EXCLUSIVE MODE; SELECT pg_sleep(1);
                 INSERT INTO meta VALUES ('moved', 'elsewhere'); COMMIT",
            )
        }
    });
    let held = "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'events'::regclass";
    while database.sql(held) == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let renewal = renew(false);
    let (told, renewed) = tokio::join!(
        one.store.commit(change::tell(StoredEvent::Rewatch(account("bob")))),
        one.store.lease_request(&identity, &renewal, limit),
    );
    moving.join().unwrap();
    assert!(matches!(told, Err(StoreError::Outdated(_))), "{told:?}");
    assert!(matches!(renewed, Err(StoreError::Outdated(_))), "{renewed:?}");
    assert_eq!(database.sql("SELECT count(*) FROM events WHERE kind = 'rewatch'"), "0");
}
