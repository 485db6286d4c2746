//! Reports for a terminal, as snapshots: a change of their words or their layout is seen in review.

use std::time::Duration;

use insta::assert_snapshot;
use jiff::Timestamp;

use super::cluster_report::{
    ClusterReport, DatabaseReport, EndedNodeReport, NodeReport, NodeState, SuccessorReport,
};
use super::layout::Layout;
use super::report::{
    AccountCounts, AccountProblem, AccountReport, DeviceReport, ErasedReport, GivenUpReport,
    LimitedServer, MailboxReport, NewsReport, Notifications, PushReport, QuarantineReport,
    StatusReport, TokenlessReport, WatchKind, WatchReport,
};
use super::table;
use super::timeline::{AccountHistory, Happened, TimelineKind};
use super::watch_report::elsewhere;
use crate::cluster::{AccountOwner, NodeCounts};

/// So long before the report.
fn before(seconds: u64) -> Timestamp {
    let at: Timestamp = "2026-11-28T10:31:45Z".parse().unwrap();
    at - Duration::from_secs(seconds)
}

fn device() -> DeviceReport {
    DeviceReport {
        token: "1a2b3c4d".into(),
        first_seen: before(60 * 86_400),
        last_seen: before(3700),
        connected: Some(before(718)),
        online: false,
        fetches: "encrypted messages only: it did not fetch unencrypted ones of 3 senders".into(),
        pending: false,
        accepted: Some(before(722)),
        given_up: None,
        quarantine: None,
    }
}

fn watched(name: &str) -> AccountReport {
    AccountReport {
        name: name.into(),
        server: "imap.example.org:993".into(),
        watch: WatchReport {
            state: WatchKind::Watching,
            since: Some(before(11_504)),
            last_activity: Some(before(41)),
            max_detection_delay_seconds: Some(600),
            next_step: String::new(),
            next: None,
            notes: vec![],
            lost: None,
            node: None,
        },
        devices: vec![device()],
        messages: "encrypted messages: its apps fetch no others".into(),
        background_fetch: Some(before(718)),
        mailboxes: vec![MailboxReport { name: "INBOX".into(), uid_next: 421 }],
        news: None,
        last_message: Some(before(722)),
        last_push: Some(PushReport {
            at: before(722),
            token: "1a2b3c4d".into(),
            accepted: true,
            answer: "accepted".into(),
            delay_milliseconds: Some(119),
        }),
        problem: None,
    }
}

fn troubled(name: &str, state: WatchKind, words: &str, cure: &str) -> AccountReport {
    let account = watched(name);
    let watch =
        WatchReport { state, next: Some(before(0) + Duration::from_secs(95)), ..account.watch };
    let problem = Some(AccountProblem { words: words.into(), cure: cure.into() });
    AccountReport { watch, problem, ..account }
}

fn report(accounts: Vec<AccountReport>) -> StatusReport {
    let in_state = |state| accounts.iter().filter(|account| account.watch.state == state).count();
    StatusReport {
        version: "0.1.0".into(),
        at: before(0),
        started: before(12 * 86_400 + 14_523),
        connections: 2,
        limited: vec![],
        certificates: vec![],
        counts: AccountCounts {
            elsewhere: 0,
            accounts: accounts.len(),
            watched: in_state(WatchKind::Watching),
            told: in_state(WatchKind::ServerTells),
            problems: accounts.iter().filter(|account| account.problem.is_some()).count(),
            waiting: in_state(WatchKind::WaitingForLogin),
            unusable: in_state(WatchKind::Unusable),
            devices: accounts.iter().map(|account| account.devices.len()).sum(),
            pending: 0,
            quarantined: 0,
        },
        refused_accounts: 0,
        notifications: Notifications::default(),
        accounts,
        tokenless: vec![],
        erased: vec![],
        cluster: None,
        unreadable: None,
        is_cut: false,
    }
}

/// One that is watched.
pub(crate) fn well() -> StatusReport {
    report(vec![watched("alice@example.org")])
}

/// Two that are watched, and one of each kind that is not.
fn mixed() -> StatusReport {
    let server = "its certificate is not trusted (UnknownIssuer)";
    let cure = "set `ca` in the route";
    report(vec![
        troubled("carol@example.org", WatchKind::Interrupted, server, cure),
        troubled("dave@example.org", WatchKind::Interrupted, server, cure),
        troubled(
            "erin@example.org",
            WatchKind::WaitingForLogin,
            "the password is not known",
            "open the app",
        ),
        troubled(
            "frank@example.org",
            WatchKind::Ended,
            "the mail server refused the login",
            "log in with the app, or `deltapush account NAME rewatch`",
        ),
        watched("alice@example.org"),
        watched("bob@example.org"),
    ])
}

fn of_width(width: u16) -> Layout {
    Layout { width: Some(width), ..Layout::default() }
}

