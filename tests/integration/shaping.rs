//! Keepalives and ID between a client and a real Dovecot.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::support::client::Client;
use super::support::dovecot::Setup;
use super::support::poll;
use super::support::scene::Scene;

/// Idles for `time` and counts what comes, with the pause before the first.
async fn keepalives(client: &mut Client, time: Duration) -> (usize, Duration) {
    client.command("k1 SELECT INBOX").await;
    client.send("k2 IDLE").await;
    client.expect_prefix("+").await;
    let began = Instant::now();
    let (mut heard, mut first) = (0, Duration::ZERO);
    while let Ok(line) = timeout(time.saturating_sub(began.elapsed()), client.line()).await {
        assert_eq!(line, "* OK Still here");
        if heard == 0 {
            first = began.elapsed();
        }
        heard += 1;
    }
    client.send("DONE").await;
    assert!(client.until_tagged("k2").await.result.starts_with("OK"), "{}", client.dialogue());
    (heard, first)
}

#[tokio::test]
async fn an_idling_client_hears_a_talkative_dovecot_at_its_own_pace() {
    let shaped =
        Scene::with(Setup::Talkative, "shaped", |options| options.more = "relay:\n  keepalive: 5s\n".to_owned());
    let passed =
        Scene::with(Setup::Talkative, "passed", |options| options.more = "relay:\n  keepalive: off\n".to_owned());
    let (shaped, passed) = tokio::join!(shaped, passed);
    let (mut client, mut other) = (shaped.client().await, passed.client().await);
    let time = Duration::from_secs(12);
    let ((heard, first), (all, _)) = tokio::join!(keepalives(&mut client, time), keepalives(&mut other, time));
    assert!(heard == 2 && first > Duration::from_millis(4500), "{heard} in {time:?}, the first after {first:?}");
    assert!(all >= 5, "Dovecot speaks every 2 s, and {all} came");
    // News are not held up, and neither client has lost its place.
    for (scene, client) in [(&shaped, &mut client), (&passed, &mut other)] {
        client.send("k3 IDLE").await;
        client.expect_prefix("+").await;
        scene.deliver_news().await;
        while client.line().await != "* 1 EXISTS" {}
        client.send("DONE").await;
        client.until_tagged("k3").await;
    }
}

#[tokio::test]
async fn dovecot_hears_of_both_in_an_id() {
    let scene = Scene::new(Setup::Vanilla, "id").await;
    let mut client = scene.client().await;
    let reply = client.command("c2 ID (\"name\" \"Delta Chat\" \"x-originating-ip\" \"192.0.2.1\")").await;
    assert!(reply.text().starts_with("* ID (\"name\" \"Dovecot\")\nOK ID completed"), "{reply:?}");
    let wanted = concat!("c2 ID (\"name\" \"Delta Chat\" \"x-via\" \"deltapush ", env!("CARGO_PKG_VERSION"), "\")\r\n");
    assert!(poll(Duration::from_secs(5), || scene.dovecot.sessions(&scene.user).concat().contains(wanted)).await);
}
