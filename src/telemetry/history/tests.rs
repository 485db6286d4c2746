//! What is kept of what happens, in which order, and how much of it.

use std::time::Duration;

use super::*;
use crate::telemetry::{Pause, PostResult};

fn account(name: &str) -> AccountId {
    AccountId::new(name, "imap.example.org:993")
}

fn token(name: &str) -> DeviceToken {
    DeviceToken::new(name.as_bytes()).unwrap()
}

/// What happens to one account with one device.
struct Scene {
    history: History,
    account: AccountId,
    token: DeviceToken,
}

impl Scene {
    fn new() -> Self {
        let scene =
            Self { history: History::default(), account: account("alice"), token: token("phone") };
        scene.watch(WatchEvent::Connecting);
        scene
    }

    fn registers(&self, session: u64) {
        let (account, token) = (&self.account, &self.token);
        self.history.note(&TelemetryEvent::Login {
            session,
            account: Some(account),
            result: LoginResult::Accepted,
        });
        self.history.note(&TelemetryEvent::Registered { session, account, token });
    }

    fn notices(&self, since: Option<Instant>) {
        let account = &self.account;
        self.history.note(&TelemetryEvent::Judged {
            account,
            mailbox: "INBOX",
            uid: 1,
            skipped: None,
        });
        let since = since.map(Instant::into_std);
        self.history.note(&TelemetryEvent::Noticed {
            account,
            mailbox: "INBOX",
            announce: true,
            since,
        });
    }

    fn posts(&self, result: PostResult, took: Duration) {
        let accounts = std::slice::from_ref(&self.account);
        self.history.note(&TelemetryEvent::Posted { accounts, token: &self.token, result, took });
    }

    fn watch(&self, state: WatchEvent<'_>) {
        self.history.note(&TelemetryEvent::Watch { account: &self.account, state });
    }

    fn entries(&self) -> Vec<What> {
        let timeline = self.history.timeline(&self.account).unwrap();
        // The first one says that the watch begins.
        timeline.entries.into_iter().skip(1).map(|entry| entry.what).collect()
    }

    fn delay(&self) -> Option<u64> {
        self.history.summary(&self.account).last_push.unwrap().delay
    }
}

