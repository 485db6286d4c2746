//! What a client hears through deltapush of the oddities that [`providers`](super::providers) plays to the watch: the server's
//! own words, byte for byte.

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::scripted::Scripted;

const PLAIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
";

/// After the login the client sends `command`, and the upstream's `lines` are what it hears.
async fn hears(login: &str, command: &str, lines: &[&str], end: &str) {
    let said: String = lines.iter().map(|line| format!("S: {line}\n")).collect();
    let upstream = Scripted::start(&[&format!("{login}C: {command}\n{said}{end}")]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let reply = client.command("c1 LOGIN alice@lab.test sesame").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    client.send(command).await;
    for line in lines {
        client.expect(line).await;
    }
    if end == "CLOSE" {
        assert_eq!(client.expect_eof().await, "");
    }
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn odd_answers_reach_the_client_as_they_are() {
    tokio::join!(
        hears(PLAIN, "c2 IDLE", &["+ idling", "* BYE Connection is closed. 13"], "CLOSE"),
        hears(PLAIN, "c2 SELECT INBOX", &["c2 BAD User is authenticated but not connected."], "EOF"),
        hears(PLAIN, "c2 IDLE", &["* 5 EXISTS", "+ IDLE accepted, awaiting DONE command."], "EOF"),
        hears(PLAIN, "c2 IDLE", &["c2 BAD [CLIENTBUG] Unknown command"], "EOF"),
        hears(PLAIN, "c2 SELECT INBOX", &["c2 NO SELECT Unsafe Login"], "EOF"),
        hears(PLAIN, "c2 NOOP", &["c2 OK"], "EOF"),
        hears(PLAIN, "c2 NOOP", &["* BYE"], "CLOSE"),
        hears(PLAIN, "c2 FETCH 1 FLAGS", &["c2 NO [OVERQUOTA] Account exceeded bandwidth limits. (Failure)"], "EOF"),
        hears(PLAIN, "c2 IDLE", &["+", "* 5 EXISTS", "* 1 RECENT"], "EOF"),
    );
}

/// A server that says its sessions are used up, or that it is asked too often, is not taken for one that refuses a password.
#[tokio::test]
async fn a_limit_at_the_login_is_the_servers_word() {
    for answer in [
        "NO [LIMIT] Too many concurrent IMAP connections.",
        "NO [ALERT] Too many simultaneous connections. (Failure)",
        "NO [LIMIT] Rate limit hit",
        "NO [LIMIT] Too many logins",
    ] {
        let refused = format!("S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\nLOGIN\nS: <tag> {answer}\nEOF");
        let upstream = Scripted::start(&[&refused]).await;
        let deltapush = Deltapush::start(&Options::plain(upstream.port));
        let mut client = Client::plain(deltapush.plain).await;
        client.expect_prefix("* OK").await;
        assert_eq!(client.command("c1 LOGIN alice@lab.test sesame").await.result, answer);
        drop(client);
        upstream.finish().await;
    }
}
