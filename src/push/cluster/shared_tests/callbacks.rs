//! Accounts without credentials, whose nodes change.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_woken_once_over_all_nodes() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let database = Database::new();
    let mut owner = Node::start(&server, &database, 1).await;
    let (mut heir, mut third) =
        (Node::start(&server, &database, 2).await, Node::start(&server, &database, 3).await);
    let slots: Vec<Slot> = Slot::all().collect();
    owner.watching.register().await;
    database.sql("UPDATE accounts SET credentials = ''");
    // It knows nothing yet of what the owner does.
    heir.prepare(&slots).await;
    database.give_all(1, owner.registry().ownership());
    owner.accounts.take(slots.clone()).await.unwrap();
    until("the owner wakes the device", || owner.watching.posted() == [token()]).await;
    assert_ne!(database.sql("SELECT count(*) FROM accounts WHERE called IS NOT NULL"), "0");

    // It dies before the POST is accepted.
    slots.iter().for_each(|slot| owner.registry().ownership().revoke(*slot));
    database.give_all(2, heir.registry().ownership());
    heir.accounts.take(slots.clone()).await.unwrap();
    until("the heir posts what is left", || heir.watching.posted() == [token()]).await;
    let accepted = change::announced(&token(), Generation(u64::MAX), UnixTime::now());
    heir.registry().commit(accepted).await.unwrap();
    let called = database.sql("SELECT called FROM accounts");

    // The account is waited for, but was called a moment ago.
    slots.iter().for_each(|slot| heir.registry().ownership().revoke(*slot));
    database.give_all(3, third.registry().ownership());
    third.accounts.take(slots.clone()).await.unwrap();
    let alice = third.registry().get(&third.watching.account).unwrap();
    let again = third.registry().call_again(&alice, CALLS.again).await;
    assert!(!again.unwrap() && database.sql("SELECT called FROM accounts") == called);
    assert_eq!(third.watching.posted(), []);
    database.sql("UPDATE accounts SET called = called - 3600");
    third.accounts.take(slots).await.unwrap();
    until("the device is woken again", || third.watching.posted() == [token()]).await;

    // It has logged in, at another node.
    let credentials = Credentials::new("alice@lab.test", "sesame");
    let _visit = owner.registry().visit(&alice.id).await;
    owner.registry().login_succeeded(&alice.id, &credentials).await.unwrap();
    until("it is watched", || third.is_watching()).await;
}
