//! deltapush is down, hangs, or has no room on its disk, while mail arrives: the mail is delivered all the same, and soon; nothing is
//! pushed twice. With `both` the watch makes good what was not told; with `server` that is left to the next login of a client.

use std::time::Duration;

use super::super::support::deltapush::Options;
use super::super::support::news::Way;
use super::super::support::poll;
use super::super::support::scene::{PATIENCE, QUIET};
use super::scene::NewsScene;

/// The most that a delivery may take: the script waits for three seconds here.
const DELIVERY: Duration = Duration::from_secs(10);

/// The same where nobody listens: the script need not wait.
const DOWN: Duration = Duration::from_secs(2);

/// Messages during an outage.
const MESSAGES: usize = 2;

/// Delivers messages that deltapush does not hear of, and expects Dovecot to say so and go on.
async fn deliver_during_outage(scene: &NewsScene, within: Duration) {
    let before = scene.warnings();
    for _ in 0..MESSAGES {
        let (_, took) = scene.deliver(&scene.news()).await;
        assert!(took < within, "{took:?}");
    }
    // Dovecot writes its log a little later.
    poll(PATIENCE, || scene.warnings() >= before + MESSAGES).await;
    assert_eq!(scene.warnings() - before, MESSAGES, "{}", scene.dovecot.log());
}

/// With `server`, nobody knows of the messages until a client opens the mailbox: then the account's other devices are woken, once.
async fn next_login_catches_up(scene: &mut NewsScene) {
    let before = scene.notify.posted().len();
    scene.notify.stays_at(before, QUIET).await;
    for _ in 0..2 {
        let mut client = scene.client().await;
        let entry = "c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:phone\")";
        assert!(client.command(entry).await.result.starts_with("OK"));
        assert!(client.command("c3 SELECT INBOX").await.result.starts_with("OK"));
        let posted = scene.notify.wait_for(before + 1, PATIENCE).await;
        assert_eq!(posted[before].token, "openpgp:tablet");
        client.command("c4 LOGOUT").await;
    }
    scene.notify.stays_at(before + 1, QUIET).await;
}

/// Two devices; both are woken for a first message.
async fn start(news: &'static str) -> NewsScene {
    let mut scene = NewsScene::start(Way::Lua, news).await;
    for token in ["openpgp:phone", "openpgp:tablet"] {
        scene.register(token).await;
    }
    scene.deliver(&scene.news()).await;
    scene.pushed(2).await;
    scene.accepted().await;
    scene
}

#[tokio::test]
async fn mail_is_delivered_while_deltapush_is_down_and_the_watch_makes_it_good() {
    let mut scene = start("both").await;
    scene.deltapush.kill();
    deliver_during_outage(&scene, DOWN).await;
    scene.deltapush.start_again();
    // They are found at once: one push for each device.
    scene.pushed(4).await;
    scene.notify.stays_at(4, QUIET).await;
    scene.deliver(&scene.news()).await;
    scene.pushed(6).await;
    scene.notify.stays_at(6, QUIET).await;
}

#[tokio::test]
async fn mail_is_delivered_while_deltapush_is_down_and_the_next_login_catches_up() {
    let mut scene = start("server").await;
    scene.deltapush.kill();
    deliver_during_outage(&scene, DOWN).await;
    scene.deltapush.start_again();
    // A start wakes nobody.
    scene.notify.stays_at(2, QUIET).await;
    next_login_catches_up(&mut scene).await;
}

#[tokio::test]
async fn mail_is_delivered_while_deltapush_hangs_and_the_watch_makes_it_good() {
    let mut scene = start("both").await;
    scene.deltapush.signal("STOP");
    deliver_during_outage(&scene, DELIVERY).await;
    scene.deltapush.signal("CONT");
    scene.pushed(4).await;
    tokio::time::sleep(QUIET).await;
    // The watch finds them one by one, or several at once: no message is pushed twice.
    let pushes = scene.notify.posted().len() - 2;
    assert!((2..=2 * MESSAGES).contains(&pushes), "{pushes}");
}

#[tokio::test]
async fn mail_is_delivered_while_deltapush_hangs_and_the_next_login_catches_up() {
    let mut scene = start("server").await;
    scene.deltapush.signal("STOP");
    deliver_during_outage(&scene, DELIVERY).await;
    scene.deltapush.signal("CONT");
    next_login_catches_up(&mut scene).await;
}

/// deltapush wakes the devices although it cannot write that, and says no to Dovecot.
async fn full_disk(news: &'static str) {
    let small = |options: &mut Options| options.disk = Some("4m");
    let mut scene = NewsScene::with(Way::Lua, news, small).await;
    scene.register("openpgp:phone").await;
    scene.deliver(&scene.news()).await;
    scene.pushed(1).await;
    scene.deltapush.disk().fill();
    for _ in 0..MESSAGES {
        let (_, took) = scene.deliver(&scene.news()).await;
        assert!(took < DELIVERY, "{took:?}");
    }
    scene.deltapush.disk().make_room();
    scene.deliver(&scene.news()).await;
    let last = scene.deliver(&scene.news()).await.0;
    let posted = |scene: &NewsScene| scene.notify.posted();
    assert!(poll(PATIENCE, || posted(&scene).last().unwrap().at > last).await);
    scene.notify.stays_at(posted(&scene).len(), QUIET).await;
    // None of the messages was pushed twice.
    let pushes = posted(&scene).len();
    assert!(pushes <= MESSAGES + 3, "{pushes}");
}

#[tokio::test]
async fn mail_is_delivered_and_pushed_while_the_disk_is_full() {
    full_disk("both").await;
}

#[tokio::test]
async fn mail_is_delivered_while_the_disk_is_full_and_there_is_no_watch() {
    full_disk("server").await;
}

/// Deliveries by each of the other ways.
#[tokio::test]
async fn other_ways_hold_no_delivery_up_either() {
    for (way, hangs) in [(Way::Ox, true), (Way::Sieve, true), (Way::Dict, false)] {
        let mut scene = NewsScene::start(way, "server").await;
        scene.register("openpgp:phone").await;
        scene.deltapush.signal("STOP");
        if hangs {
            let (_, took) = scene.deliver(&scene.news()).await;
            assert!(took < DELIVERY, "{way:?}: {took:?}");
        }
        scene.deltapush.kill();
        let (_, took) = scene.deliver(&scene.news()).await;
        // Dovecot itself tries a dict for some seconds: the page says so.
        let within = if way == Way::Dict { DELIVERY * 2 } else { DELIVERY };
        assert!(took < within, "{way:?}: {took:?}");
    }
}
