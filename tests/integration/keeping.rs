//! No password kept: the client's own session goes on watching, with a real Dovecot and real cores.

use std::time::Duration;

use serde_json::json;

use super::mechanisms::sasl;
use super::support::client::{Client, quoted};
use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Dovecot, Setup, message};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::scene::{DovecotScene, PATIENCE, QUIET};

async fn scene(setup: Setup, name: &str) -> DovecotScene {
    scene_with(setup, name, |_| ()).await
}

pub(crate) async fn scene_with(
    setup: Setup,
    name: &str,
    change: impl FnOnce(&mut Options),
) -> DovecotScene {
    DovecotScene::with(setup, name, |options| {
        options.credentials = "none";
        options.trace = true;
        change(options);
    })
    .await
}

/// Registers a token as Delta Chat does.
pub(crate) async fn register(client: &mut Client, token: &str) {
    let reply = client
        .command(&format!("c2 SETMETADATA \"INBOX\" (/private/devicetoken {})", quoted(token)))
        .await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
}

/// Waits in the mailbox, as Delta Chat does.
pub(crate) async fn idle(client: &mut Client) {
    let selected = client.command("c3 SELECT INBOX").await;
    assert!(selected.result.starts_with("OK"), "{selected:?}");
    client.send("c4 IDLE").await;
    client.expect_prefix("+").await;
}

/// A client that has registered a token and waits in INBOX.
pub(crate) async fn waiting(scene: &DovecotScene, token: &str) -> Client {
    let mut client = scene.client().await;
    register(&mut client, token).await;
    idle(&mut client).await;
    client
}

pub(crate) async fn status_says(scene: &DovecotScene, wanted: &str) {
    let said = poll(PATIENCE, || scene.deltapush.status().contains(wanted)).await;
    assert!(said, "no {wanted:?} in the status:\n{}", scene.deltapush.status());
}

#[tokio::test]
async fn clients_own_session_goes_on_watching() {
    let mut scene = scene(Setup::Vanilla, "kept").await;
    let client = waiting(&scene, "openpgp:kept").await;
    drop(client);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    status_says(&scene, "watch    watching").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:kept"]).await;
    scene.dovecot.expect_logins(&scene.user, 1).await;
    assert_eq!(scene.dovecot.who(&scene.user), 1, "one session");
    assert_eq!(scene.dovecot.sessions(&scene.user).len(), 1, "one session over all the time");
    assert!(!scene.dovecot.sessions(&scene.user)[0].contains("LOGOUT"));
}

#[tokio::test]
async fn logout_leaves_the_session_behind() {
    let mut scene = scene(Setup::Vanilla, "kept-logout").await;
    let mut client = scene.client().await;
    register(&mut client, "openpgp:logout").await;
    client.send("c3 NOOP\r\nc4 LOGOUT").await;
    client.until_tagged("c3").await;
    client.expect_prefix("* BYE").await;
    client.expect_prefix("c4 OK").await;
    assert_eq!(client.expect_eof().await, "");
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:logout"]).await;
    scene.dovecot.expect_logins(&scene.user, 1).await;
}

#[tokio::test]
async fn message_is_not_lost_between_the_client_and_the_watch() {
    let mut scene = scene(Setup::WithoutNotify, "kept-gap").await;
    let mut client = waiting(&scene, "openpgp:gap").await;
    // It hears of the message, and goes without having fetched it.
    scene.deliver_news().await;
    client.expect_prefix("* 1 EXISTS").await;
    drop(client);
    scene.expect_pushes(&["openpgp:gap"]).await;
    scene.dovecot.expect_logins(&scene.user, 1).await;
}

#[tokio::test]
async fn sessions_of_accounts_without_a_device_are_not_kept() {
    let scene = scene(Setup::Vanilla, "kept-nothing").await;
    let mut client = scene.client().await;
    client.send("c3 LOGOUT").await;
    client.expect_prefix("* BYE").await;
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 0).await);
    assert!(scene.dovecot.sessions(&scene.user)[0].contains("LOGOUT"), "in good order");
}

