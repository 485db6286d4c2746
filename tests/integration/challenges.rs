//! Certificates without port 443: challenges over HTTP, directly and behind a web server; certificates for IP addresses; and
//! renewals of those that live for days only.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::support::deltapush::{Deltapush, Options};
use super::support::pebble::{Pebble, ProofPorts};
use super::support::poll;
use super::support::ports::{ReservedPort, wait_for_port};
use super::support::server::program;
use super::support::tls::{handshake, is_alive, leaf, line, public_key, trusting};

const NAME: &str = "imap.example.org";
const PATIENCE: Duration = Duration::from_secs(40);

/// A deltapush that asks `pebble` for a certificate, with further keys of `acme`.
fn options(pebble: &Pebble, hostname: &'static str, acme: &str) -> Options {
    let directory = serde_json::json!(pebble.directory);
    let ca = serde_json::json!(pebble.ca);
    let certificate = format!(
        "acme:\n    terms_agreed: true\n    directory: {directory}\n    ca: {ca}\n    {acme}"
    );
    Options { hostname, certificate, ..Options::plain(9) }
}

/// Waits for the first certificate, and returns the root that it leads to.
async fn issued(deltapush: &Deltapush, pebble: &Pebble) -> PathBuf {
    let came = || deltapush.log().contains(", renewal due about ");
    assert!(poll(PATIENCE, came).await, "no certificate came\n{}", deltapush.log());
    pebble.root().await
}

/// A session that sees `count` renewals, and after each of them the same key in another certificate.
async fn sees_renewals(deltapush: &Deltapush, root: &Path, name: &str, count: usize) {
    let port = deltapush.imaps;
    let mut session = handshake(port, name, trusting(root, &[b"imap"])).await.unwrap();
    assert!(line(&mut session).await.starts_with("* OK"));
    let (mut last, key) = (leaf(&session), public_key(&leaf(&session)));
    for _ in 0..count {
        let mut shown = last.clone();
        for _ in 0..600 {
            shown = leaf(&handshake(port, name, trusting(root, &[])).await.unwrap());
            if shown != last {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_ne!(shown, last, "no renewal came\n{}", deltapush.log());
        assert_eq!(public_key(&shown), key, "Delta Chat remembers the key, and DANE publishes it");
        assert!(is_alive(&mut session).await, "a session outlives the renewal");
        last = shown;
    }
}

/// The answer to a request on loopback, with its head.
async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {NAME}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Connections from another address that say nothing.
async fn idle_strangers(port: u16, count: usize) -> Vec<TcpStream> {
    let mut strangers = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
        strangers.push(socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap());
    }
    strangers
}

#[tokio::test]
async fn own_port_for_http_proves_names_while_strangers_hold_connections() {
    let http = ReservedPort::new();
    let ports = ProofPorts::http(http.number());
    let pebble = Pebble::start_for(NAME, ports, Duration::from_secs(20));
    let acme = format!("http: 127.0.0.1:{}", http.number());
    let deltapush = Deltapush::start(&options(&pebble, NAME, &acme));
    let root = issued(&deltapush, &pebble).await;
    let _strangers = idle_strangers(http.number(), 200).await;
    sees_renewals(&deltapush, &root, NAME, 2).await;
    for path in
        ["/", "/.well-known/acme-challenge/x", "/.well-known/autoconfig/mail/config-v1.1.xml"]
    {
        let answer = get(http.number(), path).await;
        assert!(answer.starts_with("HTTP/1.0 404 "), "{path}: {answer}");
    }
    // Nothing of TLS-ALPN-01 is there.
    assert!(handshake(deltapush.imaps, NAME, trusting(&root, &[b"acme-tls/1"])).await.is_err());
}

/// The configuration of nginx in docs/certificates.md, with the address of this deltapush.
fn location_for_nginx(http: SocketAddr) -> String {
    let page = fs::read_to_string("docs/certificates.md").unwrap();
    let snippet = page.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next());
    let snippet = snippet.expect("the page has a configuration for nginx");
    assert!(snippet.contains("127.0.0.1:8080"), "{snippet}");
    snippet.replace("127.0.0.1:8080", &http.to_string())
}

/// nginx on a loopback port, with its master process in the foreground.
struct Nginx {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    fn start(port: u16, location: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("deltapush-nginx-").tempdir().unwrap();
        let file = folder.path().join("nginx.conf");
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path .;\nproxy_temp_path .;\nfastcgi_temp_path .;\nuwsgi_temp_path .;\n\
             scgi_temp_path .;\nserver {{\nlisten 127.0.0.1:{port};\nlocation / {{ return 301 https://$host$request_uri; }}\n\
             {location}\n}}\n}}\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        assert!(wait_for_port(port, PATIENCE), "nginx does not listen");
        Self { child, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM: its master ends the worker. Fails only if it has ended already.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn nginx_hands_challenges_on() {
    let (front, http) = (ReservedPort::new(), ReservedPort::new());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http.number()));
    let _nginx = Nginx::start(front.number(), &location_for_nginx(address));
    let ports = ProofPorts::http(front.number());
    let pebble = Pebble::start_for(NAME, ports, Duration::from_secs(3600));
    let deltapush = Deltapush::start(&options(&pebble, NAME, &format!("http: {address}")));
    let root = issued(&deltapush, &pebble).await;
    assert!(handshake(deltapush.imaps, NAME, trusting(&root, &[])).await.is_ok());
    let answer = get(front.number(), "/.well-known/acme-challenge/x").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("Server: nginx"), "{answer}");
    assert!(answer.contains("\r\n\r\nOnly challenges of a certificate authority"), "{answer}");
}

