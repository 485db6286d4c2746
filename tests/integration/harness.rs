//! The harness itself, without deltapush: what the other tests lean on holds, and a fixture that is wrong is told apart
//! from a proxy that is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::support::certs::Authority;
use super::support::client::{Client, quoted};
use super::support::core::{Core, Submission, Version};
use super::support::dovecot::{self, PASSWORD, Setup};
use super::support::poll;
use super::support::ports::ReservedPort;
use super::support::scripted::{Manner, Scripted};

#[test]
fn reserved_port_is_open_to_one_server_and_closed_without_it() {
    let port = ReservedPort::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    assert!(TcpStream::connect(address).is_err());
    // std sets SO_REUSEADDR.
    let server = TcpListener::bind(address).unwrap();
    TcpStream::connect(address).unwrap();
    assert!(TcpListener::bind(address).is_err());
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    TcpListener::bind(address).unwrap();
}

#[tokio::test]
async fn dovecot_serves_tls_starttls_and_plain() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let user = dovecot.user("direct-tls");
    Client::tls(dovecot.imaps, &dovecot.authority.ca).await.log_in(&user).await;
    Client::plain(dovecot.imap).await.log_in(&user).await;
    let mut client = Client::starttls(dovecot.imap, &dovecot.authority.ca).await;
    let reply = client.command(&format!("c1 LOGIN {user} {}", quoted(PASSWORD))).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    dovecot.expect_logins(&user, 3).await;
}

#[tokio::test]
async fn dovecot_tells_of_mail_delivered_by_lmtp() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let user = dovecot.user("direct-idle");
    let mut client = Client::plain(dovecot.imap).await;
    client.log_in(&user).await;
    client.command("c2 EXAMINE INBOX").await;
    client.send("c3 IDLE").await;
    client.expect_prefix("+").await;
    dovecot.wait_for_watch(&user, 1).await;
    dovecot.deliver_news(&user, "news").await;
    client.expect("* 1 EXISTS").await;
    assert_eq!(dovecot.watches(&user).len(), 1);
}

#[tokio::test]
async fn dovecots_set_ups_differ_in_what_they_advertise() {
    for (setup, metadata, push, notify) in [
        (Setup::Vanilla, false, false, true),
        (Setup::Metadata, true, false, true),
        (Setup::Chatmail, true, true, true),
        (Setup::WithoutNotify, false, false, false),
    ] {
        let dovecot = dovecot::shared(setup);
        let mut client = Client::plain(dovecot.imap).await;
        client.log_in(&dovecot.user("direct-setups")).await;
        let capabilities = client.command("c2 CAPABILITY").await.text();
        assert_eq!(capabilities.contains(" METADATA"), metadata, "{capabilities}");
        assert_eq!(capabilities.contains(" XDELTAPUSH"), push, "{capabilities}");
        assert_eq!(capabilities.contains(" NOTIFY"), notify, "{capabilities}");
    }
}

#[tokio::test]
async fn core_hands_its_token_to_a_server_that_pushes() {
    let dovecot = dovecot::shared(Setup::Chatmail);
    let submission = Submission::start(dovecot).await;
    let user = dovecot.user("direct-token");
    let mut core = Core::start(Version::WithToken).await;
    core.add_account(&user, dovecot.imaps, submission.port).await;
    core.call("start_io_for_all_accounts", serde_json::json!([])).await;
    let said = || dovecot.sessions(&user).concat();
    let wanted = r#"SETMETADATA "INBOX" (/private/devicetoken {"#;
    assert!(poll(Duration::from_secs(40), || said().contains(wanted)).await, "{}", said());
    assert!(said().contains("openpgp:"), "{}", said());
    core.kill().await;
}

#[tokio::test]
async fn cores_chat_when_directly_connected() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    for version in [Version::WithToken, Version::Current] {
        super::cores::chat(
            version,
            dovecot,
            dovecot.imaps,
            &format!("direct-{version:?}").to_lowercase(),
        )
        .await;
    }
}

const DIALOGUE: &str = r"
    S: * OK hello
    CAPS IMAP4rev1
    LOGIN
    S: <tag> OK
    C: c2 NOOP
    S= c2 OK\r\n
    C= raw\0\xff
";

#[tokio::test]
async fn scripted_dialogue_plays_over_tls_and_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let manner = Manner { bytewise: true, tls: Some(authority.server_config()) };
    let server = Scripted::start_with(manner, &[DIALOGUE, DIALOGUE, DIALOGUE]).await;
    for login in [
        "LOGIN alice@lab.test {6+}\r\nsesame",
        "LOGIN \"alice@lab.test\" \"sesame\"",
        "AUTHENTICATE PLAIN AGFsaWNlQGxhYi50ZXN0AHNlc2FtZQ==",
    ] {
        let mut client = Client::tls(server.port, &authority.ca).await.bytewise();
        client.expect("* OK hello").await;
        client.send("x1 CAPABILITY").await;
        client.expect("* CAPABILITY IMAP4rev1").await;
        client.expect("x1 OK done").await;
        client.send(&format!("x2 {login}")).await;
        client.expect("x2 OK").await;
        client.send("c2 NOOP").await;
        client.expect("c2 OK").await;
        client.send_raw(b"raw\0\xff").await;
    }
    server.finish().await;
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
#[should_panic(
    expected = ">> C: c2 NOOP\n   S= c2 OK\\r\\n\n   C= raw\\0\\xff\n   got \"c2 NOOP \""
)]
async fn scripted_dialogue_that_goes_otherwise_is_shown() {
    let server = Scripted::start(&[DIALOGUE]).await;
    let mut client = Client::plain(server.port).await;
    client.send("x2 LOGIN alice@lab.test sesame").await;
    client.expect("* OK hello").await;
    client.expect("x2 OK").await;
    client.send("c2 NOOP ").await;
    drop(client);
    server.finish().await;
}

#[tokio::test]
#[should_panic(expected = "one more than dialogues")]
async fn connection_too_many_is_a_failure() {
    let server = Scripted::start(&["S: * OK"]).await;
    for _ in 0..2 {
        Client::plain(server.port).await;
    }
    server.finish().await;
}
