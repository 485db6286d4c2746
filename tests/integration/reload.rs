//! A configuration that changes while deltapush runs, and clients that a load balancer announces.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Setup};
use super::support::poll;
use super::support::ports::ReservedPort;
use super::support::scene::{DovecotScene, PATIENCE};

async fn expect(deltapush: &Deltapush, words: &str) {
    let said = poll(Duration::from_secs(40), || deltapush.log().contains(words)).await;
    assert!(said, "{words} is not in the log:\n{}", deltapush.log());
}

const TAKEN: &str = "the configuration was read again and is in effect";

#[tokio::test]
async fn routes_limits_and_the_log_change_and_no_session_is_dropped() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let deltapush = Deltapush::start(&Options::dovecot(dovecot));
    let user = dovecot.user("reload");
    let mut session = Client::plain(deltapush.plain).await;
    session.log_in(&user).await;
    let domain = user.rsplit_once('@').unwrap().1;

    deltapush.reconfigure(|text| {
        text.replace("domain: \"*\"", "domain: other.example")
            .replace("level: info,deltapush=debug", "level: info,deltapush::login=warn")
            .to_owned()
            + "limits:\n  connections: 2\n"
    });
    expect(&deltapush, TAKEN).await;
    let before = deltapush.log();
    let mut refused = Client::plain(deltapush.plain).await;
    refused.expect_prefix("* OK").await;
    let reply = refused.command(&format!("c1 LOGIN {user} x")).await;
    assert!(reply.result.contains("This server is not set up for this address"), "{reply:?}");
    // The third is one too many: who is not logged in has to go for it.
    let mut third = Client::plain(deltapush.plain).await;
    third.expect_prefix("* OK").await;
    refused.expect_prefix("* BYE [UNAVAILABLE] Too many connections").await;
    assert!(session.command("c2 NOOP").await.result.starts_with("OK"));
    assert_eq!(deltapush.log(), before, "at this level these say nothing");

    deltapush.reconfigure(|text| {
        text.replace("other.example", domain).replace("connections: 2", "connections: 3")
    });
    let taken = || deltapush.log().matches(TAKEN).count() == 2;
    assert!(poll(Duration::from_secs(40), taken).await, "{}", deltapush.log());
    Client::plain(deltapush.plain).await.log_in(&user).await;
    assert!(session.command("c3 NOOP").await.result.starts_with("OK"));
}

#[tokio::test]
async fn broken_configuration_is_refused_with_its_place() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let deltapush = Deltapush::start(&Options::dovecot(dovecot));
    let user = dovecot.user("reload-broken");
    deltapush.reconfigure(|text| text.replace("hostname: localhost", "hostnam: localhost"));
    expect(&deltapush, "the new configuration is not valid, deltapush keeps the previous one:")
        .await;
    expect(&deltapush, "config.yaml:2:1: unknown field `hostnam`").await;
    Client::plain(deltapush.plain).await.log_in(&user).await;

    // A file that it names, and does not serve.
    deltapush.reconfigure(|text| {
        text.replace("hostnam:", "hostname:").replace("\n    ca: ", "\n    ca: /nonexistent")
    });
    expect(&deltapush, "cannot be read: there is no such file or folder").await;
    Client::plain(deltapush.plain).await.log_in(&user).await;

    // Changes that need a restart.
    deltapush.reconfigure(|text| {
        text.replace("/nonexistent", "")
            .replace("coalesce: 300ms", "coalesce: 5s")
            .replace("directory: state", "directory: s")
    });
    expect(&deltapush, TAKEN).await;
    expect(&deltapush, "`storage` has changed in the configuration: restart deltapush to apply it")
        .await;
    expect(
        &deltapush,
        "`push.notify_url, ca, contact, coalesce, max_in_flight or max_per_second` has changed",
    )
    .await;
    assert!(!deltapush.log().contains("of listeners` has changed"));
    Client::plain(deltapush.plain).await.log_in(&user).await;
}

#[tokio::test]
async fn watch_whose_route_has_gone_waits_until_it_is_there_again() {
    let scene = DovecotScene::new(Setup::Vanilla, "route-gone").await;
    let mut client = scene.client().await;
    client.command("c2 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:route\")").await;
    let status = |scene: &DovecotScene, wanted: &str| scene.deltapush.status().contains(wanted);
    assert!(
        poll(PATIENCE, || status(&scene, "watch    watching")).await,
        "{}",
        scene.deltapush.status()
    );
    scene.deltapush.reconfigure(|text| text.replace("imaps://localhost:", "imaps://127.0.0.1:"));
    expect(&scene.deltapush, TAKEN).await;
    // The watch restarts with another mailbox, and finds no way.
    client.command("c3 CREATE Other").await;
    client.command("c4 SELECT Other").await;
    client.send("c5 IDLE").await;
    client.expect_prefix("+").await;
    expect(&scene.deltapush, "account not watched until one does").await;
    assert!(
        poll(PATIENCE, || status(&scene, "add a route to its mail server to the configuration"))
            .await,
        "{}",
        scene.deltapush.status()
    );
    scene.deltapush.reconfigure(|text| text.replace("imaps://127.0.0.1:", "imaps://localhost:"));
    assert!(
        poll(PATIENCE, || status(&scene, "watch    watching")).await,
        "{}",
        scene.deltapush.status()
    );
}

