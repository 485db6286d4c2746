//! Messages that an account's apps fetch, and how deltapush learns of them: real cores with a token, old and new. And devices
//! that come for a background fetch, or have several accounts.

use std::process::Output;

use serde_json::{Value, json};

use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Dovecot, Setup, message};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::scene::{DovecotScene, PATIENCE};

const TOKEN: &str = "openpgp:phone";

/// An app's FETCH of new messages.
const PREFETCH: &str = "(UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE X-MICROSOFT-ORIGINAL-MESSAGE-ID FROM CONTENT-TYPE \
                        SECURE-JOIN CHAT-VERSION CHAT-IS-POST-MESSAGE AUTOCRYPT-SETUP-MESSAGE)])";

/// An app with one account, and its deltapush.
struct App {
    dovecot: &'static Dovecot,
    // Clients end before their servers: a port that is given up belongs to another test.
    core: Core,
    deltapush: Deltapush,
    notify: NotifyServer,
    account: u64,
    user: String,
    _submission: Submission,
}

impl App {
    /// A core that idles, with its token handed over.
    async fn start(version: Version, name: &str, force_encryption: Option<&str>) -> Self {
        let dovecot = dovecot::shared(Setup::Vanilla);
        let notify = NotifyServer::start().await;
        let options =
            Options { notify_url: notify.url.clone(), trace: true, ..Options::dovecot(dovecot) };
        let deltapush = Deltapush::start(&options);
        let submission = Submission::start(dovecot).await;
        let user = dovecot.user(name);
        let mut core = Core::start(version).await;
        let account = core.add_account(&user, deltapush.imaps, submission.port).await;
        if let Some(value) = force_encryption {
            core.call("set_config", json!([account, "force_encryption", value])).await;
        }
        core.call("start_io_for_all_accounts", json!([])).await;
        core.event(account, "ImapInboxIdle").await;
        dovecot.wait_for_watch(&user, 1).await;
        Self { dovecot, notify, deltapush, core, account, user, _submission: submission }
    }

    /// Delivers an unencrypted message of each of these senders, and waits until the app has looked at them.
    async fn gets_unencrypted(&mut self, senders: &[&str]) {
        for sender in senders {
            let from = format!("{sender}@elsewhere.test");
            self.dovecot.deliver(&from, &self.user, &message(&from, &self.user, "plain", "")).await;
            self.core.event(self.account, "ImapInboxIdle").await;
        }
    }

