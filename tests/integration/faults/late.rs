//! Mail that comes after a device was registered, and before its mailbox could be looked at for the first time.

use std::time::Duration;

use super::super::support::client::Client;
use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::dovecot::{self, Setup};
use super::super::support::network::{Manner, Network};
use super::super::support::notify::NotifyServer;

const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test]
async fn mail_before_the_first_catch_up_is_announced() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let network = Network::start(dovecot.imaps).await;
    let mut notify = NotifyServer::start().await;
    let options = Options {
        upstream: format!("imaps://localhost:{}", network.port),
        notify_url: notify.url.clone(),
        ..Options::dovecot(dovecot)
    };
    let mut deltapush = Deltapush::start(&options);
    let user = dovecot.user("faults-late");
    let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    client.log_in(&user).await;
    // Its own session stays, the watcher's does not come about.
    network.reachable(false);
    let reply =
        client.command(r#"c2 SETMETADATA INBOX (/private/devicetoken "openpgp:late")"#).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    dovecot.deliver_news(&user, "early").await;
    network.present(Manner::Reset);
    deltapush.kill();
    network.heal();
    deltapush.start_again();
    let posted = notify.wait_for(1, PATIENCE).await;
    assert_eq!(posted[0].token, "openpgp:late");
}
