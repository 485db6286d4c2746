//! Tests of the history of an account, link by link.

use std::time::Duration;

use tokio::time::{Instant, advance};

use super::*;
use crate::admin::latency_report::explain;
use crate::secret::DeviceToken;
use crate::telemetry::{AccountTelemetry, LoginResult, Telemetry, TelemetryEvent, WatchEvent};

/// An account with one device, and its history.
struct TimelineScene {
    telemetry: Telemetry,
    account: AccountTelemetry,
    token: DeviceToken,
}

impl TimelineScene {
    fn new() -> Self {
        let scene = Self {
            telemetry: Telemetry::default(),
            account: AccountTelemetry::default(),
            token: DeviceToken::new(b"openpgp:phone").unwrap(),
        };
        scene.watch(WatchEvent::Connecting);
        scene.watch(WatchEvent::Watching);
        scene
    }

    fn record(&self, event: &TelemetryEvent<'_>) {
        self.telemetry.record(event);
    }

    fn watch(&self, state: WatchEvent<'_>) {
        self.record(&TelemetryEvent::Watch { account: &self.account, state });
    }

    fn notices(&self, uid: u64, since: Option<Instant>) {
        let (account, since) = (&self.account, since.map(Instant::into_std));
        self.record(&TelemetryEvent::Judged { account, mailbox: "INBOX", uid, skipped: None });
        self.record(&TelemetryEvent::Noticed { account, mailbox: "INBOX", announce: true, since });
    }

    fn posts(&self, result: PostResult, took: Duration) {
        let accounts = &[&self.account];
        self.record(&TelemetryEvent::Posted { accounts, token: &self.token, result, took });
    }

    fn comes(&self, session: u64) {
        let (account, token) = (&self.account, &self.token);
        self.record(&TelemetryEvent::Login {
            session,
            account: Some(account),
            result: LoginResult::Accepted,
        });
        self.record(&TelemetryEvent::Registered { session, account: Some(account), token });
    }

    fn fetches(&self, session: u64) {
        self.record(&TelemetryEvent::Fetched {
            session,
            account: &self.account,
            token: Some(&self.token),
        });
    }

    fn comes_in_background(&self, session: u64) {
        let account = &self.account;
        self.record(&TelemetryEvent::Login {
            session,
            account: Some(account),
            result: LoginResult::Accepted,
        });
        self.record(&TelemetryEvent::BackgroundFetch { session, account });
    }

    fn timeline(&self) -> Timeline {
        self.account.timeline().unwrap()
    }

    fn kinds(&self) -> Vec<(TimelineKind, Option<u64>)> {
        events(&self.timeline())
            .into_iter()
            .map(|happened| (happened.kind, happened.after_milliseconds))
            .collect()
    }

    fn explained(&self) -> String {
        self.explained_with(1)
    }

    fn explained_with(&self, devices: usize) -> String {
        explain(&self.timeline(), devices, self.telemetry.history().now()).join(". ")
    }
}

