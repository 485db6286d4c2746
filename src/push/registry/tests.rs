//! The registry over a real store.

use super::*;
use crate::credentials::Mechanism;
use crate::push::latest::Merge;
use crate::store::{Announce, change};
use futures_util::FutureExt;
use tempfile::TempDir;

struct Opened {
    registry: Registry,
    events: AccountEvents,
    news: TokenNews,
}

fn open(directory: &TempDir) -> Opened {
    let settings = StoreSettings::sealed(directory.path().join("state"));
    let (registry, events, news) = Registry::open(&settings).unwrap();
    Opened { registry, events, news }
}

fn alice() -> AccountId {
    AccountId::new("alice", "imap.example.org:993")
}

fn credentials(password: &str) -> Credentials {
    Credentials::new("alice", password)
}

fn token(name: &str) -> DeviceToken {
    DeviceToken::new(name.as_bytes()).unwrap()
}

const POSITION: Position = Position { uid_validity: 1, uid_next: 2 };

#[tokio::test]
async fn from_the_first_token_to_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    assert!(!it.registry.is_known(&alice()) && it.registry.credentials(&alice()).is_none());
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    it.registry.register(&alice(), &credentials("one"), &token("b")).await.unwrap();
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    assert_eq!(it.events.try_recv(), None, "another token changes nothing for the watcher");
    assert_eq!(it.registry.tokens(&alice()), [token("a"), token("b")]);
    assert_eq!(*it.registry.credentials(&alice()).unwrap(), credentials("one"));

    it.registry.noticed(&alice(), "INBOX", POSITION, true).await.unwrap();
    let (first, News::Pending { generation, age }) = it.news.try_recv().unwrap() else {
        panic!("pending")
    };
    assert_eq!((first, age), (token("a"), Duration::ZERO));
    assert_eq!(it.news.try_recv(), Some((token("b"), News::Pending { generation, age })));
    assert_eq!(it.registry.positions(&alice()).await.unwrap(), [(MailboxName::inbox(), POSITION)]);

    it.registry.commit(change::remove_token(&alice(), &token("a"))).await.unwrap();
    assert_eq!(it.events.try_recv(), None);
    it.registry.commit(change::remove_account(&alice())).await.unwrap();
    assert_eq!(it.events.try_recv(), None);
    assert_eq!(it.news.try_recv(), Some((token("a"), News::Gone)));
    assert!(!it.registry.is_known(&alice()) && it.registry.is_empty());
}

#[tokio::test]
async fn device_that_has_the_message_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    for name in ["a", "b", "c"] {
        it.registry.register(&alice(), &credentials("one"), &token(name)).await.unwrap();
    }
    let but = Announce::AllBut(vec![token("b"), token("elsewhere")]);
    it.registry.noticed(&alice(), "INBOX", POSITION, but).await.unwrap();
    let woken: Vec<DeviceToken> =
        std::iter::from_fn(|| it.news.try_recv()).map(|(token, _)| token).collect();
    assert_eq!(woken, [token("a"), token("c")]);
    let pending = it.registry.snapshot().await.unwrap()[0]
        .tokens
        .iter()
        .map(|token| token.pending)
        .collect::<Vec<_>>();
    assert_eq!(pending, [true, false, true]);
}

#[tokio::test]
async fn restart_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.registry.noticed(&alice(), "INBOX", POSITION, true).await.unwrap();
    it.registry.close().await;
    let mut it = open(&directory);
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    let Some((pending, News::Pending { generation, age })) = it.news.try_recv() else {
        panic!("pending")
    };
    assert!(pending == token("a") && age < Duration::from_secs(60));
    assert_eq!(it.registry.tokens(&alice()), [token("a")]);
    assert_eq!(*it.registry.credentials(&alice()).unwrap(), credentials("one"));
    it.registry.announced(&token("a"), generation).await.unwrap();
    it.registry.close().await;
    assert_eq!(open(&directory).news.try_recv(), None);
}

