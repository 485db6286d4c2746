//! The status report as text.

use std::time::Duration;

use tokio::time::Instant;

use super::watch_report::notes;
use super::*;
use crate::admin::layout::Layout;
use crate::admin::table::{self, FEW};
use crate::credentials::Mechanism;
use crate::push::watch_status::{Watch, WatchState};
use crate::store::{FetchHabit, Position, QuarantineRecord, UnixTime};

#[tokio::test]
async fn limits_of_a_watch_are_named() {
    let watch = Watch::default();
    watch.begin(Duration::ZERO);
    assert_eq!(watch.left_out("DeltaChat", "no such mailbox"), None);
    watch.is_uw_imapd(true);
    // It lasts until the mailbox can be opened, also in another watch.
    watch.begin(Duration::ZERO);
    watch.is_uw_imapd(true);
    let named = notes(&watch.status().unwrap());
    assert!(
        named[0].starts_with(
            "mailbox \"DeltaChat\" is not watched: it cannot be opened (no such mailbox)"
        ),
        "{named:?}"
    );
    assert!(named[1].starts_with("the mail server seems to be UW imapd"), "{named:?}");
    let in_memory = InMemory { watch: watch.status(), ..InMemory::default() };
    let report = describe(&status(), &in_memory, Messages::All, DisplayClock::now());
    assert_eq!(report.watch.notes, named);
    watch.no_longer_left_out("DeltaChat");
    assert_eq!(notes(&watch.status().unwrap()), named[1..]);
}

fn status() -> AccountStatus {
    AccountStatus {
        account: AccountId::new("alice@example.org", "imap.example.org:993"),
        tokens: vec![TokenStatus {
            fingerprint: "1a2b3c4d".into(),
            first_seen: UnixTime(0),
            last_seen: UnixTime(86_400),
            pending: true,
            accepted: Some(UnixTime(90_000)),
            given_up: None,
            quarantine: None,
            habit: FetchHabit::default(),
        }],
        mailboxes: vec![("INBOX".into(), Position { uid_validity: 1, uid_next: 42 })],
        has_credentials: true,
        unusable: None,
        refused: false,
    }
}

fn rendered(accounts: &[AccountStatus], watch: &Watch, layout: Layout) -> String {
    let clock = DisplayClock::now();
    let in_memory = InMemory { watch: watch.status(), ..InMemory::default() };
    let describe = |status| describe(status, &in_memory, Messages::Auto, clock);
    let report = report(accounts.iter().map(describe).collect(), clock);
    // The report is the same after the control socket.
    let report: StatusReport =
        serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    table::status(&report, layout)
}

fn report(accounts: Vec<AccountReport>, clock: DisplayClock) -> StatusReport {
    StatusReport {
        version: "1".into(),
        at: clock.wall(),
        started: clock.wall(),
        connections: 0,
        limited: vec![],
        certificates: vec![],
        counts: count(&accounts),
        refused_accounts: 0,
        notifications: Notifications::default(),
        accounts,
        tokenless: vec![],
        erased: vec![erased_report(&Erased {
            account: AccountId::new("erin", "imap.example.org:993"),
            at: UnixTime(0),
            reason: "of a reason".into(),
        })],

        cluster: None,
        unreadable: None,
        is_cut: false,
    }
}