async fn pass(milliseconds: u64) {
    advance(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn news_come_before_the_pause_that_they_lead_to() {
    let scene = TimelineScene::new();
    pass(1000).await;
    let (account, mailbox) = (&scene.account, "INBOX");
    let since = Some(Instant::now().into_std());
    scene.record(&TelemetryEvent::Judged { account, mailbox, uid: 42, skipped: None });
    pass(8).await;
    // The notifier hears of the news before the watch has heard that they are stored.
    scene.record(&TelemetryEvent::Waits {
        accounts: &[account],
        token: &scene.token,
        pause: Pause::Coalescing,
        next: Duration::from_secs(8),
    });
    scene.record(&TelemetryEvent::Noticed { account, mailbox, announce: true, since });
    let kinds: Vec<_> = scene.kinds().into_iter().map(|(kind, _)| kind).skip(2).collect();
    let wanted =
        [TimelineKind::News, TimelineKind::Judged, TimelineKind::Noticed, TimelineKind::Waits];
    assert_eq!(kinds, wanted);
}

#[tokio::test(start_paused = true)]
async fn message_is_told_from_the_news_to_the_fetch() {
    let scene = TimelineScene::new();
    scene.comes(1);
    pass(1000).await;
    let heard = Instant::now();
    pass(5).await;
    scene.notices(42, Some(heard));
    pass(110).await;
    scene.posts(PostResult::Accepted, Duration::from_millis(108));
    pass(3900).await;
    scene.comes(2);
    pass(800).await;
    scene.fetches(2);
    let wanted = [
        (TimelineKind::Watch, None),
        (TimelineKind::Watch, None),
        (TimelineKind::Connected, None),
        (TimelineKind::News, None),
        (TimelineKind::Judged, Some(5)),
        (TimelineKind::Noticed, Some(0)),
        (TimelineKind::Post, Some(2)),
        (TimelineKind::Answer, Some(108)),
        (TimelineKind::Connected, Some(3900)),
        (TimelineKind::Fetched, Some(800)),
    ];
    assert_eq!(scene.kinds(), wanted);
    let words: Vec<String> =
        events(&scene.timeline()).into_iter().map(|happened| happened.words).collect();
    let device = scene.token.fingerprint();
    assert_eq!(words[4], "message with UID 42 in INBOX: to be pushed");
    assert_eq!(words[8], format!("device {device} connected (session 2), 3.9 s after its push"));
    assert_eq!(
        words[9],
        format!("device {device} requested new messages (session 2), 4.8 s after the new mail")
    );
    let explained = scene.explained();
    for part in [
        "was stored 5 ms after the mail server announced it",
        "POST 2 ms after that, accepted within 108 ms",
        "the device connected 3.9 s (the push service's time, and the phone's",
        "it fetched 800 ms after that, 4.8 s after the new mail",
    ] {
        assert!(explained.contains(part), "no {part:?} in {explained}");
    }
}

#[tokio::test(start_paused = true)]
async fn words_of_every_event() {
    let scene = TimelineScene::new();
    let (account, token) = (&scene.account, &scene.token);
    let accounts = &[account];
    let reason = "the mail server closed the connection";
    scene.watch(WatchEvent::Interrupted { reason, next: Duration::from_secs(90) });
    scene.watch(WatchEvent::AwaitingLogin { reason: "the login was refused", cure: "log in" });
    scene.watch(WatchEvent::Ended);
    scene.comes(1);
    scene.record(&TelemetryEvent::LoggedOut { session: 1, account: Some(account) });
    pass(1000).await;
    let heard = Instant::now();
    pass(5).await;
    let (mailbox, skipped) = ("INBOX", Some("already seen"));
    scene.record(&TelemetryEvent::Judged { account, mailbox, uid: 41, skipped });
    scene.notices(42, Some(heard));
    scene.notices(43, None);
    for pause in [Pause::Coalescing, Pause::Failed, Pause::Outage] {
        let next = Duration::from_secs(9);
        scene.record(&TelemetryEvent::Waits { accounts, token, pause, next });
    }
    for result in [
        PostResult::Unreachable,
        PostResult::TimedOut,
        PostResult::Failed(503),
        PostResult::Refused(400),
        PostResult::Gone,
        PostResult::Accepted,
    ] {
        scene.posts(result, Duration::from_millis(50));
        pass(1000).await;
    }
    scene.record(&TelemetryEvent::GaveUp {
        accounts,
        token,
        reason: "not accepted within five hours",
    });
    scene.record(&TelemetryEvent::PushTest { account, token });
    scene.comes_in_background(2);
    scene.fetches(2);
    scene.record(&TelemetryEvent::Login {
        session: 3,
        account: Some(account),
        result: LoginResult::Refused,
    });
    let words = events(&scene.timeline()).into_iter().map(|happened| happened.words);
    let device = token.fingerprint();
    insta::assert_snapshot!(words.collect::<Vec<_>>().join("\n").replace(&device, "DEVICE"));
}

#[tokio::test(start_paused = true)]
async fn cause_of_a_late_message_is_named() {
    // The watch was away.
    let scene = TimelineScene::new();
    scene.watch(WatchEvent::Interrupted { reason: "it hung up", next: Duration::from_secs(1) });
    pass(90_000).await;
    scene.notices(1, None);
    let explained = scene.explained();
    assert!(
        explained.contains(
            "found by catch-up, 1m 30s after the watch had been interrupted (it hung up)"
        ),
        "{explained}"
    );
    assert!(explained.contains("No POST has been made since"), "{explained}");

    // The notification server failed, and the phone does not come.
    scene.posts(PostResult::Failed(503), Duration::from_millis(50));
    assert!(scene.explained().contains("1 POSTs, none accepted"), "{}", scene.explained());
    pass(8000).await;
    scene.posts(PostResult::Accepted, Duration::from_millis(50));
    pass(600_000).await;
    let explained = scene.explained();
    assert!(
        explained
            .contains("POST 7.9 s after that, after attempts that failed, accepted within 50 ms"),
        "{explained}"
    );
    assert!(
        explained
            .contains("it has not connected since, for 10m: the push service has not reached it"),
        "{explained}"
    );

    // It was there all the time.
    let scene = TimelineScene::new();
    scene.comes(1);
    scene.notices(1, Some(Instant::now()));
    scene.posts(PostResult::Accepted, Duration::ZERO);
    pass(300).await;
    scene.fetches(1);
    assert!(
        scene.explained().contains("connected already and fetched 300 ms after the new mail"),
        "{}",
        scene.explained()
    );

    // Coalesced.
    let scene = TimelineScene::new();
    scene.notices(1, Some(Instant::now()));
    let (accounts, next) = (&[&scene.account], Duration::from_secs(9));
    scene.record(&TelemetryEvent::Waits {
        accounts,
        token: &scene.token,
        pause: Pause::Coalescing,
        next,
    });
    assert!(
        scene
            .explained()
            .ends_with("The push waits for the end of the coalescing window (push.coalesce)")
    );
    pass(9000).await;
    scene.posts(PostResult::Accepted, Duration::ZERO);
    assert!(
        scene.explained().contains("POST 9.0 s after that, delayed by the coalescing window"),
        "{}",
        scene.explained()
    );
}

#[tokio::test(start_paused = true)]
async fn message_without_a_push_begins_no_delay_chain() {
    let scene = TimelineScene::new();
    let account = &scene.account;
    scene.record(&TelemetryEvent::Judged {
        account,
        mailbox: "INBOX",
        uid: 7,
        skipped: Some("already seen"),
    });
    let since = Some(Instant::now().into_std());
    scene.record(&TelemetryEvent::Noticed { account, mailbox: "INBOX", announce: false, since });
    let words: Vec<String> =
        events(&scene.timeline()).into_iter().map(|happened| happened.words).collect();
    assert_eq!(words[3], "message with UID 7 in INBOX: no push: already seen");
    assert_eq!(words[4], "INBOX was checked: no device to wake");
    assert_eq!(scene.explained(), "");
    scene.fetches(1);
    assert_eq!(
        scene.kinds().last(),
        Some(&(TimelineKind::Fetched, None)),
        "it fetches what woke nobody"
    );
}

#[tokio::test(start_paused = true)]
async fn background_fetch_is_the_device_that_was_woken() {
    let scene = TimelineScene::new();
    scene.comes(1);
    pass(1000).await;
    scene.notices(42, Some(Instant::now()));
    scene.posts(PostResult::Accepted, Duration::ZERO);
    pass(1000).await;
    scene.comes_in_background(2);
    pass(100).await;
    scene.record(&TelemetryEvent::Fetched { session: 2, account: &scene.account, token: None });
    scene.record(&TelemetryEvent::LoggedOut { session: 2, account: Some(&scene.account) });
    // A mail program that looks every minute does not cover it up.
    for session in 3..9 {
        pass(60_000).await;
        scene.record(&TelemetryEvent::Login {
            session,
            account: Some(&scene.account),
            result: LoginResult::Accepted,
        });
    }
    let words: Vec<String> =
        events(&scene.timeline()).into_iter().map(|happened| happened.words).collect();
    let told = "one of the account's devices connected for a background fetch (session 2), 1.0 s after the push";
    assert!(words.iter().any(|words| words == told), "{words:#?}");
    let explained = scene.explained();
    let wanted = "the device connected for a background fetch 1.0 s later and requested the message 1.1 s after the new mail";
    assert!(explained.contains(wanted), "{explained}");
    assert!(!explained.contains("push service"), "{explained}");
    let explained = scene.explained_with(2);
    assert!(
        explained.contains("one of the account's devices (it is not known which one) connected"),
        "{explained}"
    );
    assert!(!explained.contains("push service"), "{explained}");
}

#[tokio::test(start_paused = true)]
async fn post_that_ends_before_the_message_is_noticed_is_its_own() {
    let scene = TimelineScene::new();
    let account = &scene.account;
    scene.comes(1);
    pass(1000).await;
    let heard = Instant::now();
    scene.record(&TelemetryEvent::Judged { account, mailbox: "INBOX", uid: 7, skipped: None });
    scene.posts(PostResult::Accepted, Duration::ZERO);
    scene.record(&TelemetryEvent::Noticed {
        account,
        mailbox: "INBOX",
        announce: true,
        since: Some(heard.into_std()),
    });
    let explained = scene.explained();
    assert!(explained.contains("accepted within") && !explained.contains("No POST"), "{explained}");
    // The POST of an earlier message that ends now is not this one's.
    pass(60_000).await;
    let heard = Instant::now();
    scene.record(&TelemetryEvent::Judged { account, mailbox: "INBOX", uid: 8, skipped: None });
    scene.posts(PostResult::Accepted, Duration::from_secs(30));
    scene.record(&TelemetryEvent::Noticed {
        account,
        mailbox: "INBOX",
        announce: true,
        since: Some(heard.into_std()),
    });
    let explained = scene.explained();
    assert!(explained.contains("No POST has been made since"), "{explained}");
}
