//! The operator's commands for a running deltapush: status, timeline, forget, rewatch, push-test; and what the phone's
//! owner sees.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::Client;
use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Setup, message};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::scene::{DovecotScene, PATIENCE};
use super::support::scripted::Scripted;

const TOKEN: &str = "openpgp:phone";

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A command that ends after the test's own servers have answered something.
async fn beside(deltapush: &Deltapush, arguments: &[&str]) -> Output {
    let child = deltapush.asking(arguments);
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

/// Asks again until the answer is as wanted.
async fn asked(
    deltapush: &Deltapush,
    arguments: &[&str],
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let mut last = Value::Null;
    let seen = poll(PATIENCE, || {
        last = json_of(&deltapush.asked(arguments));
        wanted(&last)
    });
    assert!(seen.await, "{arguments:?}: {last:#}");
    last
}

/// Connects as a phone does that was woken: logs in, hands over its token, fetches what is new.
async fn comes_back(scene: &DovecotScene) -> Client {
    let mut client = scene.client().await;
    client.command(&format!("c2 SETMETADATA \"INBOX\" (/private/devicetoken \"{TOKEN}\")")).await;
    client.command("c3 SELECT INBOX").await;
    client.command("c4 UID FETCH 1:* (FLAGS)").await;
    client
}

#[tokio::test]
async fn push_is_in_the_status_with_its_answer_and_delay() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "status-push").await;
    scene.register(TOKEN).await;
    scene.deliver_news().await;
    scene.expect_pushes(&[TOKEN]).await;
    let is_there = |report: &Value| !report["accounts"][0]["devices"][0]["accepted"].is_null();
    let report = asked(&scene.deltapush, &["status", "--json"], is_there).await;
    let account = &report["accounts"][0];
    assert_eq!(
        (&account["name"], &account["watch"]["state"]),
        (&json!(scene.user), &json!("watching"))
    );
    assert_eq!(
        (&account["last_push"]["accepted"], &account["last_push"]["answer"]),
        (&json!(true), &json!("accepted"))
    );
    assert!(account["last_push"]["delay_milliseconds"].is_u64(), "{account:#}");
    assert_eq!(account["last_push"]["token"], account["devices"][0]["token"]);
    for time in
        [&account["last_message"], &account["watch"]["last_activity"], &account["watch"]["since"]]
    {
        assert!(
            time.as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')),
            "{account:#}"
        );
    }
    let counts = json!({
        "accounts": 1, "watched": 1, "told": 0, "problems": 0, "waiting": 0, "unusable": 0, "devices": 1, "pending": 0,
        "quarantined": 0
    });
    assert_eq!(report["counts"], counts);
    assert!(!report.to_string().contains("openpgp:"), "{report}");

    let text = scene.deltapush.status();
    for wanted in [
        "watch    watching since 20",
        "message  last new mail ",
        " after the new mail: accepted",
        "last push accepted",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    let narrowed = |name| {
        json_of(&scene.deltapush.asked(&["status", "--json", name]))["accounts"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((narrowed("STATUS-push"), narrowed("nobody")), (1, 0));
}

#[tokio::test]
async fn timeline_tells_why_a_message_was_late() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "timeline").await;
    scene.register(TOKEN).await;
    let vacation =
        message("bob@elsewhere.test", &scene.user, "away", "Auto-Submitted: auto-replied\r\n");
    scene.dovecot.deliver("bob@elsewhere.test", &scene.user, &vacation).await;
    let user = scene.user.clone();
    let arguments = ["account", user.as_str(), "--json"];
    let judged =
        |history: &Value| history["happened"].to_string().contains("no push: sent automatically");
    asked(&scene.deltapush, &arguments, judged).await;
    scene.deliver_news().await;
    scene.expect_pushes(&[TOKEN]).await;
    let answered = |history: &Value| history["happened"].to_string().contains("\"answer\"");
    let history = asked(&scene.deltapush, &arguments, answered).await;
    assert!(
        history["explanation"].to_string().contains("it has not connected since"),
        "{history:#}"
    );
    let _client = comes_back(&scene).await;

    let history = asked(&scene.deltapush, &arguments, |history| {
        history["happened"].to_string().contains("\"fetched\"")
    })
    .await;
    let happened = history["happened"].as_array().unwrap();
    let chain: Vec<(&str, bool)> = happened
        .iter()
        .map(|link| (link["kind"].as_str().unwrap(), link["after_milliseconds"].is_u64()))
        .filter(|(kind, _)| *kind != "watch")
        .collect();
    // Events of the same millisecond may stand in either order: a POST may end before its notice is on disk.
    let count = |kind: &str| chain.iter().filter(|link| link.0 == kind).count();
    let counts = ["connected", "news", "judged", "noticed", "post", "answer", "fetched"].map(count);
    assert_eq!(counts, [2, 2, 2, 2, 1, 1, 1], "{history:#}");
    let news: Vec<&str> =
        chain.iter().map(|link| link.0).filter(|kind| ["news", "judged"].contains(kind)).collect();
    assert_eq!(news, ["news", "judged", "news", "judged"], "{history:#}");
    let end = ["post", "answer", "connected", "fetched"].map(|kind| (kind, true));
    assert!(chain.iter().filter(|link| end.contains(*link)).eq(&end), "{history:#}");
    assert!(history["explanation"].to_string().contains("after the new mail"), "{history:#}");
    assert!(!history.to_string().contains("openpgp:"), "{history}");

    let text = said(&scene.deltapush.asked(&["account", &scene.user]));
    for wanted in ["Events since deltapush started (", "to be pushed", "DELAYS"] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    let unknown = scene.deltapush.asked(&["account", "timelin"]);
    assert_eq!(unknown.status.code(), Some(69));
    assert!(
        said(&unknown).contains("similar names: timeline@lab.test; `deltapush status` lists"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn client_without_a_token_is_in_the_status_and_the_log() {
    let scene = DovecotScene::new(Setup::Vanilla, "tokenless").await;
    let client = scene.client().await;
    let line = format!("  {} at localhost:{}: ", scene.user, scene.dovecot.imaps);
    let shows = |words: &str| scene.deltapush.status().contains(&format!("{line}{words}"));
    assert!(shows("1 client connected"), "{}", scene.deltapush.status());
    let unknown = scene.deltapush.asked(&["account", &scene.user]);
    assert!(said(&unknown).contains("has no device: a client logged in"), "{unknown:?}");
    drop(client);
    assert!(poll(PATIENCE, || shows("0 clients connected")).await, "{}", scene.deltapush.status());
    let logged = || scene.deltapush.log().matches("no push token was handed over").count();
    assert!(poll(PATIENCE, || logged() == 1).await, "{}", scene.deltapush.log());

    scene.register(TOKEN).await;
    let status = scene.deltapush.status();
    assert!(!status.contains("no push token"), "{status}");
    assert_eq!(logged(), 1);
}

#[tokio::test]
async fn account_is_forgotten_when_that_is_meant() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "forget").await;
    scene.register(TOKEN).await;
    let not_meant = scene.deltapush.asked(&["account", &scene.user, "forget"]);
    assert!(
        not_meant.status.code() == Some(75) && said(&not_meant).contains("confirm with --yes"),
        "{not_meant:?}"
    );
    assert_eq!(scene.dovecot.watches(&scene.user).len(), 1);

    let meant = scene.deltapush.asked(&["account", &scene.user, "forget", "--yes"]);
    assert!(meant.status.success() && said(&meant).contains("is erased: 1 token,"), "{meant:?}");
    asked(&scene.deltapush, &["status", "--json"], |report| report["counts"]["accounts"] == 0)
        .await;
    assert!(
        !scene.deltapush.asked(&["account", &scene.user]).status.success(),
        "its history has gone as well"
    );
    let ended =
        poll(PATIENCE, || scene.deltapush.log().contains("the account has no device any more"))
            .await;
    assert!(ended, "it is watched still");
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 0).await, "its session goes on");
    scene.deliver_news().await;
    scene.deltapush.terminate();
    assert!(scene.notify.posted().is_empty());
    let database =
        rusqlite::Connection::open(scene.deltapush.dir().join("state/state.sqlite")).unwrap();
    for table in ["accounts", "tokens", "mailboxes"] {
        let rows: i64 = database
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

const LOGIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
";

const REFUSED: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> NO [AUTHENTICATIONFAILED] the password has changed
    CLOSE
";

const WATCH: &str = r#"
    C: w1 EXAMINE "INBOX"
    S: * 4 EXISTS
    S: * OK [UIDVALIDITY 7] ok
    S: * OK [UIDNEXT 10] ok
    S: w1 OK [READ-ONLY] done
    C: w2 IDLE
    S: + idling
    EOF
"#;

#[tokio::test]
async fn watch_that_a_refused_password_has_ended_begins_anew() {
    let well = format!("{LOGIN}{WATCH}");
    let upstream = Scripted::start(&[&format!("{LOGIN}EOF"), REFUSED, REFUSED, &well]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    client.command("c1 LOGIN alice@lab.test sesame").await;
    client.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:x\")").await;
    let ended = |report: &Value| report["accounts"][0]["watch"]["state"] == "ended";
    let report = asked(&deltapush, &["status", "--json"], ended).await;
    let problem = &report["accounts"][0]["problem"];
    assert!(problem["words"].as_str().unwrap().contains("the password has changed"), "{problem}");
    assert!(problem["cure"].as_str().unwrap().contains("log in with the app"), "{problem}");

    let again = beside(&deltapush, &["account", "alice@lab.test", "rewatch"]).await;
    assert_eq!(again.status.code(), Some(75), "{again:?}");
    assert!(
        said(&again).contains("restarts") && said(&again).contains("the watch ended again"),
        "{again:?}"
    );
    let at_last = beside(&deltapush, &["account", "alice@lab.test", "rewatch"]).await;
    assert!(at_last.status.success() && said(&at_last).contains("it is watched"), "{at_last:?}");
    drop(client);
}

#[tokio::test]
async fn test_push_waits_for_its_device() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "push-test", |options| options.coalesce = "1h").await;
    scene.register(TOKEN).await;
    scene.deliver_news().await;
    scene.expect_pushes(&[TOKEN]).await;
    // A window of an hour has begun, and a test is not held back by it.
    let nobody = beside(&scene.deltapush, &["push-test", &scene.user, "--wait", "1s"]).await;
    assert_eq!(nobody.status.code(), Some(75), "{nobody:?}");
    assert!(
        said(&nobody).contains("POST, accepted (") && said(&nobody).contains("has not connected"),
        "{nobody:?}"
    );
    scene.expect_pushes(&[TOKEN; 2]).await;

    let testing = scene.deltapush.asking(&["push-test", &scene.user, "--wait", "1m"]);
    scene.expect_pushes(&[TOKEN; 3]).await;
    let _client = comes_back(&scene).await;
    let tested =
        tokio::task::spawn_blocking(move || testing.wait_with_output().unwrap()).await.unwrap();
    assert!(tested.status.success(), "{tested:?}");
    assert!(
        said(&tested).contains(" connected ") && said(&tested).contains(" after the push was made"),
        "{tested:?}"
    );

    // It is connected still, and that is said.
    let tested = beside(&scene.deltapush, &["push-test", &scene.user, "--wait", "1s"]).await;
    assert!(said(&tested).contains("is connected now, so"), "{tested:?}");
    scene.expect_pushes(&[TOKEN; 4]).await;
    let wrong = scene.deltapush.asked(&["push-test", &scene.user, "--device", "zz"]);
    assert!(said(&wrong).contains("push-test@lab.test has no device zz; it has "), "{wrong:?}");
    let report = json_of(&scene.deltapush.asked(&["account", &scene.user, "--json"]));
    assert!(report["happened"].to_string().contains("a test push of device"), "{report:#}");
    assert_eq!(report["account"]["devices"][0]["online"], true);
}

