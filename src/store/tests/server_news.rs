//! Messages that the mail server tells of, and positions that a watch notes beside it.

use super::*;
use Announce::{All, AllBut, Nothing};

/// A store with an account that has a token, after it noted these positions.
async fn store(home: &Home) -> Store {
    let (store, _, _) = home.open().await;
    register(&store, "alice", "one").await;
    store
}

fn message(uid: u64) -> Option<ToldMessage> {
    Some(ToldMessage { uid, uid_validity: Some(7) })
}

async fn told(store: &Store, message: Option<ToldMessage>, announce: Announce) -> bool {
    store.commit(change::told(&account("alice"), "INBOX", message, announce, NOW)).await.unwrap()
}

async fn noticed(store: &Store, uid_next: u64, announce: Announce) -> Noticed {
    looked(store, uid_next, uid_next, announce).await
}

/// A look up to `uid_next`, with messages that deserve a push up to `news_next`.
async fn looked(store: &Store, uid_next: u64, news_next: u64, announce: Announce) -> Noticed {
    let look = Look { position: Position { uid_validity: 7, uid_next }, news_next };
    let noticed = change::noticed(&account("alice"), "INBOX", look, announce, NOW);
    store.commit(noticed).await.unwrap()
}

async fn next(store: &Store) -> Option<u64> {
    let positions = store.positions(&account("alice")).await.unwrap();
    positions.first().map(|(_, position)| position.uid_next)
}

in_both!(message_is_announced_once_whichever_way_it_is_heard);
async fn message_is_announced_once_whichever_way_it_is_heard(home: &Home) {
    let (store, _, changes) = home.open().await;
    register(&store, "alice", "one").await;
    let pending = || {
        let changes = changes.lock().unwrap();
        changes.iter().filter(|change| matches!(change, Change::Pending { .. })).count()
    };
    assert_eq!(noticed(&store, 11, Nothing).await, Noticed::New);
    assert!(told(&store, message(11), All).await);
    assert_eq!((next(&store).await, pending()), (Some(12), 1));
    assert_eq!(noticed(&store, 12, All).await, Noticed::Told, "the watch finds it, too");
    assert!(!told(&store, message(11), All).await, "the mail server tells again");
    assert_eq!(pending(), 1);
    assert_eq!(noticed(&store, 13, All).await, Noticed::New, "the watch is first");
    assert!(!told(&store, message(12), All).await, "and the mail server is late");
    assert_eq!(pending(), 2);
    assert!(told(&store, message(13), All).await);
    assert_eq!(noticed(&store, 15, All).await, Noticed::New, "with another that was not told of");
    assert_eq!(pending(), 4);
    assert!(told(&store, message(20), All).await);
    assert_eq!(noticed(&store, 12, All).await, Noticed::Told, "an old look comes late");
    assert_eq!((next(&store).await, pending()), (Some(21), 5));
    assert!(told(&store, message(21), All).await);
    assert_eq!(looked(&store, 24, 22, All).await, Noticed::Told, "others wake nobody");
    assert_eq!((next(&store).await, pending()), (Some(24), 6));
    assert_eq!(looked(&store, 26, 25, All).await, Noticed::New);
    assert_eq!((next(&store).await, pending()), (Some(26), 7));
}

in_both!(announced_message_covers_those_left_out_before_it);
async fn announced_message_covers_those_left_out_before_it(home: &Home) {
    let (store, _, changes) = home.open().await;
    register(&store, "alice", "one").await;
    noticed(&store, 11, Nothing).await;
    assert!(told(&store, message(14), AllBut(vec![token("one")])).await);
    assert_eq!(next(&store).await, Some(15));
    let last = changes.lock().unwrap().last().cloned();
    let is_woken =
        matches!(&last, Some(Change::Pending { tokens, .. }) if *tokens == [token("one")]);
    assert!(is_woken, "a device that has the message may lack those before: {last:?}");
    assert_eq!(noticed(&store, 15, All).await, Noticed::Told);
}

in_both!(message_that_is_not_pushed_moves_the_position_only_if_none_is_left_out);
async fn message_that_is_not_pushed_moves_the_position_only_if_none_is_left_out(home: &Home) {
    let store = store(home).await;
    assert!(told(&store, message(10), Nothing).await);
    assert_eq!(next(&store).await, Some(11), "all before it is old");
    assert!(told(&store, message(11), Nothing).await);
    assert_eq!(next(&store).await, Some(12));
    assert!(told(&store, message(14), Nothing).await);
    assert_eq!(next(&store).await, Some(12), "12 and 13 are to be found");
    assert_eq!(noticed(&store, 15, All).await, Noticed::New);
}

in_both!(uid_counts_within_its_uidvalidity);
async fn uid_counts_within_its_uidvalidity(home: &Home) {
    let store = store(home).await;
    let bare = |uid| Some(ToldMessage { uid, uid_validity: None });
    assert!(told(&store, bare(3), All).await);
    assert_eq!(next(&store).await, None, "no position without UIDVALIDITY");
    assert!(told(&store, message(40), All).await);
    assert!(!told(&store, bare(40), All).await, "that of the stored position");
    let renewed = |uid| Some(ToldMessage { uid, uid_validity: Some(8) });
    assert!(told(&store, renewed(2), All).await, "the mailbox was made again");
    assert!(!told(&store, renewed(2), All).await);
    assert_eq!(next(&store).await, Some(3));
    assert_eq!(noticed(&store, 41, All).await, Noticed::New, "of another UIDVALIDITY");
}

