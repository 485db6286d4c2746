//! Dovecot tells deltapush of deliveries, with the scripts of contrib/dovecot and the lines of docs/news-dovecot.md.

mod answers;
mod core;
mod outages;
mod scene;
mod versions;

use std::time::Duration;

use self::scene::{BOUND, NewsScene};
use super::support::client::Client;
use super::support::dovecot::message;
use super::support::news::Way;
use super::support::poll;
use super::support::scene::{PATIENCE, QUIET};

/// Messages one after the other.
const MESSAGES: usize = 4;

/// Each message is pushed once, and sooner than IDLE could tell of it.
async fn pushes_once_and_soon(way: Way, news: &'static str) -> NewsScene {
    let mut scene = NewsScene::start(way, news).await;
    scene.register("openpgp:phone").await;
    let mut waits = Vec::new();
    for number in 1..=MESSAGES {
        let (at, _) = scene.deliver(&scene.news()).await;
        waits.push(scene.pushed(number).await.saturating_duration_since(at));
    }
    waits.sort_unstable();
    // One message may meet a busy moment of the machine.
    assert!(waits[MESSAGES / 2] < BOUND, "{waits:?}");
    // Longer than IDLE takes to tell of the same messages.
    scene.notify.stays_at(MESSAGES, QUIET).await;
    scene
}

/// Nobody but the client of the registration was ever logged in.
async fn opens_no_session(way: Way) {
    let scene = pushes_once_and_soon(way, "server").await;
    scene.dovecot.expect_logins(&scene.user, 1).await;
    assert_eq!(scene.dovecot.who(&scene.user), 0);
}

#[tokio::test]
async fn lua_script_takes_the_place_of_a_session() {
    opens_no_session(Way::Lua).await;
}

#[tokio::test]
async fn ox_driver_takes_the_place_of_a_session() {
    opens_no_session(Way::Ox).await;
}

#[tokio::test]
async fn sieve_pipe_takes_the_place_of_a_session() {
    opens_no_session(Way::Sieve).await;
}

#[tokio::test]
async fn dict_takes_the_place_of_a_session() {
    opens_no_session(Way::Dict).await;
}

#[tokio::test]
async fn watch_does_not_announce_again_what_the_lua_script_told() {
    pushes_once_and_soon(Way::Lua, "both").await;
}

#[tokio::test]
async fn watch_does_not_announce_again_what_the_ox_driver_told() {
    pushes_once_and_soon(Way::Ox, "both").await;
}

#[tokio::test]
async fn watch_does_not_announce_again_what_sieve_told() {
    pushes_once_and_soon(Way::Sieve, "both").await;
}

#[tokio::test]
async fn watch_does_not_announce_again_what_the_dict_told() {
    pushes_once_and_soon(Way::Dict, "both").await;
}

/// The net: a message that no delivery brought, which Dovecot tells nobody of.
#[tokio::test]
async fn watch_finds_what_another_program_copies_into_the_mailbox() {
    let mut scene = NewsScene::start(Way::Lua, "both").await;
    scene.register("openpgp:phone").await;
    let mut other = Client::plain(scene.dovecot.imap).await;
    other.log_in(&scene.user).await;
    let text = scene.news();
    other.send(&format!("a1 APPEND INBOX {{{}+}}", text.len())).await;
    other.send(&text).await;
    let reply = other.until_tagged("a1").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    scene.pushed(1).await;
    scene.deliver(&scene.news()).await;
    scene.pushed(2).await;
    scene.notify.stays_at(2, QUIET).await;
}

/// Lua and OX hand over the sender, Sieve the whole header.
async fn skips(way: Way, skipped: &[&str]) {
    let mut scene = NewsScene::start(way, "server").await;
    scene.register("openpgp:phone").await;
    for text in skipped {
        scene.deliver(&text.replace("ALICE", &scene.user)).await;
    }
    // News of an account is taken in order: once this one is pushed, the others were decided about.
    scene.deliver(&scene.news()).await;
    scene.pushed(1).await;
    scene.notify.stays_at(1, Duration::from_millis(500)).await;
}

#[tokio::test]
async fn own_mail_is_not_pushed() {
    let own = message("Alice <ALICE>", "bob@elsewhere.test", "to bob", "");
    skips(Way::Lua, &[&own]).await;
    skips(Way::Ox, &[&own]).await;
}

#[tokio::test]
async fn sieve_hands_over_what_the_push_filter_needs() {
    let own = message("Alice <ALICE>", "bob@elsewhere.test", "to bob", "");
    let reply = message("bob@elsewhere.test", "ALICE", "away", "Auto-Submitted: auto-replied\r\n");
    skips(Way::Sieve, &[&own, &reply]).await;
}

/// A mailbox that wakes nobody, with a name that breaks careless quoting.
#[tokio::test]
async fn mail_in_other_mailboxes_is_not_pushed() {
    let mut scene = NewsScene::start(Way::Lua, "server").await;
    scene.register("openpgp:phone").await;
    let detail = scene.user.replace('@', "+J&n'k{x}@");
    scene.deliver_to(&detail, &scene.news()).await;
    let saved = || scene.dovecot.log().contains("saved mail to J&n'k{x}");
    assert!(poll(PATIENCE, saved).await, "{}", scene.dovecot.log());
    scene.deliver(&scene.news()).await;
    scene.pushed(1).await;
    scene.notify.stays_at(1, Duration::from_millis(500)).await;
    assert_eq!(scene.warnings(), 0);
}
