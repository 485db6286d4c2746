//! SIGTERM: everybody hears of it, nothing is lost, and it is soon over.

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::Setup;
use super::support::poll;
use super::support::scene::{DovecotScene, PATIENCE};
use super::support::scripted::Scripted;

#[tokio::test(flavor = "multi_thread")]
async fn clients_hear_bye_and_watches_log_out() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "goodbye").await;
    scene.register("openpgp:goodbye").await;
    let mut idling = scene.client().await;
    idling.command("c2 SELECT INBOX").await;
    idling.send("c3 IDLE").await;
    idling.expect_prefix("+").await;
    let mut within_line = Client::plain(scene.deltapush.plain).await;
    within_line.expect_prefix("* OK").await;
    within_line.send_raw(b"c1 LOGIN al").await;
    let mut before_login = scene.connect().await;
    before_login.expect_prefix("* OK").await;
    let mut before_tls = Client::plain(scene.deltapush.starttls).await;
    before_tls.expect_prefix("* OK").await;
    // In a handshake there is nothing to be said, and one that never reads holds nothing up.
    let _silent = Client::plain(scene.deltapush.imaps).await;

    let status = tokio::task::block_in_place(|| scene.deltapush.terminate());
    assert!(status.success(), "{status}");
    assert!(!scene.deltapush.log().contains("some sessions did not end within"));
    for mut client in [idling, within_line, before_login, before_tls] {
        let last = client.expect_eof().await;
        assert_eq!(
            last,
            "* BYE [UNAVAILABLE] Deltapush is restarting. Your app connects again by itself.\r\n",
            "{}",
            client.dialogue()
        );
    }
    let log = || scene.dovecot.log();
    let logged_out = |log: &str| {
        let of_user = log.lines().filter(|line| line.contains(&scene.user));
        of_user.filter(|line| line.contains("Logged out")).count()
    };
    poll(PATIENCE, || logged_out(&log()) >= 1).await;
    assert_eq!(logged_out(&log()), 1, "{}", log());
    let watch = scene.dovecot.watches(&scene.user).pop().unwrap();
    assert!(watch.contains(" DONE") && watch.trim_end().ends_with("LOGOUT"), "{watch}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_server_that_does_not_answer_holds_the_end_up_for_seconds_only() {
    let upstream = Scripted::start(&[
        "S: * OK [CAPABILITY IMAP4rev1 IDLE] ready
         LOGIN
         S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
         EOF",
        "S: * OK [CAPABILITY IMAP4rev1 IDLE] ready
         LOGIN
         S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
         C: <tag> EXAMINE \"INBOX\"
         S: * 0 EXISTS
         S: * OK [UIDVALIDITY 1] valid
         S: * OK [UIDNEXT 1] next
         S: <tag> OK done
         C: <tag> IDLE
         S: + idling
         REACHED
         HANG",
    ])
    .await;
    let mut deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    client.command("c1 LOGIN alice@lab.test sesame").await;
    let reply =
        client.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:hang\")").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    drop(client);
    upstream.reached().await;
    // The watch gives up by itself; the server's silence is not what ends it.
    let status = tokio::task::block_in_place(|| deltapush.terminate());
    assert!(status.success(), "{status}");
    assert!(!deltapush.log().contains("some sessions did not end within"));
}
