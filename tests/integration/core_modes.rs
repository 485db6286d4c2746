//! The newest core with a token, end to end, in each mode of `storage.credentials`: set-up, chat both ways, a large attachment, kill -9 of
//! deltapush, a push, and a background fetch.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Dovecot, Setup};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::scene::PATIENCE;

/// Size of the attachment, in bytes.
const ATTACHMENT: usize = 10 * 1024 * 1024;

/// One of two people.
struct Person {
    core: Core,
    account: u64,
    user: String,
}

impl Person {
    async fn start(dovecot: &Dovecot, name: &str, imap: u16, smtp: u16) -> Self {
        let user = dovecot.user(name);
        let mut core = Core::start(Version::CurrentWithToken).await;
        let account = core.add_account(&user, imap, smtp).await;
        core.call("start_io_for_all_accounts", json!([])).await;
        core.event(account, "ImapInboxIdle").await;
        Self { core, account, user }
    }

    async fn send(&mut self, chat: &Value, text: &str) {
        self.core.call("misc_send_text_message", json!([self.account, chat, text])).await;
    }

    async fn receive(&mut self, text: &str) -> Value {
        let (chat, said) = self.core.incoming(self.account).await;
        assert_eq!(said, text);
        chat
    }
}

async fn lives_through_everything(credentials: &'static str) {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let mut notify = NotifyServer::start().await;
    let options =
        Options { notify_url: notify.url.clone(), credentials, ..Options::dovecot(dovecot) };
    let mut deltapush = Deltapush::start(&options);
    let submission = Submission::start(dovecot).await;
    let mut alice = Person::start(
        dovecot,
        &format!("modes-{credentials}-alice"),
        deltapush.imaps,
        submission.port,
    )
    .await;
    let mut bob = Person::start(
        dovecot,
        &format!("modes-{credentials}-bob"),
        deltapush.imaps,
        submission.port,
    )
    .await;

    let card = bob.core.vcard(bob.account).await;
    alice.core.write_to(alice.account, card, "there").await;
    let chat = bob.receive("there").await;
    bob.core.call("accept_chat", json!([bob.account, chat])).await;
    bob.send(&chat, "and back").await;
    let alices_chat = alice.receive("and back").await;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.bin");
    let mut bytes = vec![0; ATTACHMENT];
    // Not to be compressed.
    let mut state = 1u32;
    bytes.iter_mut().for_each(|byte| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    });
    fs::write(&path, &bytes).unwrap();
    let message = json!({"text": "large", "file": path.to_str().unwrap(), "viewtype": "File"});
    let sent = bob.core.call("send_msg", json!([bob.account, chat, message])).await;
    assert!(sent.is_u64(), "{sent}");
    alice.gets_file(&bytes).await;

    // Both are known, and the phones find their way back after deltapush has died.
    let devices = || deltapush.status().matches("  device   ").count();
    assert!(poll(PATIENCE, || devices() == 2).await, "{}", deltapush.status());
    deltapush.kill();
    deltapush.start_again();
    alice.core.call("maybe_network", json!([])).await;
    bob.core.call("maybe_network", json!([])).await;
    bob.send(&chat, "after the crash").await;
    alice.receive("after the crash").await;

    // Alice's app is in the background: it is woken, and fetches.
    alice.core.call("stop_io_for_all_accounts", json!([])).await;
    // With `none` it is her session that watches, once it is at rest.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = notify.posted().len();
    bob.send(&chat, "wake up").await;
    notify.wait_for(before + 1, PATIENCE).await;
    alice.core.call("background_fetch", json!([15.0])).await;
    alice.receive("wake up").await;
    let report = deltapush.asked(&["account", &alice.user]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.contains("connected for a background fetch"), "{report}\n{}", deltapush.log());
    alice.core.call("start_io_for_all_accounts", json!([])).await;
    alice.send(&alices_chat, "good night").await;
    bob.receive("good night").await;
}

impl Person {
    /// Waits for a message with a file, which a core fetches as a whole after the text.
    async fn gets_file(&mut self, bytes: &[u8]) {
        let event = self.core.event(self.account, "IncomingMsg").await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let message =
                self.core.call("get_message", json!([self.account, event["msgId"]])).await;
            match message["file"].as_str().map(fs::read) {
                Some(Ok(got)) if got == bytes => return,
                _ if tokio::time::Instant::now() > deadline => {
                    panic!("the file has not come: {message}")
                }
                _ => {}
            }
            if message["downloadState"] == "Available" {
                self.core
                    .call("download_full_message", json!([self.account, event["msgId"]]))
                    .await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test]
async fn newest_core_lives_through_everything_with_sealed_passwords() {
    lives_through_everything("sealed").await;
}

#[tokio::test]
async fn newest_core_lives_through_everything_with_passwords_in_memory() {
    lives_through_everything("memory").await;
}

#[tokio::test]
async fn newest_core_lives_through_everything_without_passwords() {
    lives_through_everything("none").await;
}