/// Clients that connect to an address name no host.
#[tokio::test]
async fn address_has_a_short_lived_certificate_that_is_renewed_while_sessions_go_on() {
    let reserved = ReservedPort::new();
    let ports = ProofPorts::tls(reserved.number());
    let pebble = Pebble::start_for_addresses(ports, Duration::from_secs(20));
    let options = options(&pebble, "127.0.0.1", "email: postmaster@example.org");
    let deltapush = Deltapush::start_on(reserved, &options);
    let root = issued(&deltapush, &pebble).await;
    sees_renewals(&deltapush, &root, "127.0.0.1", 2).await;
}

#[tokio::test]
async fn addresses_of_both_families_and_a_name_share_a_certificate() {
    let http = ReservedPort::new();
    let pebble =
        Pebble::start_for_addresses(ProofPorts::http(http.number()), Duration::from_secs(3600));
    let acme =
        format!("http: \"[::]:{}\"\n    names: [127.0.0.1, \"::1\", localhost]", http.number());
    let deltapush = Deltapush::start(&options(&pebble, "127.0.0.1", &acme));
    let root = issued(&deltapush, &pebble).await;
    for name in ["127.0.0.1", "::1", "localhost"] {
        let shown = handshake(deltapush.imaps, name, trusting(&root, &[])).await;
        assert!(shown.is_ok(), "{name}: {shown:?}");
    }
    assert!(handshake(deltapush.imaps, "127.0.0.2", trusting(&root, &[])).await.is_err());
    let check = deltapush.asked(&["check"]);
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(text.contains("for 127.0.0.1, ::1, localhost, with HTTP-01 at [::]:"), "{text}");
    assert!(!text.contains("expires at"), "a life of an hour is not near its end: {text}");
}

#[tokio::test]
async fn taken_port_is_told_with_its_cure_and_tried_again_after_a_reload() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let pebble =
        Pebble::start_for(NAME, ProofPorts::http(address.port()), Duration::from_secs(3600));
    let deltapush = Deltapush::start(&options(&pebble, NAME, &format!("http: {address}")));
    let told =
        format!("no certificate from localhost: cannot listen on {address} for its challenge: ");
    assert!(poll(PATIENCE, || deltapush.log().contains(&told)).await, "{}", deltapush.log());
    let log = deltapush.log();
    assert!(log.contains("; clients see a self-signed one, next attempt in 9m"), "{log}");
    assert!(log.contains("another program listens there"), "{log}");
    assert!(!log.contains("requesting a certificate"), "the authority is not asked: {log}");
    drop(taken);
    deltapush.signal("HUP");
    issued(&deltapush, &pebble).await;
}

#[tokio::test]
async fn authority_that_cannot_connect_is_told_apart_from_one_that_came() {
    let (http, nobody) = (ReservedPort::new(), ReservedPort::new());
    let pebble =
        Pebble::start_for(NAME, ProofPorts::http(nobody.number()), Duration::from_secs(3600));
    let acme = format!("http: 127.0.0.1:{}", http.number());
    let deltapush = Deltapush::start(&options(&pebble, NAME, &acme));
    let told = "no certificate from localhost: it could not validate the names: imap.example.org: ";
    assert!(poll(PATIENCE, || deltapush.log().contains(told)).await, "{}", deltapush.log());
    let log = deltapush.log();
    assert!(log.contains("(nothing asked for the proof here)"), "{log}");
    assert!(log.contains("its port 80 to `certificate.acme.http`"), "{log}");
}

#[tokio::test]
async fn further_certificate_is_chosen_by_the_address_that_was_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = |kind: &str| folder.path().join(kind);
    fs::write(file("chain"), made.cert.pem()).unwrap();
    fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
    let more = serde_json::json!([{"chain": file("chain"), "key": file("key")}]);
    let options = Options { certificate: format!("more: {more}"), ..Options::plain(9) };
    let deltapush = Deltapush::start(&options);
    let by_address = handshake(deltapush.imaps, "127.0.0.1", trusting(&file("chain"), &[])).await;
    assert_eq!(leaf(&by_address.unwrap()), *made.cert.der());
    let own = deltapush.certificate();
    assert!(handshake(deltapush.imaps, "localhost", trusting(&own, &[])).await.is_ok());
}
