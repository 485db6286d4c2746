//! News that a client has seen, and that was left to a kept session, which can tell nothing any more.

use std::time::Duration;

use super::super::keeping::{idle, register};
use super::super::support::client::Client;
use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::dovecot::{self, Setup};
use super::super::support::network::{Manner, Network};
use super::super::support::notify::NotifyServer;

const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test]
async fn new_mail_that_a_kept_session_misses_is_seen_in_the_clients_own() {
    let dovecot = dovecot::shared(Setup::WithoutNotify);
    let network = Network::start(dovecot.imaps).await;
    let mut notify = NotifyServer::start().await;
    let deltapush = Deltapush::start(&Options {
        upstream: format!("imaps://localhost:{}", network.port),
        notify_url: notify.url.clone(),
        credentials: "none",
        more: "keep:\n  hand_back: false\n".to_owned(),
        ..Options::dovecot(dovecot)
    });
    let user = dovecot.user("faults-left");
    let log_in = async |token: &str| {
        let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
        client.log_in(&user).await;
        register(&mut client, token).await;
        client
    };
    let mut away = log_in("openpgp:away").await;
    idle(&mut away).await;
    drop(away);
    dovecot.wait_for_watch(&user, 1).await;
    // The kept session's connection is dead, and nobody knows.
    network.present(Manner::BlackHole);
    let mut here = log_in("openpgp:here").await;
    here.command("c3 SELECT INBOX").await;
    dovecot.deliver_news(&user, "news").await;
    let fetch = "UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED)])";
    let heard = here.command("c5 NOOP").await;
    assert!(heard.text().contains("* 1 EXISTS"), "{heard:?}");
    here.command(&format!("c6 {fetch}")).await;
    notify.stays_at(0, Duration::from_secs(1)).await;
    // Now nobody needs the kept session any more.
    here.send("c7 IDLE").await;
    here.expect_prefix("+").await;
    let posted = notify.wait_for(1, PATIENCE).await;
    assert_eq!(posted[0].token, "openpgp:away");
}