#[tokio::test(start_paused = true)]
async fn account_is_described_with_its_proof_of_life() {
    let watch = Watch::default();
    let status = status();
    watch.begin(Duration::from_secs(600));
    watch.note_activity();
    watch.set(WatchState::Watching);
    tokio::time::advance(Duration::from_secs(75)).await;
    let since = format::moment(DisplayClock::now().time_of(watch.status().unwrap().since));
    let text = rendered(&[status], &watch, Layout::default());
    let (_, account) = text.split_once("\n\n").unwrap();
    assert_eq!(
        account,
        format!(
            "alice@example.org at imap.example.org:993\n  \
             watch    watching since {since}\n  \
             alive    last sign of life 1m 15s ago; a dead connection is detected within 10m\n  \
             mailbox  INBOX checked below UID 42\n  \
             pushes   all messages: deltapush does not know yet which ones its apps fetch\n  \
             device   1a2b3c4d since 1970-01-01, last seen 1970-01-02; a push is pending; \
             last push accepted 1970-01-02 01:00:00 UTC\n"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn problems_are_shown_with_their_remedy() {
    let mut status = status();
    let watch = Watch::default();
    watch.begin(Duration::from_secs(600));
    let says = |status: &AccountStatus, wanted: &str| {
        let text = rendered(std::slice::from_ref(status), &watch, Layout::default());
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    };
    let next = Instant::now() + Duration::from_secs(120);
    watch.set(WatchState::Interrupted { reason: "it hung up\x1b[2J".into(), next });
    says(&status, "  watch    interrupted: it hung up\\u{1b}[2J; next attempt in 2m\n");
    watch.set(WatchState::AwaitingLogin { reason: "wrong password".into(), cure: "log in" });
    says(&status, "  watch    ended: wrong password; log in\n");
    // With kept sessions, the client's login method does not matter.
    watch.set(WatchState::AwaitingDevice { reason: "it hung up".into() });
    says(
        &status,
        "  watch    waiting for a device: it hung up; deltapush wakes its devices; or open the app\n",
    );
    watch.set(WatchState::WithClient);
    says(
        &status,
        "  watch    the client's own session reports new mail, and deltapush wakes the other devices\n",
    );
    watch.set(WatchState::Connecting);
    status.unusable = Some(Mechanism::ScramSha256);
    says(&status, "cannot be watched: its client logs in with SCRAM-SHA-256, which");
    status.unusable = None;
    status.has_credentials = false;
    says(&status, "waits for its phone to log in: the password is not known; open the app");
    status.has_credentials = true;
    watch.set(WatchState::Watching);
    status.tokens[0].quarantine = Some(QuarantineRecord {
        answers: 2,
        since: UnixTime(90_000),
        until: UnixTime(4_000_000_000),
    });
    says(&status, "in quarantine since 1970-01-02");
    says(&status, "1 device in quarantine");
    says(&status, "(410, 2 times), tried again with new mail after 2096-");
    says(&status, "erin at imap.example.org:993: of a reason");
    status.tokens[0].quarantine = None;
    status.tokens[0].given_up = Some((UnixTime(90_000), "not accepted within five hours".into()));
    says(
        &status,
        "  problem  deltapush gave up the last push of device 1a2b3c4d: not accepted within five hours; ",
    );
}

#[tokio::test(start_paused = true)]
async fn accounts_of_a_server_that_cannot_be_used_are_one_line() {
    let watch = Watch::default();
    watch.begin(Duration::from_secs(600));
    let next = Instant::now() + Duration::from_secs(120);
    watch.set(WatchState::Interrupted { reason: "its certificate is not trusted".into(), next });
    let accounts: Vec<AccountStatus> = (0..150)
        .map(|number| AccountStatus {
            account: AccountId::new(&format!("user-{number:04}"), "mail.example.org:993"),
            ..status()
        })
        .collect();
    let text = rendered(&accounts, &watch, Layout::default());
    assert_eq!(text.matches("its certificate is not trusted").count(), 1, "{text}");
    assert!(text.contains("150 accounts wait"), "{text}");
    assert!(
        rendered(&[], &watch, Layout::default())
            .contains("no device has handed over its push token")
    );
}

#[tokio::test(start_paused = true)]
async fn certificate_that_ends_is_a_line_of_its_own() {
    let clock = DisplayClock::now();
    let certificates = vec!["a.pem: the certificate expires at T and was not renewed yet".into()];
    let text =
        table::status(&StatusReport { certificates, ..report(vec![], clock) }, Layout::default());
    assert!(text.contains("\na.pem: the certificate expires at T"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn accounts_without_a_token_are_named_with_the_reason() {
    let clock = DisplayClock::now();
    let tokenless = |number: usize| TokenlessReport {
        name: format!("user-{number}\x1b[2J"),
        server: "imap.example.org:993".into(),
        clients: number,
        last_login: clock.wall(),
    };
    let with = |number| {
        let tokenless = (0..number).map(tokenless).collect();
        table::status(&StatusReport { tokenless, ..report(vec![], clock) }, Layout::default())
    };
    assert!(with(0).contains("no device has handed over its push token yet"));
    let one = with(1);
    assert!(
        one.contains(
            "no push comes for 1 account whose apps handed over no push token: Delta Chat Desktop, Delta Chat from F-Droid and \
             other mail programs have none\n  user-0\\u{1b}[2J at imap.example.org:993: 0 clients connected, last login just now\n"
        ),
        "{one}"
    );
    let many = with(FEW + 2);
    assert!(many.contains("user-4") && !many.contains("user-5"), "{many}");
    assert!(many.contains("  and 2 accounts more (--json lists all)\n"), "{many}");
}

#[tokio::test(start_paused = true)]
async fn many_accounts_are_a_table_as_wide_as_the_terminal_with_what_is_wrong_first() {
    let watch = Watch::default();
    let mut accounts: Vec<AccountStatus> = (0..1000)
        .map(|number| AccountStatus {
            account: AccountId::new(
                &format!("user-{number:04}@example.org"),
                "imap.example.org:993",
            ),
            ..status()
        })
        .collect();
    watch.begin(Duration::from_secs(600));
    watch.note_activity();
    watch.set(WatchState::Watching);
    accounts[500].has_credentials = false;
    for width in [40, 80, 200] {
        let text = rendered(&accounts, &watch, Layout { width: Some(width), ..Layout::default() });
        let (_, tables) = text.split_once("\n\n").unwrap();
        let too_wide = text.lines().find(|line| line.chars().count() > usize::from(width));
        assert_eq!(too_wide, None, "{width}");
        assert!(
            tables.contains("user-0500@example.org") && tables.contains("watching"),
            "{tables}"
        );
    }
    let text = rendered(&accounts, &watch, Layout::default());
    assert!(text.lines().count() < 1020, "a line for each account");
    let first = |words: &str| text.find(words).unwrap();
    assert!(first("user-0500@example.org") < first("user-0000@example.org"), "{text}");
    assert!(text.contains("999 watched, 1 waiting"), "{text}");
    let long = rendered(&accounts, &watch, Layout { long: true, ..Layout::default() });
    assert_eq!(long.matches("\n  device   1a2b3c4d").count(), 1000);
}
