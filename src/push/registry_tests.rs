//! The registry over a real store.

use super::*;
use futures_util::FutureExt;
use tempfile::TempDir;

struct Opened {
    registry: Registry,
    events: AccountEvents,
    news: TokenNews,
}

fn open(directory: &TempDir) -> Opened {
    let settings = Settings { directory: directory.path().join("state"), key_file: None };
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
    let (first, News::Pending { generation, age }) = it.news.try_recv().unwrap() else { panic!("pending") };
    assert_eq!((first, age), (token("a"), Duration::ZERO));
    assert_eq!(it.news.try_recv(), Some((token("b"), News::Pending { generation, age })));
    assert_eq!(it.registry.positions(&alice()).await.unwrap(), [("INBOX".to_owned(), POSITION)]);

    it.registry.remove(&alice(), &token("a")).await.unwrap();
    assert_eq!(it.events.try_recv(), None);
    it.registry.forget(&token("b")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Unwatch)));
    assert_eq!(it.news.try_recv(), Some((token("a"), News::Gone)));
    assert!(!it.registry.is_known(&alice()) && it.registry.is_empty());
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    it.registry.noticed(&alice(), "INBOX", POSITION, true).await.unwrap();
    it.registry.close().await;
    let mut it = open(&directory);
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    let Some((pending, News::Pending { generation, age })) = it.news.try_recv() else { panic!("pending") };
    assert!(pending == token("a") && age < Duration::from_secs(60));
    assert_eq!(it.registry.tokens(&alice()), [token("a")]);
    assert_eq!(*it.registry.credentials(&alice()).unwrap(), credentials("one"));
    it.registry.announced(&token("a"), generation).await.unwrap();
    it.registry.close().await;
    assert_eq!(open(&directory).news.try_recv(), None);
}

#[tokio::test]
async fn a_changed_password_is_taken_over_from_a_login() {
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
    it.registry.login_refused(&alice());
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
    it.registry.remove_all(&alice()).await.unwrap();
    it.registry.register(&alice(), &credentials("two"), &token("a")).await.unwrap();
    assert_eq!(it.events.try_recv(), Some((alice(), AccountEvent::Watch)));
    assert_eq!(it.events.try_recv(), None);
}

/// A session that is dropped while it registers leaves memory and disk in step.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let mut it = open(&directory);
    let (account, credentials, token) = (alice(), credentials("one"), token("a"));
    assert!(it.registry.register(&account, &credentials, &token).now_or_never().is_none());
    assert_eq!(it.events.recv().await, (alice(), AccountEvent::Watch));
    assert_eq!(it.registry.tokens(&alice()), [token]);
    it.registry.close().await;
    assert_eq!(open(&directory).registry.len(), 1);
}

#[tokio::test]
async fn tokens_seen_lately_do_not_expire() {
    let directory = tempfile::tempdir().unwrap();
    let it = open(&directory);
    it.registry.register(&alice(), &credentials("one"), &token("a")).await.unwrap();
    assert_eq!(it.registry.expire(Duration::from_secs(60)).await.unwrap(), 0);
    assert!(it.registry.is_known(&alice()));
}