    async fn is_woken_for(&self, words: &str) -> Value {
        let mut last = Value::Null;
        let is_so = poll(PATIENCE, || {
            last = json_of(&self.deltapush.asked(&["account", &self.user, "--json"]));
            last["account"]["messages"].as_str().unwrap().contains(words)
        });
        assert!(
            is_so.await,
            "not {words:?}: {last:#}\n{}\n{}",
            self.deltapush.log(),
            self.deltapush.trace()
        );
        last
    }
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn core_that_accepts_encrypted_mail_only_teaches_so() {
    let mut app = App::start(Version::CurrentWithToken, "learn-encrypted", None).await;
    app.is_woken_for("does not know yet").await;
    app.gets_unencrypted(&["bob", "eve", "carol"]).await;
    app.is_woken_for("encrypted messages: its apps fetch no others").await;
    // Those before were announced: nothing was known then.
    app.deltapush.decides(&app.user, "to be pushed", 1).await;
    app.gets_unencrypted(&["mallory"]).await;
    let skipped = "no push: not encrypted: the app would not fetch it";
    app.deltapush.decides(&app.user, skipped, 1).await;
    app.deltapush.decides(&app.user, "no device to wake", 1).await;
    let before = app.notify.posted().len();
    assert!(before > 0);
    let report = app.is_woken_for("encrypted messages").await;
    let evidence = report["account"]["devices"][0]["fetches"].as_str().unwrap();
    assert!(
        evidence
            .contains("encrypted messages only: it did not fetch unencrypted ones of 3 senders"),
        "{evidence}"
    );

    // The app is away: it would delete what it cannot decrypt, perhaps before the watch hears of it.
    app.core.call("stop_io_for_all_accounts", json!([])).await;
    let headers =
        "Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=x\r\n";
    let encrypted = message("bob@elsewhere.test", &app.user, "x", "").replacen(
        "Content-Type: text/plain; charset=utf-8\r\n",
        headers,
        1,
    );
    app.dovecot.deliver("bob@elsewhere.test", &app.user, &encrypted).await;
    app.notify.wait_for(before + 1, PATIENCE).await;

    // It survives a restart, and is forgotten when the app does otherwise.
    app.deltapush.restart();
    app.is_woken_for("encrypted messages: its apps fetch no others").await;
    app.core.call("set_config", json!([app.account, "force_encryption", "0"])).await;
    app.core.call("start_io_for_all_accounts", json!([])).await;
    app.core.event(app.account, "ImapInboxIdle").await;
    app.gets_unencrypted(&["trent"]).await;
    app.is_woken_for("one of its apps fetches unencrypted ones too").await;
}

#[tokio::test]
async fn core_that_accepts_unencrypted_mail_teaches_so() {
    let mut app = App::start(Version::CurrentWithToken, "learn-all", Some("0")).await;
    app.gets_unencrypted(&["bob"]).await;
    app.is_woken_for("one of its apps fetches unencrypted ones too").await;
    app.gets_unencrypted(&["eve", "carol", "mallory"]).await;
    app.is_woken_for("one of its apps fetches unencrypted ones too").await;
}

#[tokio::test]
async fn core_2_23_is_woken_for_all_messages() {
    let mut app = App::start(Version::WithToken, "learn-2-23", None).await;
    app.gets_unencrypted(&["bob", "eve", "carol", "mallory"]).await;
    app.is_woken_for("one of its apps fetches unencrypted ones too").await;
}

/// Connects as an app does for a background fetch.
async fn fetches_in_background(scene: &DovecotScene) {
    let mut client = scene.client().await;
    client.command("c1 ID (\"name\" \"Delta Chat\")").await;
    client.command("c2 SELECT INBOX").await;
    client.command(&format!("c3 UID FETCH 1:500 {PREFETCH}")).await;
}

#[tokio::test]
async fn background_fetch_ends_a_test_push_and_explains_the_last_message() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "background-test", |options| options.coalesce = "10ms")
            .await;
    scene.register(TOKEN).await;
    let testing = scene.deltapush.asking(&["push-test", &scene.user, "--wait", "1m"]);
    scene.expect_pushes(&[TOKEN]).await;
    // Without news it fetches nothing.
    let mut client = scene.client().await;
    client.command("c1 ID (\"name\" \"Delta Chat\")").await;
    client.command("c2 SELECT INBOX").await;
    drop(client);
    let tested =
        tokio::task::spawn_blocking(move || testing.wait_with_output().unwrap()).await.unwrap();
    assert!(tested.status.success(), "{tested:?}");
    assert!(said(&tested).contains("connected for a background fetch"), "{tested:?}");

    scene.deliver_news().await;
    scene.expect_pushes(&[TOKEN; 2]).await;
    fetches_in_background(&scene).await;
    let report = json_of(&scene.deltapush.asked(&["account", &scene.user, "--json"]));
    let explained = report["explanation"].to_string();
    assert!(explained.contains("the device connected for a background fetch"), "{report:#}");
    assert!(
        explained.contains("and requested the message") && !explained.contains("push service"),
        "{explained}"
    );
    assert!(report["account"]["devices"][0]["connected"].is_string(), "{report:#}");
}

#[tokio::test]
async fn background_fetch_of_one_of_two_devices_is_named_as_such() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "background-two", |options| options.coalesce = "10ms")
            .await;
    scene.register(TOKEN).await;
    let mut client = scene.client().await;
    client.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:tablet\")").await;
    drop(client);
    let testing = scene.deltapush.asking(&["push-test", &scene.user, "--wait", "3s"]);
    scene.expect_pushes(&[TOKEN, "openpgp:tablet"]).await;
    fetches_in_background(&scene).await;
    let tested =
        tokio::task::spawn_blocking(move || testing.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(tested.status.code(), Some(75), "one of them has not come: {tested:?}");
    assert!(
        said(&tested).contains("1 background fetches of the account's devices arrived since"),
        "{tested:?}"
    );
    assert!(
        said(&tested).contains("unless one of these background fetches was its own"),
        "{tested:?}"
    );
    assert!(!said(&tested).contains("push service"), "{tested:?}");
}

#[tokio::test]
async fn device_with_two_accounts_is_woken_once_for_a_message_to_both() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "copies-one", |options| options.coalesce = "3s").await;
    scene.register(TOKEN).await;
    let other = scene.dovecot.user("copies-two");
    let mut client = scene.connect().await;
    client.log_in(&other).await;
    client.command(&format!("c2 SETMETADATA INBOX (/private/devicetoken \"{TOKEN}\")")).await;
    client.command("c3 SETMETADATA INBOX (/private/devicetoken \"openpgp:tablet\")").await;
    drop(client);
    scene.dovecot.wait_for_watch(&other, 1).await;
    let text = message("bob@elsewhere.test", "both@lab.test", "to both", "");
    scene.dovecot.deliver("bob@elsewhere.test", &scene.user, &text).await;
    scene.expect_pushes(&[TOKEN]).await;
    scene.dovecot.deliver("bob@elsewhere.test", &other, &text).await;
    // The tablet has the second account alone.
    scene.expect_pushes(&[TOKEN, "openpgp:tablet"]).await;
    scene.expect_decided("to be pushed", 1, 2).await;
    scene.dovecot.deliver_news(&other, "another").await;
    scene.expect_pushes(&[TOKEN, "openpgp:tablet", TOKEN, "openpgp:tablet"]).await;
}
