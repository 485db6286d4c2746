//! Contents, order and bounds of the history.

use std::time::Duration;

use super::*;
use crate::telemetry::{Pause, PostResult};

fn token(name: &str) -> DeviceToken {
    DeviceToken::new(name.as_bytes()).unwrap()
}

/// Events of one account with one device.
struct HistoryScene {
    history: History,
    account: AccountTelemetry,
    token: DeviceToken,
}

impl HistoryScene {
    fn new() -> Self {
        let scene = Self {
            history: History::default(),
            account: AccountTelemetry::default(),
            token: token("phone"),
        };
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
        self.history.note(&TelemetryEvent::Registered { session, account: Some(account), token });
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
        let accounts = &[&self.account];
        self.history.note(&TelemetryEvent::Posted { accounts, token: &self.token, result, took });
    }

    fn watch(&self, state: WatchEvent<'_>) {
        self.history.note(&TelemetryEvent::Watch { account: &self.account, state });
    }

    fn entries(&self) -> Vec<What> {
        let timeline = self.account.timeline().unwrap();
        // The first one says that the watch begins.
        timeline.entries.into_iter().skip(1).map(|entry| entry.what).collect()
    }

    fn delay(&self) -> Option<u64> {
        self.account.summary().last_push.unwrap().delay
    }
}

async fn pass(milliseconds: u64) {
    tokio::time::advance(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn delay_of_a_push_is_counted_from_the_oldest_news_that_it_tells() {
    let scene = HistoryScene::new();
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
    let scene = HistoryScene::new();
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
    let summary = scene.account.summary();
    let [connection] = summary.connected.as_slice() else { panic!("{summary:?}") };
    assert_eq!((connection.session, connection.at.since_start, connection.online), (2, 1000, true));
    scene.history.note(&TelemetryEvent::LoggedOut { session: 1, account: Some(&scene.account) });
    assert!(scene.account.summary().connected[0].online, "the older connection has ended");
    scene.history.note(&TelemetryEvent::LoggedOut { session: 2, account: Some(&scene.account) });
    assert!(!scene.account.summary().connected[0].online);
}

#[tokio::test(start_paused = true)]
async fn repeated_entries_evict_nothing() {
    let scene = HistoryScene::new();
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

    let scene = HistoryScene::new();
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
    let scene = HistoryScene::new();
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
        let (accounts, token) = (&[account], token(&format!("t{number}")));
        scene.history.note(&TelemetryEvent::GaveUp { accounts, token: &token, reason: &long });
        scene.history.note(&TelemetryEvent::Registered {
            session: number.into(),
            account: Some(account),
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
    let notes = scene.account.lock();
    let ring = &notes.history.as_ref().unwrap().ring;
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
    drop(notes);
    let accounts: Vec<_> = (0..MAX_ACCOUNTS).map(|_| AccountTelemetry::default()).collect();
    let begins = |account: &AccountTelemetry| {
        scene.history.note(&TelemetryEvent::Watch { account, state: WatchEvent::Connecting });
        account.timeline().is_some()
    };
    let (last, others) = accounts.split_last().unwrap();
    assert!(others.iter().all(begins) && !begins(last));
    drop(scene.account);
    assert!(begins(last), "another account is gone");
}

#[tokio::test(start_paused = true)]
async fn account_whose_watch_never_began_has_no_history() {
    let (scene, account) = (HistoryScene::new(), AccountTelemetry::default());
    let watching = WatchEvent::Watching;
    scene.history.note(&TelemetryEvent::Watch { account: &account, state: watching });
    scene.history.note(&TelemetryEvent::Login {
        session: 1,
        account: Some(&account),
        result: LoginResult::Accepted,
    });
    scene.history.note(&TelemetryEvent::Fetched { session: 1, account: &account, token: None });
    assert_eq!(account.timeline(), None);
    scene.history.note(&TelemetryEvent::Registered {
        session: 2,
        account: Some(&account),
        token: &scene.token,
    });
    assert!(account.timeline().is_some());
}

#[tokio::test(start_paused = true)]
async fn waiters_are_notified() {
    let scene = HistoryScene::new();
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
