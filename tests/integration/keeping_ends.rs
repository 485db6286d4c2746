//! Ends of clients and sessions where sessions are kept: by a broken connection, by silence, and all at once.

use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::keeping::{idle, register, scene_with, status_says, waiting};
use super::support::client::quoted;
use super::support::dovecot::{PASSWORD, Setup};
use super::support::poll;
use super::support::scene::{PATIENCE, QUIET};

/// A probe that is not answered leads to an error of the socket, as here: nobody has said goodbye.
#[tokio::test]
async fn client_whose_connection_breaks_leaves_its_session_behind() {
    let mut scene = scene_with(Setup::Vanilla, "kept-broken", |_| ()).await;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, scene.deltapush.plain)).await.unwrap();
    let mut stream = BufReader::new(stream);
    let dialogue = format!(
        "c1 LOGIN {} {}\r\nc2 SETMETADATA INBOX (/private/devicetoken \"openpgp:broken\")\r\nc3 SELECT INBOX\r\nc4 IDLE\r\n",
        scene.user,
        quoted(PASSWORD)
    );
    stream.get_mut().write_all(dialogue.as_bytes()).await.unwrap();
    let mut line = String::new();
    while !line.starts_with("+ ") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "it hangs up");
    }
    SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    let reason = "session ended: the client disconnected: Connection reset by peer";
    assert!(poll(PATIENCE, || scene.deltapush.log().contains(reason)).await);
    status_says(&scene, "watch    watching").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:broken"]).await;
    scene.dovecot.expect_logins(&scene.user, 1).await;
}

#[tokio::test]
async fn client_that_says_nothing_for_too_long_leaves_its_session_behind() {
    let mut scene = scene_with(Setup::Vanilla, "kept-silent", |options| {
        options.more = "limits:\n  idle_time: 2s\n".to_owned();
    })
    .await;
    let mut client = scene.client().await;
    register(&mut client, "openpgp:silent").await;
    idle(&mut client).await;
    client.expect_prefix("* BYE").await;
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:silent"]).await;
    scene.dovecot.expect_logins(&scene.user, 1).await;
    assert_eq!(scene.dovecot.who(&scene.user), 1, "one session");
}

#[tokio::test]
async fn after_a_restart_accounts_are_called_one_after_the_other() {
    let mut scene = scene_with(Setup::Vanilla, "kept-paced", |options| {
        options.more = "keep:\n  calls: 1/h\n".to_owned();
    })
    .await;
    drop(waiting(&scene, "openpgp:paced-0").await);
    let other = scene.dovecot.user("kept-paced-other");
    let mut client = scene.connect().await;
    client.log_in(&other).await;
    register(&mut client, "openpgp:paced-1").await;
    drop(client);
    for user in [&scene.user, &other] {
        scene.dovecot.wait_for_watch(user, 1).await;
    }
    scene.deltapush.restart();
    let is_due =
        |status: &str| status.matches("waiting for a device: deltapush was restarted").count() == 2;
    assert!(
        poll(PATIENCE, || is_due(&scene.deltapush.status())).await,
        "{}",
        scene.deltapush.status()
    );
    scene.notify.wait_for(1, PATIENCE).await;
    // The other one's turn is in an hour.
    scene.notify.stays_at(1, QUIET).await;
}