#[tokio::test]
async fn half_a_message_is_not_appended_and_the_device_is_called_back() {
    let mut scene = scene_with(Setup::Vanilla, "kept-half", |_| ()).await;
    let mut client = scene.client().await;
    register(&mut client, "openpgp:half").await;
    client.send_raw(b"c3 APPEND INBOX {400+}\r\nFrom: bob@elsewhere.test\r\n\r\nhalf of it").await;
    assert!(poll(PATIENCE, || scene.dovecot.sessions(&scene.user)[0].contains("half of it")).await);
    drop(client);
    status_says(&scene, "waiting for a device: the client disconnected in the middle of a command")
        .await;
    let mut direct = scene.direct().await;
    let status = direct.command("d1 STATUS INBOX (MESSAGES)").await;
    assert!(status.text().contains("MESSAGES 0"), "{status:?}");
    // Not at once: the client may come back by itself.
    scene.notify.wait_for(1, 3 * PATIENCE).await;
    scene.expect_pushes(&["openpgp:half"]).await;
}

#[tokio::test]
async fn newest_session_is_kept_and_the_one_before_logs_out() {
    let mut scene = scene_with(Setup::Vanilla, "kept-newest", |options| {
        options.more = "keep:\n  hand_back: false\n".to_owned();
    })
    .await;
    drop(waiting(&scene, "openpgp:newest").await);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    let client = waiting(&scene, "openpgp:newest").await;
    // The client waits itself now: nobody else needs to.
    assert!(
        poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await,
        "{:#?}",
        scene.dovecot.sessions(&scene.user)
    );
    status_says(&scene, "the client's own session reports").await;
    drop(client);
    scene.dovecot.wait_for_watch(&scene.user, 2).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:newest"]).await;
    scene.dovecot.expect_logins(&scene.user, 2).await;
    assert_eq!(scene.dovecot.who(&scene.user), 1);
}

#[tokio::test]
async fn session_that_ends_calls_the_device_which_comes_back() {
    let mut dovecot = Dovecot::exclusive(Setup::Vanilla);
    let mut notify = NotifyServer::start().await;
    let mut options = Options { notify_url: notify.url.clone(), ..Options::dovecot(&dovecot) };
    options.credentials = "none";
    let deltapush = Deltapush::start(&options);
    let user = dovecot.user("kept-called");
    let log_in = async || {
        let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
        client.log_in(&user).await;
        register(&mut client, "openpgp:called").await;
        idle(&mut client).await;
        client
    };
    drop(log_in().await);
    dovecot.wait_for_watch(&user, 1).await;
    dovecot.stop();
    assert!(
        poll(PATIENCE, || deltapush.status().contains("waiting for a device")).await,
        "{}",
        deltapush.status()
    );
    // Nobody is called to a server that is away.
    notify.stays_at(0, QUIET).await;
    dovecot.start_again();
    let posted = notify.wait_for(1, 3 * PATIENCE).await;
    assert_eq!(posted[0].token, "openpgp:called");
    // Mail meanwhile is not known until the device is there, which itself fetches, and needs no push.
    dovecot.deliver_news(&user, "meanwhile").await;
    drop(log_in().await);
    dovecot.wait_for_watch(&user, 2).await;
    // It went without having looked.
    notify.wait_for(2, PATIENCE).await;
    dovecot.deliver_news(&user, "after").await;
    notify.wait_for(3, PATIENCE).await;
    // Once an hour, and not more often.
    dovecot.stop();
    assert!(
        poll(PATIENCE, || deltapush.status().contains("waiting for a device")).await,
        "{}",
        deltapush.status()
    );
    dovecot.start_again();
    notify.stays_at(3, 2 * QUIET).await;
}

#[tokio::test]
async fn after_a_restart_devices_are_called_back() {
    let mut scene = scene(Setup::Vanilla, "kept-restart").await;
    drop(waiting(&scene, "openpgp:restart").await);
    // News during the restart are told from older mail by the position that was noted before it.
    status_says(&scene, "INBOX checked below UID 1").await;
    scene.deltapush.restart();
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 0).await, "it logs out");
    status_says(&scene, "waiting for a device: deltapush was restarted").await;
    scene.expect_pushes(&["openpgp:restart"]).await;
    // A POST that is not noted as accepted is made again.
    status_says(&scene, "last push accepted").await;
    // Within the hour it is not called again.
    scene.deltapush.kill();
    scene.deltapush.start_again();
    scene.deliver_news().await;
    drop(waiting(&scene, "openpgp:restart").await);
    scene.expect_pushes(&["openpgp:restart"; 2]).await;
    // Nothing but the news was posted since.
    scene.expect_decided("the answer to the POST", 1, 2).await;
}