#[test]
fn status_without_accounts() {
    assert_snapshot!(table::status(&report(vec![]), of_width(100)));
}

#[test]
fn status_of_one_account() {
    let tokenless = vec![TokenlessReport {
        name: "bob@example.org".into(),
        server: "imap.example.org:993".into(),
        clients: 1,
        last_login: before(125),
    }];
    let report = StatusReport { tokenless, ..report(vec![watched("alice@example.org")]) };
    assert_snapshot!(table::status(&report, of_width(100)));
}

#[test]
fn status_of_accounts_of_which_the_mail_server_tells() {
    let silent = NewsReport { last: Some(before(90_000)), missed: 3, missed_at: Some(before(600)) };
    let told = |name: &str, news: NewsReport| {
        let account = watched(name);
        let watch = WatchReport {
            state: WatchKind::ServerTells,
            since: None,
            last_activity: None,
            max_detection_delay_seconds: None,
            next_step:
                "not needed: the mail server tells of each new message; no password is stored"
                    .into(),
            ..account.watch
        };
        let problem = news.is_silent().then(|| AccountProblem {
            words: NewsReport::SILENT.into(),
            cure: NewsReport::REMEDY.into(),
        });
        AccountReport { watch, problem, news: Some(news), ..account }
    };
    let both = AccountReport { news: Some(silent), ..watched("carol@example.org") };
    let well = NewsReport { last: Some(before(720)), ..NewsReport::default() };
    let accounts = vec![told("bob@example.org", silent), told("alice@example.org", well), both];
    assert_snapshot!(table::status(&report(accounts), of_width(100)));
}

#[test]
fn status_of_several_accounts() {
    assert_snapshot!(table::status(&mixed(), of_width(160)));
}

#[test]
fn status_of_several_accounts_on_a_narrow_terminal() {
    assert_snapshot!(table::status(&mixed(), of_width(60)));
}

#[test]
fn status_of_a_bad_day() {
    let quarantine = QuarantineReport { answers: 2, since: before(90_000), until: before(0) };
    let given_up =
        GivenUpReport { at: before(4000), reason: "not accepted within five hours".into() };
    let devices = vec![
        DeviceReport { quarantine: Some(quarantine), accepted: None, ..device() },
        DeviceReport { given_up: Some(given_up), pending: true, ..device() },
        DeviceReport { online: true, accepted: None, fetches: String::new(), ..device() },
    ];
    let mut accounts = mixed().accounts;
    accounts.truncate(4);
    accounts.push(AccountReport { devices, last_push: None, ..watched("grace@example.org") });
    let report = StatusReport {
        limited: vec![LimitedServer {
            server: "imap.example.org".into(),
            failed: 1000,
            limit: 1000,
            within_seconds: 600,
            until: before(0) + Duration::from_secs(300),
        }],
        refused_accounts: 1,
        notifications: Notifications { down_since: Some(before(1800)) },
        erased: vec![ErasedReport {
            name: "heidi@example.org".into(),
            server: "imap.example.org:993".into(),
            at: before(86_400),
            reason: "its last device was removed after 410".into(),
        }],
        ..report(accounts)
    };
    assert_snapshot!(table::status(&report, of_width(100)));
}

fn node(name: &str, slots: usize) -> NodeReport {
    NodeReport {
        name: name.into(),
        version: "0.1.0".into(),
        started: before(12 * 86_400 + 14_523),
        state: NodeState::Living,
        slots,
        lease_age_milliseconds: 1_260,
        log_lag_microseconds: Some(21_400),
        database_microseconds: Some(3_120),
        database_worst_microseconds: Some(12_900),
        counts: Some(NodeCounts {
            accounts: 34_200,
            watched: 34_180,
            troubled: 15,
            waiting: 5,
            devices: 41_000,
            clients: 1_204,
            ..NodeCounts::default()
        }),
    }
}

fn of_nodes(cluster: ClusterReport, accounts: Vec<AccountReport>) -> StatusReport {
    let counts = cluster.counts();
    let counts = AccountCounts {
        accounts: counts.accounts,
        watched: counts.watched,
        waiting: counts.waiting,
        devices: counts.devices,
        ..AccountCounts::default()
    };
    StatusReport { counts, cluster: Some(cluster), ..report(accounts) }
}

fn three_nodes() -> ClusterReport {
    ClusterReport {
        node: "push-1".into(),
        seen: Some(before(1)),
        nodes: vec![node("push-1", 342), node("push-2", 341), node("push-3", 341)],
        ended: vec![],
        unowned_slots: 0,
        database: None,
        lapsed_since: None,
    }
}

fn at(node: &str, name: &str) -> AccountReport {
    let (watch, problem) = elsewhere(&AccountOwner::Node(node.into()));
    let (last_push, last_message) = (None, None);
    AccountReport {
        watch,
        problem,
        last_push,
        last_message,
        background_fetch: None,
        ..watched(name)
    }
}