#[tokio::test]
async fn listener_settings_are_reloaded_except_its_socket() {
    let deltapush = Deltapush::start(&Options::plain(9));
    deltapush.reconfigure(|text| {
        text.replace("tls: starttls", "tls: starttls\n    allow: { networks: [192.0.2.0/24] }")
    });
    expect(&deltapush, TAKEN).await;
    let mut refused = TcpStream::connect(("127.0.0.1", deltapush.starttls)).await.unwrap();
    assert!(timeout(Duration::from_secs(40), refused.read_u8()).await.unwrap().is_err());
    Client::plain(deltapush.plain).await.expect_prefix("* OK").await;
    assert!(!deltapush.log().contains("of listeners` has changed"));

    let reserved = ReservedPort::new();
    let other = format!("127.0.0.1:{}", reserved.number());
    deltapush.reconfigure(|text| text.replace(&format!("127.0.0.1:{}", deltapush.plain), &other));
    expect(&deltapush, "`address or tls of listeners` has changed in the configuration: restart deltapush to apply it")
        .await;
    Client::plain(deltapush.plain).await.expect_prefix("* OK").await;
    assert!(TcpStream::connect(&other).await.is_err());
}

#[tokio::test]
async fn connection_without_a_proxy_header_takes_a_slot_before_the_login() {
    let more = "limits:\n  before_login: 3\n".to_owned();
    let options = Options { listener: "proxy_protocol: [127.0.0.1]", more, ..Options::plain(9) };
    let deltapush = Deltapush::start(&options);
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(("127.0.0.1", deltapush.imaps)).await.unwrap());
    }
    expect(
        &deltapush,
        "connection refused: too many connections wait for their PROXY protocol header",
    )
    .await;
    // Other listeners do not notice.
    Client::plain(deltapush.plain).await.expect_prefix("* OK").await;
    // Nor do those that come after these have been cut.
    expect(&deltapush, "no PROXY protocol header came in time").await;
    let last = silent.last_mut().unwrap();
    assert!(timeout(Duration::from_secs(40), last.read_u8()).await.unwrap().is_err());
    // One of them is cut; the slots of the others may be free a little later.
    let end = Instant::now() + Duration::from_secs(40);
    let mut tried = Vec::new();
    while !deltapush.log().contains("peer=203.0.113.9:4711") {
        assert!(Instant::now() < end, "no slot is free again:\n{}", deltapush.log());
        let mut tcp = TcpStream::connect(("127.0.0.1", deltapush.imaps)).await.unwrap();
        // It may be refused by now.
        let _ = tcp.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 993\r\n").await;
        tried.push(tcp);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn announced_address_counts_and_only_the_named_may_announce() {
    let options = Options { listener: "proxy_protocol: [127.0.0.1]", ..Options::plain(9) };
    let deltapush = Deltapush::start(&options);
    let headers = [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 993\r\n".to_vec(),
        [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
            &[203, 0, 113, 8, 192, 0, 2, 1, 0x12, 0x67, 3, 0xe1],
        ]
        .concat(),
    ];
    for (header, peer) in headers.iter().zip(["peer=203.0.113.7:4711", "peer=203.0.113.8:4711"]) {
        let mut tcp = TcpStream::connect(("127.0.0.1", deltapush.imaps)).await.unwrap();
        tcp.write_all(header).await.unwrap();
        let config = super::support::certs::client_config(&deltapush.certificate());
        let name = tokio_rustls::rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap();
        assert!(super::support::tls::line(&mut stream).await.starts_with("* OK"));
        expect(&deltapush, peer).await;
    }
    // Without a header: no TLS, and no waiting for it either.
    let mut tcp = TcpStream::connect(("127.0.0.1", deltapush.imaps)).await.unwrap();
    tcp.write_all(b"\x16\x03\x01 this is no header").await.unwrap();
    let ended = timeout(Duration::from_secs(40), tcp.read_u8()).await.expect("it is cut");
    assert!(ended.is_err());
    expect(&deltapush, "the connection does not begin with a PROXY protocol header").await;
    // Nothing at all: cut after a while.
    let mut tcp = TcpStream::connect(("127.0.0.1", deltapush.imaps)).await.unwrap();
    assert!(timeout(Duration::from_secs(40), tcp.read_u8()).await.expect("it is cut").is_err());

    let options = Options {
        listener: "proxy_protocol: [10.0.0.0/8, \"2001:db8::/32\"]",
        ..Options::plain(9)
    };
    let deltapush = Deltapush::start(&options);
    let mut tcp = TcpStream::connect(("127.0.0.1", deltapush.imaps)).await.unwrap();
    let _ = tcp.write_all(&headers[0]).await;
    assert!(tcp.read_u8().await.is_err());
    expect(
        &deltapush,
        "connection refused: no network of `proxy_protocol` contains the load balancer's address",
    )
    .await;
}