#[tokio::test]
async fn new_mail_that_one_device_hears_of_wakes_the_others() {
    let mut scene = scene(Setup::WithoutNotify, "kept-others").await;
    let mut here = waiting(&scene, "openpgp:here").await;
    // A second device, which goes: the first one's session watches, so that its own is not needed.
    let mut away = scene.client().await;
    register(&mut away, "openpgp:away").await;
    away.send("c5 LOGOUT").await;
    away.expect_prefix("* BYE").await;
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) >= 1).await);
    drop(away);
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.deliver_news().await;
    here.expect_prefix("* 1 EXISTS").await;
    here.send("DONE").await;
    here.until_tagged("c4").await;
    let items = "(UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED)])";
    let fetched = here.command(&format!("c6 UID FETCH 1:* {items}")).await;
    assert!(fetched.result.starts_with("OK"), "{fetched:?}");
    scene.expect_pushes(&["openpgp:away"]).await;
    scene.expect_decided("the answer to the POST", 1, 1).await;
    // Fetched headers tell which mail wakes nobody.
    let mine = message(&scene.user, &scene.user, "from another device", "");
    scene.dovecot.deliver(&scene.user, &scene.user, &mine).await;
    here.send("c7 IDLE").await;
    here.expect_prefix("+").await;
    here.expect_prefix("* 2 EXISTS").await;
    here.send("DONE").await;
    here.until_tagged("c7").await;
    here.command(&format!("c8 UID FETCH 2:* {items}")).await;
    scene.expect_decided("no device to wake", 1, 1).await;
}

#[tokio::test]
async fn device_that_fetched_before_the_last_of_the_news_is_woken() {
    let mut scene = scene(Setup::WithoutNotify, "kept-early").await;
    let mut here = waiting(&scene, "openpgp:here").await;
    let mut away = scene.client().await;
    register(&mut away, "openpgp:away").await;
    scene.deliver_news().await;
    here.expect_prefix("* 1 EXISTS").await;
    here.expect_prefix("* 1 RECENT").await;
    // The other one fetches the first of two messages, and goes; nobody but this one is there to hear of the second.
    away.command("c3 SELECT INBOX").await;
    let items = "(UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED)])";
    let fetched = away.command(&format!("c4 UID FETCH 1:* {items}")).await;
    assert!(fetched.text().contains("UID 1 "), "{fetched:?}");
    away.send("c5 LOGOUT").await;
    away.expect_prefix("* BYE").await;
    scene.expect_pushes(&["openpgp:here"]).await;
    assert!(
        poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await,
        "its session is not kept"
    );
    scene.deliver_news().await;
    here.expect_prefix("* 2 EXISTS").await;
    here.send("DONE").await;
    here.until_tagged("c4").await;
    here.command(&format!("c6 UID FETCH 1:* {items}")).await;
    scene.expect_pushes(&["openpgp:here", "openpgp:away"]).await;
}

#[tokio::test]
async fn without_waiting_for_a_fetch_others_are_woken_at_once() {
    let mut scene = scene_with(Setup::WithoutNotify, "kept-at-once", |options| {
        options.more = "keep:\n  wait_for_fetch: 0s\n".to_owned();
    })
    .await;
    let mut away = scene.client().await;
    register(&mut away, "openpgp:away").await;
    drop(away);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    let mut here = waiting(&scene, "openpgp:here").await;
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await);
    scene.deliver_news().await;
    here.expect_prefix("* 1 EXISTS").await;
    scene.expect_pushes(&["openpgp:away"]).await;
}

