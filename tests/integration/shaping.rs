//! Keepalives, ID and referrals on a whole connection.

use std::time::{Duration, Instant};

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::Setup;
use super::support::poll;
use super::support::scene::DovecotScene;
use super::support::scripted::Scripted;

/// Idles until `count` keepalives have come, and returns how long that took.
async fn keepalives(client: &mut Client, count: usize) -> Duration {
    client.command("k1 SELECT INBOX").await;
    client.send("k2 IDLE").await;
    client.expect_prefix("+").await;
    let began = Instant::now();
    for _ in 0..count {
        client.expect("* OK Still here").await;
    }
    let took = began.elapsed();
    client.send("DONE").await;
    assert!(client.until_tagged("k2").await.result.starts_with("OK"), "{}", client.dialogue());
    took
}

#[tokio::test]
async fn idling_client_hears_a_talkative_dovecot_at_its_own_pace() {
    let shaped = DovecotScene::with(Setup::Talkative, "shaped", |options| {
        options.more = "relay:\n  keepalive: 5s\n".to_owned()
    });
    let passed = DovecotScene::with(Setup::Talkative, "passed", |options| {
        options.more = "relay:\n  keepalive: off\n".to_owned()
    });
    let (shaped, passed) = tokio::join!(shaped, passed);
    let (mut client, mut other) = (shaped.client().await, passed.client().await);
    // Dovecot speaks every 2 s: one hears it all, the other every 5 s.
    let (paced, _) = tokio::join!(keepalives(&mut client, 2), keepalives(&mut other, 5));
    assert!(paced > Duration::from_millis(9500), "two in {paced:?}");
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
    let scene = DovecotScene::new(Setup::Vanilla, "id").await;
    let mut client = scene.client().await;
    let reply =
        client.command("c2 ID (\"name\" \"Delta Chat\" \"x-originating-ip\" \"192.0.2.1\")").await;
    assert!(reply.text().starts_with("* ID (\"name\" \"Dovecot\")\nOK ID completed"), "{reply:?}");
    let wanted = concat!(
        "c2 ID (\"name\" \"Delta Chat\" \"x-via\" \"deltapush ",
        env!("CARGO_PKG_VERSION"),
        "\")\r\n"
    );
    assert!(
        poll(Duration::from_secs(40), || scene
            .dovecot
            .sessions(&scene.user)
            .concat()
            .contains(wanted))
        .await
    );
}

/// Logs in after an ID, against a dialogue from its greeting on.
async fn introduced(dialogue: &str, id: &str) -> (Scripted, Deltapush, Client) {
    let upstream = Scripted::start(&[dialogue]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert_eq!(
        client.command(&format!("c1 ID {id}")).await.text(),
        "* ID (\"name\" \"deltapush\")\nOK ID completed"
    );
    let reply = client.command("c2 LOGIN alice@lab.test sesame").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    (upstream, deltapush, client)
}

#[tokio::test]
async fn id_before_the_login_reaches_a_server_that_takes_it_only_after() {
    let dialogue = "
        S: * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] o2
        C~ dp1 ID (\"name\" \"Chat\" \"x-via\" \"deltapush
        S: dp1 BAD not yet
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 ID] in
        C~ dp3 ID (\"name\" \"Chat\" \"x-via\" \"deltapush
        S: * ID (\"name\" \"o2\")
        S: dp3 OK done
        C~ c3 ID (\"name\" \"Chat\" \"x-via\" \"deltapush
        S: * ID (\"name\" \"o2\")
        S: c3 OK thank you
        C: c4 SELECT INBOX
        S: c4 NO [REFERRAL imap://two.example/] try two.example
        EOF
    ";
    let (upstream, _deltapush, mut client) = introduced(dialogue, "(\"name\" \"Chat\")").await;
    let reply = client.command("c3 ID (\"name\" \"Chat\")").await;
    assert_eq!(reply.text(), "* ID (\"name\" \"o2\")\nOK thank you");
    assert_eq!(client.command("c4 SELECT INBOX").await.text(), "\nNO try two.example");
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn server_that_hangs_up_on_an_id_that_it_did_not_offer_never_gets_one() {
    let dialogue = "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Purelymail
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1] in
        C: c4 NOOP
        S: c4 OK
        EOF
    ";
    let (upstream, _deltapush, mut client) = introduced(dialogue, "NIL").await;
    assert_eq!(
        client.command("c3 ID NIL").await.text(),
        "* ID (\"name\" \"deltapush\")\nOK ID completed"
    );
    client.send("c4 NOOP").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}