in_both!(wrong_uid_hides_no_message);
async fn wrong_uid_hides_no_message(home: &Home) {
    let store = store(home).await;
    noticed(&store, 11, Nothing).await;
    assert!(told(&store, message(1_700_000_000), All).await, "in doubt it is a push");
    assert_eq!(next(&store).await, Some(11), "that is no UID of this mailbox");
    assert!(told(&store, message(5_000), All).await);
    assert!(!told(&store, message(11), All).await);
    assert_eq!(next(&store).await, Some(5_001));
    assert_eq!(noticed(&store, 12, All).await, Noticed::New, "a look shows that it was wrong");
    assert_eq!(next(&store).await, Some(12));
    assert!(told(&store, message(12), All).await);
    assert_eq!(noticed(&store, 13, All).await, Noticed::Told);
}

in_both!(wrong_first_uid_hides_no_message);
async fn wrong_first_uid_hides_no_message(home: &Home) {
    let store = store(home).await;
    assert!(told(&store, message(u64::from(u32::MAX)), All).await);
    assert!(told(&store, message(11), All).await);
    assert!(!told(&store, message(11), All).await);
    assert_eq!(next(&store).await, Some(12));
}

in_both!(message_without_uid_is_announced_and_moves_nothing);
async fn message_without_uid_is_announced_and_moves_nothing(home: &Home) {
    let store = store(home).await;
    noticed(&store, 11, Nothing).await;
    assert!(told(&store, None, All).await);
    assert!(told(&store, None, Nothing).await);
    assert_eq!(next(&store).await, Some(11));
    let unknown = change::told(&account("bob"), "INBOX", message(1), All, NOW);
    assert!(!store.commit(unknown).await.unwrap(), "an account without a device");
}

#[tokio::test]
async fn account_that_is_not_watched_has_no_credentials_and_is_not_called_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&Home::file(directory.path())).await;
    register(&store, "bob", "two").await;
    store.commit(change::watched(&account("alice"), false)).await.unwrap();
    let copy = killed(directory.path());
    assert!(!holds(copy.path(), b"sesame-of-alice"));
    let changed = Arc::new(Mutex::new(Vec::new()));
    let settings = StoreSettings::memory(copy.path().join("state"));
    let (_reopened, loaded) = Store::open(&settings, {
        let changed = Arc::clone(&changed);
        move |change| changed.lock().unwrap().push(change)
    })
    .unwrap();
    let watched: Vec<_> = loaded
        .accounts
        .iter()
        .map(|record| (&*record.account.user, record.is_watched, record.is_waiting()))
        .collect();
    assert_eq!(watched, [("alice", false, false), ("bob", true, true)]);
    let called: Vec<_> = loaded.unannounced.iter().map(|found| found.token.clone()).collect();
    assert_eq!(called, [token("two")], "only an account that needs a login");
}

/// Any order of deliveries, news (late, twice, or never), looks of a watch and restarts: nothing is missed, nothing announced twice.
#[tokio::test]
async fn every_order_of_news_and_looks_announces_each_message_once() {
    for seed in 0..30 {
        let directory = tempfile::tempdir().unwrap();
        orders(&Home::file(directory.path()), seed).await;
    }
    for seed in 0..5 {
        orders(&Home::database(), seed).await;
    }
}

async fn orders(home: &Home, seed: u64) {
    let (store, _, changes) = home.open().await;
    register(&store, "alice", "one").await;
    noticed(&store, 1, Nothing).await;
    let pending = || {
        let is_push = |change: &&Change| matches!(change, Change::Pending { .. });
        changes.lock().unwrap().iter().filter(is_push).count()
    };
    let mut random = fastrand::Rng::with_seed(seed);
    // UIDs of messages are from 1 on. A push is for all messages up to the one that causes it.
    let (mut messages, mut announced, mut seen) = (0, 0, 0);
    for step in 0..60 {
        let before = pending();
        let mut cause = 0;
        match random.u8(0..10) {
            0..4 => messages += 1,
            4..7 if messages > 0 => {
                // Mostly the last one; now and then an old one, again or at last.
                let is_old = random.u8(0..4) == 0;
                cause = if is_old { random.u64(1..=messages) } else { messages };
                told(&store, message(cause), All).await;
            }
            7..9 if messages > seen => {
                (seen, cause) = (messages, messages);
                noticed(&store, messages + 1, All).await;
            }
            9 => seen = next(&store).await.unwrap() - 1,
            _ => {}
        }
        if pending() > before {
            assert!(cause > announced, "seed {seed}, step {step}: announced twice");
            announced = cause;
        }
    }
    if messages >= next(&store).await.unwrap() {
        assert_eq!(noticed(&store, messages + 1, All).await, Noticed::New);
        announced = messages;
    }
    assert_eq!(announced, messages, "seed {seed}: missed");
}