#[tokio::test]
async fn news_that_an_outage_made_old_is_tried_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.registry.noticed(&alice(), "INBOX", POSITION, true).await.unwrap();
    it.registry.close().await;
    let file = rusqlite::Connection::open(directory.path().join("state/state.sqlite")).unwrap();
    file.execute("UPDATE tokens SET pending_since = pending_since - 86400", []).unwrap();
    drop(file);
    let mut it = open(&directory);
    let Some((_, News::Pending { age, .. })) = it.news.try_recv() else { panic!("pending") };
    assert!(
        age > Duration::from_secs(4 * 3600) && age < crate::push::schedule::PATIENCE,
        "{age:?}"
    );
}

#[tokio::test]
async fn changed_password_is_taken_over_from_a_login() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    it.registry.login_succeeded(&alice(), &credentials("one")).await.unwrap();
    assert!(!it.registry.is_known(&alice()), "nothing is kept of an account without a token");
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    it.registry.login_succeeded(&alice(), &credentials("one")).await.unwrap();
    assert_eq!(it.events.try_recv(), None);
    it.registry.login_succeeded(&alice(), &credentials("two")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::CredentialsChanged)));
    it.registry.close().await;
    assert_eq!(*open(&directory).registry.credentials(&alice()).unwrap(), credentials("two"));
}

#[tokio::test]
async fn after_a_refused_login_the_same_password_starts_the_watch_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.events.try_recv();
    it.registry.get(&alice()).unwrap().login_refused();
    it.registry.login_succeeded(&alice(), &credentials("one")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::CredentialsChanged)));
    it.registry.login_succeeded(&alice(), &credentials("one")).await.unwrap();
    assert_eq!(it.events.try_recv(), None);
}

#[tokio::test]
async fn only_the_last_word_waits_for_a_busy_supervisor() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.registry.login_succeeded(&alice(), &credentials("two")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    it.registry.commit(change::remove_account(&alice())).await.unwrap();
    it.registry.register(&alice(), &credentials("two"), &token("a")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    assert_eq!(it.events.try_recv(), None);
}

/// A session that is dropped while it registers leaves memory and disk in step.
#[tokio::test]
async fn caller_that_goes_away_leaves_nothing_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    let (account, credentials, token) = (alice(), credentials("one"), token("a"));
    assert!(it.registry.register(&account, &credentials, &token).now_or_never().is_none());
    assert_eq!(it.events.recv().await, (alice(), AccountEvent::Watch));
    assert_eq!(it.registry.tokens(&alice()), [token]);
    it.registry.close().await;
    assert_eq!(open(&directory).registry.len(), 1);
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Ninety days in which deltapush runs, in several runs, with long outages between that do not count.
#[tokio::test(start_paused = true)]
async fn tokens_expire_after_ninety_days_of_running() {
    let directory = tempfile::tempdir().unwrap();
    let it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    tokio::time::advance(DAY * 50).await;
    assert_eq!(it.registry.expire(MAX_AGE).await.unwrap(), 0);
    it.registry.close().await;
    tokio::time::advance(DAY * 1000).await;
    let it = open(&directory);
    assert_eq!(it.registry.expire(MAX_AGE).await.unwrap(), 0, "an outage deletes nothing");
    tokio::time::advance(DAY * 39).await;
    assert_eq!(it.registry.expire(MAX_AGE).await.unwrap(), 0);
    tokio::time::advance(DAY * 2).await;
    assert_eq!(it.registry.expire(MAX_AGE).await.unwrap(), 1);
    assert!(!it.registry.is_known(&alice()));
}

#[tokio::test(start_paused = true)]
async fn token_handed_over_again_lives_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.registry.register(&alice(), &credentials("one"), &token("b")).await.unwrap();
    it.registry.close().await;
    // The wall clock stands still here: what was written an hour ago is written again only if the clock says so. In this
    // one it was set back by a year since.
    let file = rusqlite::Connection::open(directory.path().join("state/state.sqlite")).unwrap();
    file.execute("UPDATE tokens SET last_seen = last_seen + 31536000", []).unwrap();
    drop(file);
    it = open(&directory);
    tokio::time::advance(DAY * 80).await;
    it.registry.register(&alice(), &credentials("one"), &token("b")).await.unwrap();
    tokio::time::advance(DAY * 20).await;
    assert_eq!(it.registry.expire(MAX_AGE).await.unwrap(), 1);
    assert_eq!(it.registry.tokens(&alice()), [token("b")]);
    assert_eq!(
        it.registry.snapshot().await.unwrap()[0].tokens[0].last_seen.age(UnixTime::now()).as_secs()
            / 60,
        0
    );
}