#[tokio::test]
async fn real_core_logs_in_and_goes_and_is_woken_and_called_back() {
    let mut dovecot = Dovecot::exclusive(Setup::Vanilla);
    let mut notify = NotifyServer::start().await;
    let mut options = Options { notify_url: notify.url.clone(), ..Options::dovecot(&dovecot) };
    options.credentials = "none";
    let deltapush = Deltapush::start(&options);
    let submission = Submission::start(&dovecot).await;
    let user = dovecot.user("kept-core");
    let mut core = Core::start(Version::WithToken).await;
    core.add_account(&user, deltapush.imaps, submission.port).await;
    core.call("start_io_for_all_accounts", json!([])).await;
    // It waits in INBOX itself.
    let waits =
        poll(PATIENCE, || deltapush.status().contains("the client's own session reports")).await;
    assert!(waits, "{}\n{:#?}", deltapush.status(), dovecot.sessions(&user));
    core.kill().await;
    let watching = poll(PATIENCE, || deltapush.status().contains("watch    watching")).await;
    assert!(watching, "{}", deltapush.status());
    let logins =
        |dovecot: &Dovecot| dovecot.log().matches(&format!("Login: user=<{user}>")).count();
    let before = logins(&dovecot);
    assert!(poll(PATIENCE, || dovecot.who(&user) == 1).await, "one session");
    for number in 1..=3 {
        dovecot.deliver_news(&user, "are you there?").await;
        let posted = notify.wait_for(number, PATIENCE).await;
        assert!(posted[number - 1].token.starts_with("openpgp:"), "not a core's token: {posted:?}");
        // Not within the pause that one push causes for the next.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!((logins(&dovecot), dovecot.who(&user)), (before, 1), "no new login, one session");
    dovecot.stop();
    dovecot.start_again();
    notify.wait_for(4, 3 * PATIENCE).await;
    notify.stays_at(4, QUIET).await;
    // The phone is woken, and the app comes back.
    let mut core = Core::start(Version::WithToken).await;
    core.add_account(&user, deltapush.imaps, submission.port).await;
    core.call("start_io_for_all_accounts", json!([])).await;
    assert!(
        poll(PATIENCE, || deltapush.status().contains("the client's own session reports")).await,
        "{}",
        deltapush.status()
    );
    core.kill().await;
    assert!(
        poll(PATIENCE, || deltapush.status().contains("watch    watching")).await,
        "{}",
        deltapush.status()
    );
    let posted = notify.posted().len();
    dovecot.deliver_news(&user, "and now?").await;
    notify.wait_for(posted + 1, PATIENCE).await;
}

#[tokio::test]
async fn accounts_whose_clients_use_scram_or_a_token_are_watched() {
    let mut scene = scene_with(Setup::Mechanisms, "kept-scram", |options| {
        options.more = "login:\n  scram: true\n".to_owned();
    })
    .await;
    // Python's imaplib selects INBOX, hands over a token, and logs out.
    for (count, mechanism) in ["SCRAM-SHA-256", "XOAUTH2"].into_iter().enumerate() {
        let secret = if mechanism == "XOAUTH2" { dovecot::TOKEN_KEY } else { dovecot::PASSWORD };
        let told = sasl(&scene.deltapush, &scene.user, mechanism, "initial", secret).await;
        assert_eq!(told["token"], "OK", "{told}");
        scene.dovecot.wait_for_watch(&scene.user, count + 1).await;
        assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await);
        if count == 0 {
            scene.deliver_news().await;
            scene.expect_pushes(&["openpgp:SCRAM-SHA-256"]).await;
        }
        scene.dovecot.expect_logins(&scene.user, count + 1).await;
    }
    scene.deliver_news().await;
    scene
        .expect_pushes(&["openpgp:SCRAM-SHA-256", "openpgp:SCRAM-SHA-256", "openpgp:XOAUTH2"])
        .await;
}

/// Counts resumed sessions in the log.
fn handed_back(scene: &DovecotScene) -> usize {
    scene.deltapush.log().matches("logged in by resuming a kept session").count()
}

