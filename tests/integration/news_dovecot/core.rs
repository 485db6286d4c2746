//! A real core in a chat with another, with `news: server`: woken, and no password anywhere.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::super::support::client::quoted;
use super::super::support::core::{Core, Submission, Version};
use super::super::support::deltapush::Deltapush;
use super::super::support::dovecot::PASSWORD;
use super::super::support::news::{Hook, Way, dovecot, options};
use super::super::support::notify::NotifyServer;
use super::super::support::poll;
use super::super::support::scene::PATIENCE;

#[tokio::test]
async fn newest_core_is_woken_without_a_stored_password() {
    let hook = Hook::new();
    let dovecot = dovecot(Way::Lua, &hook);
    let mut notify = NotifyServer::start().await;
    let mut options = options(&dovecot, &hook, Way::Lua, "server");
    options.notify_url.clone_from(&notify.url);
    let mut deltapush = Deltapush::start(&options);
    let submission = Submission::start(&dovecot).await;
    let (alice_user, bob_user) = (dovecot.user("alice"), dovecot.user("bob"));
    let mut alice = Core::start(Version::CurrentWithToken).await;
    let mut bob = Core::start(Version::Current).await;
    let alice_account = alice.add_account(&alice_user, deltapush.imaps, submission.port).await;
    let bob_account = bob.add_account(&bob_user, dovecot.imaps, submission.port).await;
    for (core, account) in [(&mut alice, alice_account), (&mut bob, bob_account)] {
        core.call("start_io_for_all_accounts", json!([])).await;
        core.event(account, "ImapInboxIdle").await;
    }
    let card = bob.vcard(bob_account).await;
    alice.write_to(alice_account, card, "there").await;
    let (chat, text) = bob.incoming(bob_account).await;
    assert_eq!(text, "there");
    bob.call("accept_chat", json!([bob_account, chat])).await;

    // Alice's app is in the background.
    alice.call("stop_io_for_all_accounts", json!([])).await;
    let devices = || deltapush.status().matches("  device   ").count();
    assert_eq!(devices(), 1, "{}", deltapush.status());
    // From here on her devices are not taken for connected.
    let gone = || dovecot.who(&alice_user) == 0;
    assert!(poll(PATIENCE, gone).await, "{}", dovecot.log());
    let before = notify.posted().len();
    bob.call("misc_send_text_message", json!([bob_account, chat, "wake up"])).await;
    notify.wait_for(before + 1, PATIENCE).await;
    assert_eq!(dovecot.who(&alice_user), 0);
    alice.call("background_fetch", json!([15.0])).await;
    assert_eq!(alice.incoming(alice_account).await.1, "wake up");

    expect_no_password(&deltapush);
    assert!(deltapush.terminate().success());
    expect_no_password(&deltapush);
}

/// The database, its WAL and the key, as they are on the disk, and the table of credentials.
fn expect_no_password(deltapush: &Deltapush) {
    let state = deltapush.dir().join("state");
    let mut searched = Vec::new();
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        searched.push(path.file_name().unwrap().to_string_lossy().into_owned());
        // Also a part that quoting does not change.
        for sought in [PASSWORD, &quoted(PASSWORD), "back{5}", &BASE64_STANDARD.encode(PASSWORD)] {
            let found = memchr::memmem::find(&bytes, sought.as_bytes());
            assert_eq!(found, None, "{}", path.display());
        }
    }
    assert!(searched.contains(&"state.sqlite".to_owned()), "{searched:?}");
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database =
        rusqlite::Connection::open_with_flags(state.join("state.sqlite"), flags).unwrap();
    let query = "SELECT count(*), sum(length(credentials)) FROM accounts";
    let accounts = database.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(accounts.unwrap(), (1_i64, 0_i64), "accounts, bytes of credentials");
}