/// The task itself, over a hundred days; it ends when it is told to.
#[tokio::test(start_paused = true)]
async fn upkeep_notes_the_time_and_expires() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    assert_eq!(it.events.recv().await, (alice(), AccountEvent::Watch));
    let stop = tokio_util::sync::CancellationToken::new();
    let begun = Instant::now();
    let task = tokio::spawn(upkeep(it.registry.clone(), stop.clone()));
    assert_eq!(it.news.recv().await, (token("a"), News::Gone));
    let lived = begun.elapsed();
    assert!(lived > MAX_AGE && lived < MAX_AGE + DAY, "{lived:?}");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn mailboxes_that_clients_idle_in_are_watched() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    assert!(
        !it.registry.must_note_idle(&alice(), "DeltaChat"),
        "nothing is kept of an account without a token"
    );
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.events.try_recv();
    assert_eq!(it.registry.get(&alice()).unwrap().mailboxes(), ["INBOX"]);

    assert!(it.registry.must_note_idle(&alice(), "Inbox"));
    it.registry.client_idles(&alice(), "Inbox").await.unwrap();
    assert!(!it.registry.must_note_idle(&alice(), "INBOX"), "in any case it is one");
    assert_eq!(it.events.try_recv(), None, "it was watched already");

    tokio::time::advance(Duration::from_secs(1)).await;
    it.registry.client_idles(&alice(), "DeltaChat").await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::MailboxesChanged)));
    assert_eq!(it.registry.get(&alice()).unwrap().mailboxes(), ["DeltaChat", "INBOX"]);
    assert!(it.registry.must_note_idle(&alice(), "deltachat"), "only INBOX has no case");
    assert!(!it.registry.must_note_idle(&alice(), &"x".repeat(2000)));

    tokio::time::advance(RECENTLY).await;
    assert!(it.registry.must_note_idle(&alice(), "INBOX"));
    it.registry.client_idles(&alice(), "INBOX").await.unwrap();
    assert_eq!(it.registry.get(&alice()).unwrap().mailboxes(), ["INBOX", "DeltaChat"]);
    assert_eq!(it.events.try_recv(), None, "another order is no other set");

    it.registry.close().await;
    let mut it = open(&directory);
    assert_eq!(it.registry.get(&alice()).unwrap().mailboxes(), ["INBOX", "DeltaChat"]);
    it.events.try_recv();
    tokio::time::advance(MAX_AGE - RECENTLY).await;
    it.registry.register(&alice(), &credentials("one"), &token("b")).await.unwrap();
    it.registry.client_idles(&alice(), "INBOX").await.unwrap();
    tokio::time::advance(RECENTLY + RECENTLY).await;
    it.registry.expire(MAX_AGE).await.unwrap();
    assert_eq!(it.registry.get(&alice()).unwrap().mailboxes(), ["INBOX"]);
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::MailboxesChanged)));
}

#[tokio::test]
async fn mailbox_does_not_bring_back_a_watch_that_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.events.try_recv();
    it.registry.get(&alice()).unwrap().login_refused();
    it.registry.client_idles(&alice(), "DeltaChat").await.unwrap();
    assert_eq!(it.events.try_recv(), None);
}