#[tokio::test]
async fn client_with_the_same_password_resumes_the_session() {
    let mut scene = scene(Setup::Vanilla, "kept-back").await;
    // The first session is from before it was known that the account has a device.
    drop(waiting(&scene, "openpgp:back").await);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    drop(waiting(&scene, "openpgp:back").await);
    scene.dovecot.wait_for_watch(&scene.user, 2).await;
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await);
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:back"]).await;
    for round in 1..=3 {
        let mut client = scene.connect().await;
        let reply = client.log_in(&scene.user).await;
        assert!(
            reply.result.contains("[CAPABILITY ") && reply.result.contains("XDELTAPUSH"),
            "{reply:?}"
        );
        assert_eq!(handed_back(&scene), round);
        // As in a new session nothing is open.
        let fetched = client.command("c2 FETCH 1 FLAGS").await;
        assert!(fetched.result.starts_with("BAD"), "{fetched:?}");
        let selected = client.command("c3 SELECT INBOX").await;
        assert!(
            selected.text().contains("* 1 EXISTS") && selected.result.contains("READ-WRITE"),
            "{selected:?}"
        );
        let fetched = client.command("c4 UID FETCH 1:* (FLAGS)").await;
        assert!(fetched.result.starts_with("OK"), "{fetched:?}");
        client.send("c5 LOGOUT").await;
        client.expect_prefix("* BYE").await;
        status_says(&scene, "watch    watching").await;
    }
    scene.dovecot.expect_logins(&scene.user, 2).await;
    assert_eq!(scene.dovecot.who(&scene.user), 1);
    scene.deliver_news().await;
    scene.notify.wait_for(2, PATIENCE).await;
    // A wrong password is for the mail server to refuse, and counts.
    let mut client = scene.connect().await;
    client.expect_prefix("* OK").await;
    let refused = client.command(&format!("c1 LOGIN {} wrong", scene.user)).await;
    assert!(refused.result.starts_with("NO [AUTHENTICATIONFAILED]"), "{refused:?}");
    let again = client.command(&format!("c2 LOGIN {} wrong", scene.user)).await;
    assert!(again.result.contains("has refused this password"), "{again:?}");
    // Another right one opens a session of its own.
    let other =
        client.command(&format!("c3 LOGIN {} {}", scene.user, dovecot::SIMPLE_PASSWORD)).await;
    assert!(other.result.starts_with("OK"), "{other:?}");
    scene.dovecot.expect_logins(&scene.user, 3).await;
    assert_eq!(handed_back(&scene), 3);
    // And nobody gets one any more by the password before.
    let mut client = scene.connect().await;
    client.log_in(&scene.user).await;
    assert_eq!(handed_back(&scene), 3);
}

#[tokio::test]
async fn session_in_which_something_was_set_is_not_handed_back() {
    let scene = scene(Setup::Vanilla, "kept-set").await;
    drop(waiting(&scene, "openpgp:set").await);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    let mut client = scene.client().await;
    client.command("c2 ENABLE QRESYNC").await;
    idle(&mut client).await;
    drop(client);
    scene.dovecot.wait_for_watch(&scene.user, 2).await;
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await);
    let mut client = scene.client().await;
    assert_eq!(handed_back(&scene), 0);
    // It is closed when the new one waits.
    idle(&mut client).await;
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await);
    scene.dovecot.expect_logins(&scene.user, 3).await;
}

#[tokio::test]
async fn beyond_the_limit_sessions_log_out() {
    let scene = scene_with(Setup::Vanilla, "kept-limit", |options| {
        options.more = "keep:\n  sessions: 1\n".to_owned();
    })
    .await;
    drop(waiting(&scene, "openpgp:limit").await);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    let other = scene.dovecot.user("kept-limit-other");
    let mut client = scene.connect().await;
    client.log_in(&other).await;
    register(&mut client, "openpgp:other").await;
    drop(client);
    assert!(poll(PATIENCE, || scene.dovecot.sessions(&other).concat().contains("LOGOUT")).await);
    // The account that has a place may have its newer session kept.
    let mut client = scene.client().await;
    client.send("c5 LOGOUT").await;
    client.expect_prefix("* BYE").await;
    scene.dovecot.wait_for_watch(&scene.user, 2).await;
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await);
    assert_eq!(scene.dovecot.who(&other), 0);
}

#[tokio::test]
async fn mailbox_that_the_client_waits_in_is_watched() {
    let mut scene = scene(Setup::Vanilla, "kept-elsewhere").await;
    let mut client = scene.client().await;
    register(&mut client, "openpgp:elsewhere").await;
    client.command("c3 CREATE DeltaChat").await;
    client.command("c4 SELECT DeltaChat").await;
    client.send("c5 IDLE").await;
    client.expect_prefix("+").await;
    status_says(&scene, "mailbox  DeltaChat").await;
    let mut direct = scene.direct().await;
    let news = message("bob@elsewhere.test", &scene.user, "news", "");
    let mut append = async |tag: &str| {
        direct.send(&format!("{tag} APPEND DeltaChat {{{}+}}", news.len())).await;
        direct.send_raw(news.as_bytes()).await;
        direct.send("").await;
        direct.until_tagged(tag).await;
    };
    // The client hears of it, and says nothing: as dead as it may be, it is woken.
    append("d1").await;
    client.expect_prefix("* 1 EXISTS").await;
    scene.expect_pushes(&["openpgp:elsewhere"]).await;
    drop(client);
    status_says(&scene, "watch    watching").await;
    let before = scene.notify.posted().len();
    append("d2").await;
    scene.notify.wait_for(before + 1, PATIENCE).await;
}
