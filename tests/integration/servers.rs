//! Real servers besides Dovecot, as Debian ships them: a session through deltapush, a push, and a restart of the server.

use std::time::Duration;

use super::support::client::{Client, quoted};
use super::support::deltapush::{Deltapush, Options};
use super::support::notify::NotifyServer;
use super::support::poll;
use super::support::server::RealServer;
use super::support::smoothing::without_time;

/// Courier's IDLE, as Debian configures it, looks once a minute.
const PATIENCE: Duration = Duration::from_secs(75);

async fn client(deltapush: &Deltapush, user: &str) -> Client {
    let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    client.log_in(user).await;
    client
}

/// The bytes that come for news within an IDLE; other lines before them are the server's affair.
async fn idles_until(client: &mut Client, line: &str) {
    let seen = tokio::time::timeout(PATIENCE, async {
        while client.patient_line(PATIENCE).await != line {}
    })
    .await;
    assert!(seen.is_ok(), "no {line:?}:\n{}", client.dialogue());
}

/// A client at work, whose mailbox looks from outside as it looked to the client.
async fn relays_a_session(server: &RealServer, name: &str) {
    let deltapush = Deltapush::start(&server.options());
    let user = server.user(name);
    let mut client = client(&deltapush, &user).await;
    let body = format!("Subject: by a client\r\n\r\n{}", "line {7}\r\n".repeat(5_000));
    client.send(&format!("c2 APPEND INBOX (\\Flagged) {{{}}}", body.len())).await;
    client.expect_prefix("+").await;
    client.send(&body).await;
    assert!(client.until_tagged("c2").await.result.starts_with("OK"), "{}", client.dialogue());
    assert!(
        client.command("c3 SELECT INBOX").await.result.starts_with("OK"),
        "{}",
        client.dialogue()
    );
    client.send("c4 IDLE").await;
    client.expect_prefix("+").await;
    server.deliver_news(&user).await;
    idles_until(&mut client, "* 2 EXISTS").await;
    client.send("DONE").await;
    assert!(client.until_tagged("c4").await.result.starts_with("OK"), "{}", client.dialogue());
    let stored = client.command("c5 STORE 2 +FLAGS (\\Seen \\Answered)").await;
    assert!(stored.result.starts_with("OK"), "{stored:?}");
    assert!(
        client.command("c6 CREATE INBOX.Family").await.result.starts_with("OK"),
        "{}",
        client.dialogue()
    );
    assert!(
        client.command("c7 COPY 1 INBOX.Family").await.result.starts_with("OK"),
        "{}",
        client.dialogue()
    );

    // Selecting anew would say that the old selection is closed, to the one and not to the other.
    let mut client = self::client(&deltapush, &user).await;
    let mut direct = server.direct(&user).await;
    for command in [
        "d2 SELECT INBOX",
        "d3 FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[])",
        "d4 UID SEARCH ALL",
        "d5 LIST \"\" *",
        "d6 STATUS INBOX.Family (MESSAGES UIDNEXT UIDVALIDITY)",
    ] {
        let (through, directly) =
            (client.command(command).await.text(), direct.command(command).await.text());
        // Each session counts its own new messages.
        let plain = |text: &str| {
            text.replace(" \\Recent", "").replace("\\Recent ", "").replace("\\Recent", "")
        };
        let lines = |text: &str| -> Vec<String> {
            let lines = without_time(&plain(text));
            let kept =
                lines.lines().filter(|line| !line.ends_with("RECENT") && !line.contains("UNSEEN"));
            kept.map(str::to_owned).collect()
        };
        assert_eq!(lines(&through), lines(&directly), "{command}");
    }
    assert!(client.dialogue().contains("line {7}"), "nothing was fetched");
    client.send("c9 LOGOUT").await;
    client.expect_prefix("* BYE").await;
    assert!(client.until_tagged("c9").await.result.starts_with("OK"), "{}", client.dialogue());
}

/// A token handed over, mail that wakes, the server gone for a while, and mail that wakes again.
async fn wakes_a_phone_and_again_after_a_restart(mut server: RealServer, name: &str) {
    let mut notify = NotifyServer::start().await;
    let deltapush =
        Deltapush::start(&Options { notify_url: notify.url.clone(), ..server.options() });
    let user = server.user(name);
    let mut phone = client(&deltapush, &user).await;
    let capabilities = phone.command("c2 CAPABILITY").await.text();
    for word in ["METADATA", "XDELTAPUSH", "IDLE"] {
        assert!(
            capabilities.split([' ', '\n']).any(|there| there == word),
            "no {word} in {capabilities}"
        );
    }
    let set = phone
        .command(&format!(
            "c3 SETMETADATA INBOX (/private/devicetoken {})",
            quoted("openpgp:phone")
        ))
        .await;
    assert!(set.result.starts_with("OK"), "{set:?}");
    // Courier writes the mailbox's UIDVALIDITY down at the first SELECT; what only EXAMINEs sees another each time.
    assert!(
        phone.command("c4 SELECT INBOX").await.result.starts_with("OK"),
        "{}",
        phone.dialogue()
    );
    drop(phone);
    is_watched(&deltapush).await;
    server.deliver_news(&user).await;
    assert_eq!(notify.wait_for(1, PATIENCE).await[0].token, "openpgp:phone");
    if let Some(sessions) = server.sessions(&user) {
        assert!(
            sessions.iter().any(|said| said.contains("EXAMINE")),
            "the watch used SELECT: {sessions:#?}"
        );
    }

    server.stop();
    let noticed = poll(PATIENCE, || !deltapush.status().contains("watch    watching")).await;
    assert!(noticed, "{}", deltapush.status());
    server.start_again();
    // As a rule before the watch is back: then it is the first look that finds it.
    server.deliver_news(&user).await;
    notify.wait_for(2, PATIENCE).await;
    is_watched(&deltapush).await;
    assert_eq!(notify.posted().len(), 2, "what was pushed before is pushed again");
    let mut again = client(&deltapush, &user).await;
    assert!(
        again.command("c2 SELECT INBOX").await.text().contains("* 2 EXISTS"),
        "{}",
        again.dialogue()
    );
}

async fn is_watched(deltapush: &Deltapush) {
    let watched = poll(PATIENCE, || deltapush.status().contains("watch    watching")).await;
    assert!(watched, "{}", deltapush.status());
}

#[tokio::test]
async fn cyrus_wakes_a_phone_and_again_after_a_restart() {
    wakes_a_phone_and_again_after_a_restart(RealServer::cyrus(), "phone").await;
}

#[tokio::test]
async fn courier_wakes_a_phone_and_again_after_a_restart() {
    wakes_a_phone_and_again_after_a_restart(RealServer::courier(), "phone").await;
}

#[tokio::test]
async fn dovecot_wakes_a_phone_and_again_after_a_restart() {
    wakes_a_phone_and_again_after_a_restart(RealServer::dovecot(), "phone").await;
}

#[tokio::test]
async fn cyrus_serves_a_client_through_deltapush() {
    relays_a_session(&RealServer::cyrus(), "worker").await;
}

#[tokio::test]
async fn courier_serves_a_client_through_deltapush() {
    relays_a_session(&RealServer::courier(), "worker").await;
}

#[tokio::test]
async fn dovecot_serves_a_client_through_deltapush() {
    relays_a_session(&RealServer::dovecot(), "worker").await;
}