#[test]
fn status_of_several_nodes() {
    let accounts = vec![watched("alice@example.org"), at("push-2", "bob@example.org")];
    assert_snapshot!(table::status(&of_nodes(three_nodes(), accounts), of_width(120)));
}

#[test]
fn status_of_a_bad_night_of_nodes() {
    let ended =
        |name: &str, seconds, has_died, successors: &[(Option<&str>, usize)]| EndedNodeReport {
            name: name.into(),
            at: before(seconds),
            has_died,
            successors: successors
                .iter()
                .map(|(name, slots)| SuccessorReport {
                    name: name.map(str::to_owned),
                    slots: *slots,
                })
                .collect(),
        };
    let died =
        ended("push-3", 722, true, &[(Some("push-1"), 170), (Some("push-2"), 165), (None, 6)]);
    let left = ended("push-4", 3700, false, &[]);
    let lapsed = NodeReport {
        state: NodeState::Lapsed,
        lease_age_milliseconds: 9_000,
        version: "0.2.0".into(),
        log_lag_microseconds: None,
        counts: None,
        ..node("push-2", 506)
    };
    let leaving = NodeReport { state: NodeState::Leaving, slots: 0, ..node("push-5", 0) };
    let cluster = ClusterReport {
        nodes: vec![node("push-1", 512), lapsed, leaving],
        ended: vec![died, left],
        unowned_slots: 512,
        database: Some(DatabaseReport {
            since: before(41),
            words: "connection lost: connection reset by peer".into(),
        }),
        lapsed_since: Some(before(32)),
        seen: Some(before(42)),
        ..three_nodes()
    };
    let unreadable = Some("connection lost: connection reset by peer".into());
    let report = StatusReport { unreadable, ..of_nodes(cluster, vec![]) };
    assert_snapshot!(table::status(&report, of_width(100)));
}

#[test]
fn status_of_several_nodes_on_a_narrow_terminal() {
    let nobody = |name: &str| {
        let (watch, problem) = elsewhere(&AccountOwner::Nobody(Some("push-3".into())));
        AccountReport { watch, problem, ..at("push-3", name) }
    };
    let mut accounts: Vec<_> =
        (0..5).map(|n| at("push-2", &format!("user-{n}@example.org"))).collect();
    accounts.insert(0, nobody("alice@example.org"));
    let report = StatusReport { is_cut: true, ..of_nodes(three_nodes(), accounts) };
    assert_snapshot!(table::status(&report, of_width(60)));
}

#[test]
fn history_of_an_account_of_another_node() {
    let mut account = watched("alice@example.org");
    account.watch.node = Some("push-2".into());
    let words = "the mail server announced new mail in INBOX";
    let news = Happened {
        at: before(722),
        kind: TimelineKind::News,
        after_milliseconds: None,
        words: words.into(),
    };
    let history = AccountHistory {
        account,
        at: before(0),
        started: before(12 * 86_400),
        dropped: false,
        down_since: None,
        happened: vec![news],
        explanation: vec![],
    };
    assert_snapshot!(table::account(&history, of_width(100)));
}

#[test]
fn history_of_an_account_of_a_node_that_does_not_answer() {
    let history = AccountHistory {
        account: at("push-2", "alice@example.org"),
        at: before(0),
        started: before(12 * 86_400),
        dropped: false,
        down_since: None,
        happened: vec![],
        explanation: vec![],
    };
    assert_snapshot!(table::account(&history, of_width(100)));
}

#[test]
fn history_of_an_account() {
    let mut at = before(722);
    let mut event = |after: Option<u64>, kind, words: &str| {
        at += Duration::from_millis(after.unwrap_or_default());
        Happened { at, kind, after_milliseconds: after, words: words.into() }
    };
    let happened = vec![
        event(None, TimelineKind::News, "the mail server announced new mail in INBOX"),
        event(Some(1), TimelineKind::Judged, "message with UID 420 in INBOX: to be pushed"),
        event(
            Some(115),
            TimelineKind::Answer,
            "the answer to the POST for device 1a2b3c4d: accepted",
        ),
        event(
            Some(3800),
            TimelineKind::Connected,
            "device 1a2b3c4d connected (session 7), 3.8 s after its push",
        ),
    ];
    let history = AccountHistory {
        account: watched("alice@example.org"),
        at: before(0),
        started: before(14_523),
        dropped: false,
        down_since: None,
        happened,
        explanation: vec!["The new mail was stored 2 ms after the mail server announced it".into()],
    };
    assert_snapshot!("history_of_an_account", table::account(&history, of_width(100)));
    let narrow = table::account(&history, of_width(60));
    assert_snapshot!("history_of_an_account_on_a_narrow_terminal", narrow);
    let empty = AccountHistory { happened: vec![], explanation: vec![], ..history };
    assert_snapshot!("history_without_events", table::account(&empty, of_width(100)));
}
