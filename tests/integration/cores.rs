//! Real Delta Chat cores behind the proxy: everything goes as if directly connected, and a phone is woken.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Dovecot, Setup};
use super::support::notify::NotifyServer;

/// Two accounts of two apps write to each other, both over the IMAP server on `imap`.
pub(crate) async fn chat(version: Version, dovecot: &Dovecot, imap: u16, name: &str) {
    let submission = Submission::start(dovecot).await;
    let mut people = Vec::new();
    for side in ["alice", "bob"] {
        let mut core = Core::start(version).await;
        let account =
            core.add_account(&dovecot.user(&format!("{name}-{side}")), imap, submission.port).await;
        core.call("start_io_for_all_accounts", json!([])).await;
        // Messages in a mailbox are old when a core first opens it.
        core.event(account, "ImapInboxIdle").await;
        people.push((core, account));
    }
    let [(alice, alices), (bob, bobs)] = people.as_mut_slice() else { unreachable!("two people") };
    let card = bob.vcard(*bobs).await;
    alice.write_to(*alices, card, "grüße through the proxy").await;

    let (chat, text) = bob.incoming(*bobs).await;
    assert_eq!(text, "grüße through the proxy");
    bob.call("accept_chat", json!([*bobs, chat])).await;
    bob.call("misc_send_text_message", json!([*bobs, chat, "and back"])).await;

    let (_, text) = alice.incoming(*alices).await;
    assert_eq!(text, "and back");
}

/// Cores turn compression on by themselves. Every session of theirs has, and the server heard of none.
fn expect_compression(deltapush: &Deltapush, dovecot: &Dovecot, name: &str) {
    let trace = deltapush.trace();
    let count = |words: &str| trace.matches(words).count();
    let (logins, begun) =
        (count(" deltapush ready   [sent by deltapush]"), count("OK compression begins now"));
    assert!(begun >= 2, "{trace}");
    // One that was just made, or that only asked whether the password is right, may not have come so far.
    assert!(begun + 4 >= logins, "{begun} of {logins} sessions\n{trace}");
    for side in ["alice", "bob"] {
        assert!(
            !dovecot.sessions(&format!("{name}-{side}@lab.test")).concat().contains("COMPRESS")
        );
    }
}

#[tokio::test]
async fn core_2_23_chats_through_the_proxy() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let deltapush = Deltapush::start(&Options { trace: true, ..Options::dovecot(dovecot) });
    chat(Version::WithToken, dovecot, deltapush.imaps, "chat-2.23").await;
    expect_compression(&deltapush, dovecot, "chat-2.23");
}

#[tokio::test]
async fn current_core_chats_through_the_proxy() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let deltapush = Deltapush::start(&Options { trace: true, ..Options::dovecot(dovecot) });
    chat(Version::Current, dovecot, deltapush.imaps, "chat-current").await;
    expect_compression(&deltapush, dovecot, "chat-current");
}

#[tokio::test]
async fn cores_chat_through_the_proxy_with_a_server_that_pushes_by_itself() {
    let dovecot = dovecot::shared(Setup::Chatmail);
    let deltapush = Deltapush::start(&Options::dovecot(dovecot));
    chat(Version::WithToken, dovecot, deltapush.imaps, "chat-native").await;
}

#[tokio::test]
async fn phone_is_woken_after_its_app_has_gone() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let mut notify = NotifyServer::start().await;
    let deltapush =
        Deltapush::start(&Options { notify_url: notify.url.clone(), ..Options::dovecot(dovecot) });
    let submission = Submission::start(dovecot).await;
    let user = dovecot.user("core-push");
    let mut core = Core::start(Version::WithToken).await;
    core.add_account(&user, deltapush.imaps, submission.port).await;
    core.call("start_io_for_all_accounts", json!([])).await;
    dovecot.wait_for_watch(&user, 1).await;
    core.kill().await;
    assert!(notify.posted().is_empty(), "{:?}", notify.posted());

    // Dovecot itself holds news back for half a second. The best of three, because other tests want the processor too.
    let mut took = Vec::new();
    for number in 1..=3 {
        let delivered = Instant::now();
        dovecot.deliver_news(&user, "are you there?").await;
        let posted = notify.wait_for(number, Duration::from_secs(40)).await;
        let last = &posted[number - 1];
        assert!(last.token.starts_with("openpgp:"), "not a core's token: {:?}", last.token);
        took.push(last.at.duration_since(delivered));
        // Not within the pause that one push causes for the next.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(took.iter().min().unwrap() < &Duration::from_secs(1), "{took:?}\n{}", deltapush.log());
}