async fn pass(milliseconds: u64) {
    tokio::time::advance(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn delay_of_a_push_is_counted_from_the_oldest_news_that_it_tells() {
    let scene = Scene::new();
    let heard = Instant::now();
    pass(40).await;
    scene.notices(Some(heard));
    pass(100).await;
    scene.posts(PostResult::Failed(503), Duration::from_millis(60));
    assert_eq!(scene.delay(), Some(140));
    pass(8000).await;
    // News that comes while the POST is under way is told by the next one.
    scene.notices(Some(Instant::now()));
    pass(50).await;
    scene.posts(PostResult::Accepted, Duration::from_millis(60));
    assert_eq!(scene.delay(), Some(8190));
    pass(10_000).await;
    scene.posts(PostResult::Accepted, Duration::from_millis(10));
    assert_eq!(scene.delay(), Some(10_050));
    pass(1000).await;
    scene.posts(PostResult::Accepted, Duration::from_millis(10));
    assert_eq!(scene.delay(), None, "nobody had news");
}

#[tokio::test(start_paused = true)]
async fn device_is_told_by_its_connection() {
    let scene = Scene::new();
    scene.registers(1);
    pass(1000).await;
    scene.registers(2);
    let device = Some(scene.token.short_hash());
    assert_eq!(
        scene.entries(),
        [
            What::Connected { session: 1, device, first: true, skipped: 0, background: false },
            What::Connected { session: 2, device, first: false, skipped: 0, background: false },
        ]
    );
    let summary = scene.history.summary(&scene.account);
    let [connection] = summary.connected.as_slice() else { panic!("{summary:?}") };
    assert_eq!((connection.session, connection.at.since_start, connection.online), (2, 1000, true));
    scene.history.note(&TelemetryEvent::LoggedOut { session: 1, account: &scene.account });
    assert!(
        scene.history.summary(&scene.account).connected[0].online,
        "the older connection has ended"
    );
    scene.history.note(&TelemetryEvent::LoggedOut { session: 2, account: &scene.account });
    assert!(!scene.history.summary(&scene.account).connected[0].online);
}

#[tokio::test(start_paused = true)]
async fn repeated_entries_evict_nothing() {
    let scene = Scene::new();
    scene.registers(1);
    scene.notices(None);
    for session in 2..1000 {
        scene.registers(session);
        scene.watch(WatchEvent::Connecting);
        // The server is away, and the phone comes again and again.
    }
    (0..1000).for_each(|_| {
        scene.watch(WatchEvent::Interrupted { reason: "away", next: Duration::ZERO })
    });
    for _ in 0..1000 {
        scene.watch(WatchEvent::Connecting);
        scene.watch(WatchEvent::Interrupted { reason: "still away", next: Duration::ZERO });
    }
    let entries = scene.entries();
    let is_outage = |what: &What| matches!(what, What::Watch { times: 2000, words, .. } if **words == *"still away");
    assert_eq!(entries.iter().filter(|what| is_outage(what)).count(), 1, "{entries:?}");

    let scene = Scene::new();
    scene.notices(None);
    (1..1000).for_each(|session| scene.registers(session));
    let entries = scene.entries();
    assert!(matches!(entries[1], What::Noticed { .. }) && entries.len() == 4, "{entries:?}");
    assert!(
        matches!(entries[3], What::Connected { session: 999, skipped: 997, .. }),
        "{entries:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn entries_words_names_and_accounts_are_bounded() {
    let scene = Scene::new();
    for number in 0..1000_u32 {
        let long = format!("{number} {}", "ü".repeat(500));
        let account = &scene.account;
        scene.history.note(&TelemetryEvent::Judged {
            account,
            mailbox: &long,
            uid: number.into(),
            skipped: Some("junk"),
        });
        scene.watch(WatchEvent::AwaitingLogin { reason: &long, cure: "" });
        let (accounts, token) = (std::slice::from_ref(account), token(&format!("t{number}")));
        scene.history.note(&TelemetryEvent::GaveUp { accounts, token: &token, reason: &long });
        scene.history.note(&TelemetryEvent::Registered {
            session: number.into(),
            account,
            token: &token,
        });
        let next = Duration::from_secs(8);
        scene.history.note(&TelemetryEvent::Waits {
            accounts,
            token: &token,
            pause: Pause::Failed,
            next,
        });
    }
    let ring = scene.history.accounts.get(&scene.account).unwrap();
    assert!(
        ring.full && ring.entries.len() <= MAX_ENTRIES && ring.entries.capacity() <= MAX_ENTRIES
    );
    let words: usize = ring
        .entries
        .iter()
        .map(|entry| match &entry.what {
            What::Watch { words, .. } | What::GaveUp { words, .. } => words.len(),
            _ => 0,
        })
        .sum();
    assert!(words <= 2048 + 160, "{words}");
    assert!(ring.mailboxes.len() == 8 && ring.mailboxes.iter().all(|name| name.len() <= 160));
    assert_eq!(ring.connected.len(), crate::store::MAX_TOKENS);
    drop(ring);
    for number in 0..MAX_ACCOUNTS + 10 {
        scene.history.note(&TelemetryEvent::Watch {
            account: &account(&number.to_string()),
            state: WatchEvent::Connecting,
        });
    }
    assert_eq!(scene.history.accounts.len(), MAX_ACCOUNTS);
}

#[tokio::test(start_paused = true)]
async fn account_without_a_device_has_no_history() {
    let scene = Scene::new();
    let account = &scene.account;
    scene.history.note(&TelemetryEvent::Forgotten { account });
    scene.watch(WatchEvent::Watching);
    scene.history.note(&TelemetryEvent::Login {
        session: 1,
        account: Some(account),
        result: LoginResult::Accepted,
    });
    scene.history.note(&TelemetryEvent::Fetched { session: 1, account, token: None });
    assert_eq!(scene.history.timeline(account), None);
    scene.registers(2);
    assert!(scene.history.timeline(account).is_some());
    scene.history.note(&TelemetryEvent::Forgotten { account });
    assert_eq!(scene.history.timeline(account), None);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_notified() {
    let scene = Scene::new();
    let changed = scene.history.changed();
    tokio::pin!(changed);
    changed.as_mut().enable();
    scene.registers(1);
    changed.await;
    scene.history.note(&TelemetryEvent::Outage { down: true });
    assert!(scene.history.down_since().is_some());
    scene.history.note(&TelemetryEvent::Outage { down: false });
    assert_eq!(scene.history.down_since(), None);
}