#[tokio::test]
async fn comment_tells_the_phones_owner_how_push_is() {
    let scene = DovecotScene::new(Setup::Vanilla, "comment").await;
    let asked = "GETMETADATA \"\" (/shared/comment /shared/admin /shared/vendor/deltachat/maxsmtprecipients)";
    let first = scene.client().await.command(&format!("c2 {asked}")).await.text();
    assert!(
        first.contains("push is ready and begins when this app has handed over its push token"),
        "{first}"
    );
    scene.register(TOKEN).await;
    let is_watching = |report: &Value| report["counts"]["watched"] == 1;
    self::asked(&scene.deltapush, &["status", "--json"], is_watching).await;
    let later = scene.client().await.command(&format!("c2 {asked}")).await.text();
    assert!(later.contains("push active, watching since 20"), "{later}");

    scene.deltapush.reconfigure(|text| format!("{text}\nmetadata:\n  push_status: false\n"));
    let mut last = String::new();
    for _ in 0..100 {
        last = scene.client().await.command(&format!("c2 {asked}")).await.text();
        if last.contains("/shared/comment NIL") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not as configured: {last}");
}

#[tokio::test]
async fn core_shows_how_push_is_in_its_account_information() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let notify = NotifyServer::start().await;
    let deltapush =
        Deltapush::start(&Options { notify_url: notify.url.clone(), ..Options::dovecot(dovecot) });
    let submission = Submission::start(dovecot).await;
    let user = dovecot.user("core-comment");
    // The app asks when it starts, before it hands over its token, and keeps what it has heard.
    let mut phone = Core::start(Version::WithToken).await;
    let account = phone.add_account(&user, deltapush.imaps, submission.port).await;
    phone.call("start_io_for_all_accounts", json!([])).await;
    shows(
        &mut phone,
        account,
        "push is ready and begins when this app has handed over its push token",
    )
    .await;
    asked(&deltapush, &["status", "--json"], |report| report["counts"]["watched"] == 1).await;
    let mut second = Core::start(Version::Current).await;
    let account = second.add_account(&user, deltapush.imaps, submission.port).await;
    second.call("start_io_for_all_accounts", json!([])).await;
    shows(&mut second, account, "push active, watching since 20").await;
}

/// The account's information has these words.
async fn shows(core: &mut Core, account: u64, words: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let info = core.call("get_info", json!([account])).await;
        if info["imap_server_comment"].as_str().is_some_and(|comment| comment.contains(words)) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "no {words:?} in {info:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