#[test]
fn events_for_a_busy_supervisor_are_merged() {
    use AccountEvent::{CredentialsChanged, MailboxesChanged, Watch};
    for (older, newer, merged) in [
        (Watch, CredentialsChanged, Watch),
        (Watch, MailboxesChanged, Watch),
        (CredentialsChanged, MailboxesChanged, MailboxesChanged),
        (MailboxesChanged, CredentialsChanged, MailboxesChanged),
        (MailboxesChanged, MailboxesChanged, MailboxesChanged),
    ] {
        assert_eq!(older.merge(newer), merged, "{older:?}, then {newer:?}");
    }
}

#[tokio::test]
async fn without_credentials_on_disk_devices_are_called_back_and_watched_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let (registry, events, news) =
            Registry::open(&StoreSettings::memory(directory.path().join("state"))).unwrap();
        Opened { registry, events, news }
    };
    let bob = AccountId::new("bob", "imap.example.org:993");
    let it = open();
    for account in [&alice(), &bob] {
        it.registry.register(account, &credentials("one"), &token(&account.user)).await.unwrap();
    }
    assert_eq!(it.registry.waiting(), 0);
    it.registry.close().await;

    let mut it = open();
    assert_eq!((it.registry.waiting(), it.registry.len()), (2, 2));
    assert_eq!(it.events.try_recv(), None, "there is nothing to log in with");
    let mut called: Vec<_> = std::iter::from_fn(|| it.news.try_recv()).collect();
    called.sort_by(|(one, _), (other, _)| one.cmp(other));
    let names: Vec<_> = called.iter().map(|(token, _)| token.clone()).collect();
    assert_eq!(names, [token("alice"), token("bob")]);
    assert!(it.registry.snapshot().await.unwrap().iter().all(|status| !status.has_credentials));

    it.registry.login_succeeded(&alice(), &credentials("one")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::CredentialsChanged)));
    assert_eq!(it.registry.waiting(), 1);
    let snapshot = it.registry.snapshot().await.unwrap();
    assert_eq!([snapshot[0].has_credentials, snapshot[1].has_credentials], [true, false]);
    it.registry.register(&alice(), &credentials("one"), &token("alice")).await.unwrap();
    it.registry.commit(change::remove_account(&bob)).await.unwrap();
    assert_eq!(it.registry.waiting(), 0, "who is gone waits no more");
}

#[tokio::test]
async fn account_without_a_watch_needs_no_login_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let (registry, events, news) =
            Registry::open(&StoreSettings::sealed(directory.path().join("state"))).unwrap();
        Opened { registry, events, news }
    };
    let it = open();
    it.registry.register(&alice(), None, &token("alice")).await.unwrap();
    assert!(!it.registry.get(&alice()).unwrap().is_watched());
    it.registry.close().await;
    let mut it = open();
    assert!(!it.registry.get(&alice()).unwrap().is_watched());
    assert_eq!((it.registry.waiting(), it.news.try_recv()), (0, None), "nobody is called back");
}

#[tokio::test]
async fn snapshot_knows_what_is_in_memory_only() {
    let directory = tempfile::tempdir().unwrap();
    let it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.registry.noticed(&alice(), "inbox", POSITION, true).await.unwrap();
    it.registry.get(&alice()).unwrap().login_refused();
    let [status] = it.registry.snapshot().await.unwrap().try_into().unwrap();
    assert!(status.refused && status.has_credentials && status.tokens[0].pending);
    assert_eq!(status.mailboxes, [(MailboxName::inbox(), POSITION)]);
    assert_eq!(status.tokens[0].fingerprint, token("a").fingerprint());
}

/// The state of the one account in the report: if it can be watched, and the obstacle.
async fn standing(registry: &Registry) -> (bool, Option<Mechanism>) {
    let status = registry.snapshot().await.unwrap().remove(0);
    (status.has_credentials, status.unusable)
}

