//! Oddities that [`providers`](super::providers) plays to the watch, as a client hears them through deltapush: the server's
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
async fn receives(login: &str, command: &str, lines: &[&str], end: &str) {
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
        receives(PLAIN, "c2 IDLE", &["+ idling", "* BYE Connection is closed. 13"], "CLOSE"),
        receives(
            PLAIN,
            "c2 SELECT INBOX",
            &["c2 BAD User is authenticated but not connected."],
            "EOF"
        ),
        receives(
            PLAIN,
            "c2 IDLE",
            &["* 5 EXISTS", "+ IDLE accepted, awaiting DONE command."],
            "EOF"
        ),
        receives(PLAIN, "c2 IDLE", &["c2 BAD [CLIENTBUG] Unknown command"], "EOF"),
        receives(PLAIN, "c2 SELECT INBOX", &["c2 NO SELECT Unsafe Login"], "EOF"),
        receives(PLAIN, "c2 NOOP", &["c2 OK"], "EOF"),
        receives(PLAIN, "c2 NOOP", &["* BYE"], "CLOSE"),
        receives(
            PLAIN,
            "c2 FETCH 1 FLAGS",
            &["c2 NO [OVERQUOTA] Account exceeded bandwidth limits. (Failure)"],
            "EOF"
        ),
        receives(PLAIN, "c2 IDLE", &["+", "* OK [ALERT] Still here"], "EOF"),
    );
}

/// A server that says its sessions are used up, or that it is asked too often, is not taken for one that refuses a password.
#[tokio::test]
async fn limit_at_the_login_is_the_servers_word() {
    for answer in [
        "NO [LIMIT] Too many concurrent IMAP connections.",
        "NO [ALERT] Too many simultaneous connections. (Failure)",
        "NO [LIMIT] Rate limit hit",
        "NO [LIMIT] Too many logins",
    ] {
        let refused = format!(
            "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\nLOGIN\nS: <tag> {answer}\nEOF"
        );
        let upstream = Scripted::start(&[&refused]).await;
        let deltapush = Deltapush::start(&Options::plain(upstream.port));
        let mut client = Client::plain(deltapush.plain).await;
        client.expect_prefix("* OK").await;
        assert_eq!(client.command("c1 LOGIN alice@lab.test sesame").await.result, answer);
        drop(client);
        upstream.finish().await;
    }
}

/// Gmail takes IDLE with nothing selected, and never says anything then: the connection must still live through a NAT.
#[tokio::test]
async fn gmail_idles_in_silence_with_nothing_selected() {
    let dialogue =
        format!("{PLAIN}C: c2 IDLE\nS: + idling\nC: DONE\nS: c2 OK IDLE terminated (Success)\nEOF");
    let upstream = Scripted::start(&[&dialogue]).await;
    let mut options = Options::plain(upstream.port);
    options.more = "relay:\n  keepalive: 1s\n".to_owned();
    let deltapush = Deltapush::start(&options);
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert!(client.command("c1 LOGIN alice@lab.test sesame").await.result.starts_with("OK"));
    client.send("c2 IDLE").await;
    client.expect("+ idling").await;
    for _ in 0..2 {
        client.expect("* OK Still here").await;
    }
    client.send("DONE").await;
    assert_eq!(client.until_tagged("c2").await.result, "OK IDLE terminated (Success)");
    drop(client);
    upstream.finish().await;
}

/// 163.com opens a mailbox only to a client that has said who it is after its login: deltapush says it for one that does not.
#[tokio::test]
async fn netease_hears_who_asks_before_a_client_opens_a_mailbox() {
    let dialogue = "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Coremail
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 IDLE ID] LOGIN completed
        C~ dp2 ID (\"name\" \"deltapush\"
        S: * ID (\"name\" \"Coremail\")
        S: dp2 OK ID completed
        C: c2 SELECT INBOX
        S: * 0 EXISTS
        S: c2 OK [READ-WRITE] SELECT completed
        EOF
    ";
    let upstream = Scripted::start(&[dialogue]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert!(client.command("c1 LOGIN alice@lab.test sesame").await.result.starts_with("OK"));
    assert_eq!(
        client.command("c2 SELECT INBOX").await.text(),
        "* 0 EXISTS\nOK [READ-WRITE] SELECT completed"
    );
    drop(client);
    upstream.finish().await;
}

/// iCloud has a push service for Apple's own program, and METADATA without a push of Delta Chat's: both go their ways.
#[tokio::test]
async fn icloud_keeps_its_own_push_service_beside_deltapushs() {
    let login = r#"
        S: * OK [CAPABILITY st62p00im IMAP4 IMAP4rev1 SASL-IR AUTH=ATOKEN AUTH=PLAIN] (1) iCloud
        LOGIN
        S: <tag> OK [CAPABILITY IMAP4rev1 IDLE METADATA CONDSTORE QRESYNC XAPPLEPUSHSERVICE] in
    "#;
    let client = format!(
        r#"{login}
        C~ dp2 GETMETADATA "" (
        S: dp2 BAD Parse Error
        C: c2 XAPPLEPUSHSERVICE "aps-version" "2" mailboxes (INBOX)
        S: * XAPPLEPUSHSERVICE "aps-version" "2" "aps-topic" "com.apple.mail"
        S: c2 OK
        EOF"#
    );
    let watch = format!(
        r#"{login}
        C: w1 EXAMINE "INBOX"
        S: * 0 EXISTS
        S: * OK [UIDVALIDITY 7]
        S: * OK [UIDNEXT 10]
        S: w1 OK
        C: w2 IDLE
        S: + idling
        REACHED
        EOF"#
    );
    let upstream = Scripted::start(&[&client, &watch]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let reply = client.command("c1 LOGIN alice@lab.test sesame").await;
    assert!(
        reply.result.contains("METADATA CONDSTORE QRESYNC XAPPLEPUSHSERVICE XDELTAPUSH COMPRESS"),
        "{reply:?}"
    );
    let pushes =
        client.command("c2 XAPPLEPUSHSERVICE \"aps-version\" \"2\" mailboxes (INBOX)").await;
    assert_eq!(
        pushes.text(),
        "* XAPPLEPUSHSERVICE \"aps-version\" \"2\" \"aps-topic\" \"com.apple.mail\"\nOK"
    );
    let set = client.command("c3 SETMETADATA INBOX (/private/devicetoken \"openpgp:alice\")").await;
    assert_eq!(set.result, "OK SETMETADATA completed");
    upstream.reached().await;
    drop((client, deltapush));
    upstream.finish().await;
}
