//! Watches of mailboxes, with a real Dovecot: which ones, for which messages, with which credentials.

use std::time::Duration;

use super::support::client::Client;
use super::support::dovecot::{Setup, message};
use super::support::poll;
use super::support::scene::{DovecotScene, PATIENCE};

/// Registers a token and idles in `mailbox`, as Delta Chat does where that is its mailbox; then goes away.
async fn idle_in(scene: &DovecotScene, token: &str, mailbox: &str) {
    let mut client = scene.client().await;
    client.command(&format!("c2 SETMETADATA \"INBOX\" (/private/devicetoken \"{token}\")")).await;
    client.command(&format!("c3 CREATE {mailbox}")).await;
    let selected = client.command(&format!("c4 SELECT {mailbox}")).await;
    assert!(selected.result.starts_with("OK"), "{selected:?}");
    client.send("c5 IDLE").await;
    client.expect_prefix("+").await;
}

/// Puts a message into any mailbox, past deltapush.
async fn append(direct: &mut Client, tag: &str, user: &str, mailbox: &str, headers: &str) {
    let message = message("bob@elsewhere.test", user, "news", headers);
    direct.send(&format!("{tag} APPEND {mailbox} {{{}+}}", message.len())).await;
    direct.send_raw(message.as_bytes()).await;
    direct.send("").await;
    let reply = direct.until_tagged(tag).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
}

async fn wait_for_status(scene: &DovecotScene, wanted: &str) {
    let seen = poll(PATIENCE, || scene.deltapush.status().contains(wanted)).await;
    assert!(seen, "no {wanted:?} in the status:\n{}", scene.deltapush.status());
}

#[tokio::test]
async fn mailbox_that_the_client_idles_in_is_watched() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "idles-elsewhere").await;
    idle_in(&scene, "openpgp:elsewhere", "DeltaChat").await;
    wait_for_status(&scene, "mailbox  DeltaChat").await;
    let mut direct = scene.direct().await;
    append(&mut direct, "d1", &scene.user, "DeltaChat", "").await;
    scene.expect_pushes(&["openpgp:elsewhere"]).await;
    // Its clients look nowhere else.
    scene.deliver_news().await;
    append(&mut direct, "d2", &scene.user, "DeltaChat", "").await;
    scene.expect_decided("the answer to the POST", 2, 2).await;
    let report = scene.deltapush.account(&scene.user).unwrap();
    assert!(!report["happened"].to_string().contains("in INBOX: "), "{report:#}");
}

#[tokio::test]
async fn configured_mailboxes_are_watched_by_the_same_session() {
    let mut scene = DovecotScene::with(Setup::Vanilla, "two-mailboxes", |options| {
        options.more =
            "accounts:\n  two-mailboxes@lab.test:\n    mailboxes: [Family, Missing]\n".to_owned();
    })
    .await;
    scene.direct().await.command("d1 CREATE Family").await;
    scene.register("openpgp:family").await;
    wait_for_status(&scene, "mailbox  Family").await;
    wait_for_status(&scene, "watch    watching").await;
    let mut direct = scene.direct().await;
    append(&mut direct, "d2", &scene.user, "Family", "").await;
    scene.expect_pushes(&["openpgp:family"]).await;
    scene.deliver_news().await;
    scene.notify.wait_for(2, PATIENCE).await;
    assert_eq!(scene.dovecot.watches(&scene.user).len(), 1, "NOTIFY makes one session do");
    assert!(scene.deltapush.log().contains("Missing"), "{}", scene.deltapush.log());
}

#[tokio::test]
async fn only_chat_messages_wake_where_only_they_are_wanted() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "chat-only", |options| options.push = "messages: chat")
            .await;
    scene.register("openpgp:chat").await;
    scene.deliver_news().await;
    scene.expect_decided("no push: ", 1, 0).await;
    let chat = message("bob@elsewhere.test", &scene.user, "hi", "Chat-Version: 1.0\r\n");
    scene.dovecot.deliver("bob@elsewhere.test", &scene.user, &chat).await;
    scene.expect_pushes(&["openpgp:chat"]).await;
}

#[tokio::test]
async fn within_the_grace_another_device_may_show_the_message() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "grace", |options| options.push = "grace: 2s").await;
    scene.register("openpgp:grace").await;
    let mut direct = scene.direct().await;
    direct.command("d1 SELECT INBOX").await;
    scene.deliver_news().await;
    direct.command("d2 NOOP").await;
    let stored = direct.command("d3 STORE 1 +FLAGS (\\Seen)").await;
    assert!(stored.result.starts_with("OK"), "{stored:?}");
    scene.expect_decided("no device to wake", 1, 0).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:grace"]).await;
}

#[tokio::test]
async fn device_whose_session_fetched_within_the_grace_is_left_out() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "grace-own", |options| options.push = "grace: 3s").await;
    scene.register("openpgp:away").await;
    // The second device stays, and fetches what comes.
    let mut client = scene.client().await;
    client.command("c2 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:here\")").await;
    client.command("c3 SELECT INBOX").await;
    client.send("c4 IDLE").await;
    client.expect_prefix("+").await;
    scene.deliver_news().await;
    client.expect_prefix("* 1 EXISTS").await;
    client.send("DONE").await;
    client.until_tagged("c4").await;
    client.command("c5 UID FETCH 1:* (FLAGS)").await;
    scene.expect_pushes(&["openpgp:away"]).await;
    scene.expect_decided("the answer to the POST", 1, 1).await;
}

#[tokio::test]
async fn device_that_fetched_only_the_first_of_the_news_is_woken() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "grace-first", |options| options.push = "grace: 6s")
            .await;
    scene.register("openpgp:away").await;
    let mut client = scene.client().await;
    client.command("c2 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:gone\")").await;
    client.command("c3 SELECT INBOX").await;
    client.send("c4 IDLE").await;
    client.expect_prefix("+").await;
    scene.deliver_news().await;
    client.expect_prefix("* 1 EXISTS").await;
    client.send("DONE").await;
    client.until_tagged("c4").await;
    client.command("c5 UID FETCH 1:* (FLAGS)").await;
    drop(client);
    // Longer than a server may be ahead with the news.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:away", "openpgp:gone"]).await;
}

#[tokio::test]
async fn without_credentials_on_disk_the_devices_are_woken_after_a_restart() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "memory", |options| options.credentials = "memory")
            .await;
    scene.register("openpgp:memory").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:memory"]).await;
    scene.deltapush.restart();
    scene.expect_pushes(&["openpgp:memory"; 2]).await;
    assert!(
        scene.deltapush.status().contains("waits for its phone"),
        "{}",
        scene.deltapush.status()
    );
    // The phone comes back, and all goes on: also what came while nobody could look.
    scene.deliver_news().await;
    scene.client().await;
    scene.expect_pushes(&["openpgp:memory"; 3]).await;
}

#[tokio::test]
async fn status_shows_life_and_ends_with_the_process() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "status").await;
    scene.register("openpgp:status").await;
    wait_for_status(&scene, "watch    watching").await;
    let status = scene.deltapush.status();
    for wanted in [
        "status@lab.test at localhost:",
        "last sign of life ",
        "is detected within 10m",
        "mailbox  INBOX",
        "no push yet",
    ] {
        assert!(status.contains(wanted), "no {wanted:?} in\n{status}");
    }
    assert!(!status.contains("openpgp:"), "{status}");
    scene.deliver_news().await;
    scene.notify.wait_for(1, PATIENCE).await;
    wait_for_status(&scene, "last push accepted").await;
}