#[tokio::test]
async fn login_that_leaves_nothing_keeps_the_token_and_starts_no_watch() {
    let directory = tempfile::tempdir().unwrap();
    let exchange = Credentials::exchange(Mechanism::ScramSha256, "alice", "n,,n=alice,r=x");
    let mut it = open(&directory);
    it.registry.register(&alice(), &exchange, &token("a")).await.unwrap();
    assert!(
        it.registry.credentials(&alice()).is_none() && it.registry.tokens(&alice()) == [token("a")]
    );
    assert_eq!(standing(&it.registry).await, (false, Some(Mechanism::ScramSha256)));
    it.registry.close().await;
    drop(it);

    it = open(&directory);
    assert_eq!(it.events.try_recv(), None, "nothing to watch with");
    assert_eq!(it.news.try_recv(), None, "calling the device back would not help");
    assert_eq!(it.registry.waiting(), 0);
    assert_eq!(standing(&it.registry).await, (false, Some(Mechanism::ScramSha256)));
    it.registry.login_succeeded(&alice(), &credentials("one")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::CredentialsChanged)));
    assert_eq!(standing(&it.registry).await, (true, None));
    it.registry.close().await;
}

#[tokio::test]
async fn longest_lasting_credentials_are_kept_until_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    let exchange = Credentials::exchange(Mechanism::ScramSha1, "alice", "n,,n=alice,r=x");
    let bearer = |token: &str| Credentials::bearer("alice", token);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    for weaker in [&exchange, &bearer("t1")] {
        it.registry.login_succeeded(&alice(), weaker).await.unwrap();
        it.registry.register(&alice(), weaker, &token("b")).await.unwrap();
        assert_eq!(*it.registry.credentials(&alice()).unwrap(), credentials("one"));
    }
    assert_eq!(it.events.try_recv(), None);

    it.registry.get(&alice()).unwrap().login_refused();
    it.registry.login_succeeded(&alice(), &bearer("t1")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::CredentialsChanged)));
    it.registry.login_succeeded(&alice(), &bearer("t2")).await.unwrap();
    assert_eq!(*it.registry.credentials(&alice()).unwrap(), bearer("t2"), "the newer token");
    it.registry.get(&alice()).unwrap().login_refused();
    it.registry.login_succeeded(&alice(), &exchange).await.unwrap();
    assert!(it.registry.credentials(&alice()).is_none(), "a refused token is not tried again");
    assert_eq!(standing(&it.registry).await, (false, Some(Mechanism::ScramSha1)));
    it.registry.close().await;
}

#[tokio::test]
async fn device_that_fetches_most_decides_for_its_account() {
    let directory = tempfile::tempdir().unwrap();
    let it = open(&directory);
    let left = || FetchLesson::LeftUnencrypted(["a@x", "b@x", "c@x"].map(str::to_owned).to_vec());
    assert!(!it.registry.fetches_encrypted_only(&alice()), "an account that nobody knows");
    for name in ["a", "b"] {
        it.registry.register(&alice(), &credentials("one"), &token(name)).await.unwrap();
    }
    assert!(it.registry.must_note_lesson(&alice(), &token("a"), &left()));
    it.registry
        .commit(change::learned(&alice(), &token("a"), left(), UnixTime::now()))
        .await
        .unwrap();
    assert!(!it.registry.must_note_lesson(&alice(), &token("a"), &left()), "that is known");
    assert!(!it.registry.fetches_encrypted_only(&alice()), "nothing is known of the other device");
    it.registry
        .commit(change::learned(
            &alice(),
            &token("b"),
            FetchLesson::FetchedUnencrypted,
            UnixTime::now(),
        ))
        .await
        .unwrap();
    assert!(!it.registry.fetches_encrypted_only(&alice()));
    it.registry
        .commit(change::learned(&alice(), &token("b"), left(), UnixTime::now()))
        .await
        .unwrap();
    assert!(it.registry.fetches_encrypted_only(&alice()));
    it.registry.register(&alice(), &credentials("one"), &token("new")).await.unwrap();
    assert!(!it.registry.fetches_encrypted_only(&alice()), "a new device may fetch all");
    it.registry.commit(change::remove_token(&alice(), &token("new"))).await.unwrap();
    it.registry.close().await;
    drop(it);
    assert!(open(&directory).registry.fetches_encrypted_only(&alice()), "it survives a restart");
}
