//! News, from its name to the mark of the account's tokens.

use tempfile::TempDir;

use super::*;
use crate::account::AccountId;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::push::registry::{News, Registry, TokenNews};
use crate::push::watcher::WatchSettings;
use crate::reloadable::Reloadable;
use crate::secret::DeviceToken;
use crate::store::{Noticed, Position, StoreSettings};
use crate::trace::Tracer;
use crate::upstream::Upstreams;

/// Accounts that the mail server tells of.
struct Scene {
    receiver: NewsReceiver,
    registry: Registry,
    pending: TokenNews,
    _directory: TempDir,
}

const ROUTES: &str = r#"
listeners: [{address: "127.0.0.1:0", tls: implicit}]
routes:
  - {domain: example.org, upstream: imaps://mail.example.org, news: server}
  - {domain: example.net, upstream: imaps://mail.example.net, news: both, login: local}
  - {domain: example.com, upstream: imaps://mail.example.com}
  - {domain: example.edu, upstream: imaps://mail.example.edu, news: server, login: local}
accounts:
  alice@example.org: {addresses: [al@elsewhere.example]}
push: {messages: all}
"#;

/// An account whose route takes no news, and its server.
const IDLE: (&str, &str) = ("carol@example.com", "example.com");

impl Scene {
    async fn new(accounts: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::parse(ROUTES, directory.path(), "config.yaml").unwrap();
        let settings = StoreSettings::memory(directory.path().join("state"));
        let (registry, _events, pending) = Registry::open(&settings).unwrap();
        let watchers = Watchers::new(
            &config.startup,
            registry.clone(),
            Reloadable::new(Upstreams::new(&config.live).unwrap()),
            Reloadable::new(WatchSettings::new(&config.startup, &config.live)),
            Tracer::default(),
        );
        let receiver = NewsReceiver::new(&watchers);
        for (user, server) in accounts {
            let account = AccountId::new(user, &format!("mail.{server}:993"));
            registry.register(&account, &Credentials::new(*user, "x"), &token(user)).await.unwrap();
        }
        Self { receiver, registry, pending, _directory: directory }
    }

    async fn tell(&self, news: ServerNews) -> Result<NewsOutcome, NewsError> {
        self.receiver.receive(news, &NewsScope::All).await
    }

    /// The devices that are woken since the last time.
    fn woken(&mut self) -> Vec<DeviceToken> {
        let woken = std::iter::from_fn(|| self.pending.try_recv());
        woken
            .filter(|(_, news)| matches!(news, News::Pending { .. }))
            .map(|(token, _)| token)
            .collect()
    }
}

fn token(user: &str) -> DeviceToken {
    DeviceToken::new(format!("openpgp:{user}").as_bytes()).unwrap()
}

fn news(name: &str) -> ServerNews {
    ServerNews { name: name.into(), ..ServerNews::default() }
}

fn message(name: &str, uid: u64) -> ServerNews {
    ServerNews { uid: Some(uid), uid_validity: Some(7), ..news(name) }
}

#[tokio::test]
async fn account_is_known_by_its_login_its_user_and_its_addresses() {
    let mut scene = Scene::new(&[
        ("alice@example.org", "example.org"),
        ("bob", "example.net"),
        ("carol@example.com", "example.com"),
        ("dave@example.org", "example.org"),
        ("dave", "example.net"),
    ])
    .await;
    for (name, device) in [
        ("alice@example.org", "alice@example.org"),
        ("ALICE@Example.org", "alice@example.org"),
        ("alice", "alice@example.org"),
        ("al@elsewhere.example", "alice@example.org"),
        ("bob", "bob"),
        ("Bob@example.net", "bob"),
        ("dave@example.org", "dave@example.org"),
        ("dave@example.net", "dave"),
        ("dave", "dave"),
    ] {
        assert_eq!(scene.tell(news(name)).await.unwrap(), NewsOutcome::Announced, "{name}");
        assert_eq!(scene.woken(), [token(device)], "{name}");
    }
    for name in
        ["eve@example.org", "alice@example.net", "bob@example.org", "al", "@", "@example.org"]
    {
        assert_eq!(scene.tell(news(name)).await.unwrap(), NewsOutcome::NoDevice, "{name}");
    }
    assert!(matches!(scene.tell(news("carol@example.com")).await, Err(NewsError::NotConfigured)));
    assert!(scene.woken().is_empty());
}

#[tokio::test]
async fn local_part_of_several_accounts_is_ambiguous() {
    let scene =
        Scene::new(&[("ann@example.org", "example.org"), ("Ann@example.org", "example.org")]).await;
    assert!(matches!(scene.tell(news("ann")).await, Err(NewsError::Ambiguous)));
}

#[tokio::test]
async fn user_of_the_same_name_at_another_mail_server_keeps_its_position() {
    let scene = Scene::new(&[("bob", "example.net"), ("bob", "example.edu")]).await;
    for (name, uid) in
        [("bob@example.net", 50), ("bob@example.edu", 7), ("bob", 60), ("bob@example.edu", 8)]
    {
        let outcome = scene.tell(message(name, uid)).await.unwrap();
        assert_eq!(outcome, NewsOutcome::Announced, "{name} {uid}");
    }
}

#[tokio::test]
async fn sender_tells_only_of_accounts_in_its_scope() {
    let mut scene =
        Scene::new(&[("alice@example.org", "example.org"), ("bob", "example.net"), IDLE]).await;
    let scope = NewsScope::Logins(vec!["example.net".parse().unwrap()]);
    let tell = |name: &str| scene.receiver.receive(news(name), &scope);
    assert!(matches!(tell("alice@example.org").await, Err(NewsError::OutOfScope)));
    assert!(matches!(tell(IDLE.0).await, Err(NewsError::OutOfScope)), "its route stays unknown");
    assert!(matches!(tell("nobody@example.org").await, Err(NewsError::OutOfScope)));
    assert_eq!(tell("alice").await.unwrap(), NewsOutcome::NoDevice, "nor that it exists");
    assert_eq!(tell("nobody@example.net").await.unwrap(), NewsOutcome::NoDevice);
    assert_eq!(tell("bob").await.unwrap(), NewsOutcome::Announced);
    assert_eq!(scene.woken(), [token("bob")]);
}

#[tokio::test]
async fn message_is_told_apart_by_uid_or_message_id() {
    let mut scene = Scene::new(&[("alice@example.org", "example.org")]).await;
    let name = "alice@example.org";
    for (uid, outcome) in [
        (5, NewsOutcome::Announced),
        (5, NewsOutcome::Known),
        (4, NewsOutcome::Known),
        (6, NewsOutcome::Announced),
    ] {
        assert_eq!(scene.tell(message(name, uid)).await.unwrap(), outcome, "{uid}");
    }
    assert_eq!(scene.woken().len(), 1, "merged, because nobody has taken the first");
    let with_id = |id: &str| {
        let headers = NewsHeaders::All(format!("From: b@c\r\nMessage-ID: <{id}>\r\n\r\n").into());
        ServerNews { headers, ..news(name) }
    };
    assert_eq!(scene.tell(with_id("1@x")).await.unwrap(), NewsOutcome::Announced);
    assert_eq!(scene.tell(with_id("1@x")).await.unwrap(), NewsOutcome::Known);
    assert_eq!(scene.tell(with_id("2@x")).await.unwrap(), NewsOutcome::Announced);
    let id_alone = ServerNews { message_id: "<2@x>".into(), ..news(name) };
    assert_eq!(scene.tell(id_alone).await.unwrap(), NewsOutcome::Known);
}

#[tokio::test]
async fn push_filter_judges_by_what_the_server_sends() {
    let mut scene = Scene::new(&[("alice@example.org", "example.org")]).await;
    let with = |headers| ServerNews { headers, ..news("alice@example.org") };
    let own = NewsOutcome::Skipped("sent by the account itself");
    for (headers, outcome) in [
        (NewsHeaders::From("Alice@example.org".into()), own),
        (NewsHeaders::From("al@elsewhere.example".into()), own),
        (NewsHeaders::From("bob@example.org".into()), NewsOutcome::Announced),
        (
            NewsHeaders::All(b"Auto-Submitted: auto-replied\r\n\r\n".to_vec()),
            NewsOutcome::Skipped("sent automatically"),
        ),
        (NewsHeaders::All(b"".to_vec()), NewsOutcome::Announced),
    ] {
        assert_eq!(scene.tell(with(headers)).await.unwrap(), outcome);
    }
    let seen = ServerNews { flags: vec!["\\Seen".into()], ..news("alice@example.org") };
    assert_eq!(scene.tell(seen).await.unwrap(), NewsOutcome::Skipped("already seen"));
    assert_eq!(scene.woken().len(), 1);
}

#[tokio::test]
async fn mail_of_other_mailboxes_wakes_nobody() {
    let mut scene = Scene::new(&[("alice@example.org", "example.org")]).await;
    let account = AccountId::new("alice@example.org", "mail.example.org:993");
    let in_mailbox =
        |mailbox: &str| ServerNews { mailbox: mailbox.into(), ..news("alice@example.org") };
    for (mailbox, outcome) in [
        ("Junk", NewsOutcome::OtherMailbox),
        ("inbox", NewsOutcome::Announced),
        ("Entwürfe", NewsOutcome::OtherMailbox),
    ] {
        assert_eq!(scene.tell(in_mailbox(mailbox)).await.unwrap(), outcome, "{mailbox}");
    }
    scene.registry.client_idles(&account, "Entw&APw-rfe").await.unwrap();
    assert_eq!(scene.tell(in_mailbox("Entwürfe")).await.unwrap(), NewsOutcome::Announced);
    assert_eq!(scene.tell(in_mailbox("INBOX")).await.unwrap(), NewsOutcome::Announced);
    assert!(!scene.woken().is_empty());
}

#[tokio::test]
async fn nonsense_and_floods_are_refused() {
    let scene = Scene::new(&[("alice@example.org", "example.org")]).await;
    let name = "alice@example.org";
    for nonsense in [
        news(""),
        news(&"x".repeat(2000)),
        ServerNews { mailbox: "x".repeat(2000), ..news(name) },
        ServerNews { uid: Some(0), ..news(name) },
        ServerNews { uid: Some(u64::MAX), ..news(name) },
        ServerNews { uid_validity: Some(0), ..news(name) },
    ] {
        assert!(matches!(scene.tell(nonsense).await, Err(NewsError::Invalid(_))));
    }
    let mut refused = 0;
    for uid in 1..=150 {
        match scene.tell(message(name, uid)).await {
            Ok(outcome) => assert_eq!(outcome, NewsOutcome::Announced),
            Err(NewsError::TooMany) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn client_shows_messages_that_the_server_left_out() {
    let mut scene = Scene::new(&[("alice@example.org", "example.org")]).await;
    let id = AccountId::new("alice@example.org", "mail.example.org:993");
    let (one, two) = (token("alice@example.org"), token("second"));
    scene.registry.register(&id, None, &two).await.unwrap();
    scene.registry.set_watched(&id, false).await.unwrap();
    let open = |uid_next| OpenedMailbox {
        mailbox: MailboxName::inbox(),
        position: Position { uid_validity: 7, uid_next },
    };
    scene.receiver.opened(&id, Some(&one), open(10)).await;
    assert!(scene.woken().is_empty(), "the first look: everything is old");
    assert_eq!(scene.tell(message("alice@example.org", 10)).await.unwrap(), NewsOutcome::Announced);
    assert_eq!(scene.woken().len(), 2);
    scene.receiver.opened(&id, Some(&one), open(11)).await;
    assert!(scene.woken().is_empty(), "nothing was left out");
    scene.receiver.opened(&id, Some(&one), open(13)).await;
    assert_eq!(scene.woken(), std::slice::from_ref(&two), "the client's own device fetches now");
    let status = scene.registry.get(&id).unwrap().news_status();
    assert_eq!((status.missed, status.is_silent()), (2, true));
    assert_eq!(scene.tell(message("alice@example.org", 12)).await.unwrap(), NewsOutcome::Known);
    // Without a UID the position lags behind, and that is no surprise.
    assert_eq!(scene.tell(news("alice@example.org")).await.unwrap(), NewsOutcome::Announced);
    scene.woken();
    scene.receiver.opened(&id, None, open(14)).await;
    assert!(scene.woken().is_empty());
    scene.receiver.opened(&id, None, open(15)).await;
    assert_eq!(scene.woken().len(), 2, "no device is known");
    let noticed = scene.registry.noticed(
        &id,
        "INBOX",
        Position { uid_validity: 7, uid_next: 15 },
        Announce::Nothing,
    );
    assert_eq!(noticed.await.unwrap(), Noticed::New);
}
