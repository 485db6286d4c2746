//! An internet of the test's own: DNS, the provider of example.org, Let's Encrypt and the notification server, at addresses
//! that deltapush takes for public ones.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::page;
use crate::support::certs::{Authority, client_config};
use crate::support::core::Submission;
use crate::support::dns::DnsServer;
use crate::support::dovecot::{Dovecot, Setup};
use crate::support::forward::forward;
use crate::support::notify::NotifyServer;
use crate::support::pebble::Pebble;

/// The addresses of the page, which are reserved for examples and so not public for deltapush, and those in their place.
const PUBLIC: [(&str, &str); 2] = [("203.0.113.7", "203.0.114.7"), ("2001:db8::7", "2001:db9::7")];

/// The servers, by the addresses that their names lead to.
const RESOLVER: &str = "203.0.114.53";
const PROVIDER: &str = "203.0.114.25";
const AUTHORITY: &str = "203.0.114.41";
const NOTIFIER: &str = "203.0.114.40";

/// The name of Let's Encrypt's server, and the path of its directory; Pebble's has another.
const LETS_ENCRYPT: &str = "acme-v02.api.letsencrypt.org";
const DIRECTORY: &str = "/directory";
/// Pebble's port behind that server.
const PEBBLE: u16 = 14000;

/// The system's list of certificate authorities.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The folder of the browser's policies.
const POLICIES: &str = "/etc/chromium/policies/managed";

/// All servers.
pub(crate) struct Internet {
    dns: DnsServer,
    pub(crate) dovecot: Dovecot,
    pub(crate) notify: NotifyServer,
    pub(crate) submission: Submission,
    /// The certificate of the SMTP server.
    pub(crate) smtp: PathBuf,
    pub(crate) acme: Pebble,
    _folder: tempfile::TempDir,
}

/// The address in place of one of the page's.
pub(crate) fn public(address: &str) -> &'static str {
    let found = PUBLIC.iter().find(|(of_page, _)| *of_page == address);
    found.unwrap_or_else(|| panic!("the page has another address: {address}")).1
}

/// A port of the VPS.
pub(super) fn vps(port: u16) -> SocketAddr {
    at(PUBLIC[0].1, port)
}

/// The addresses of the VPS, and of all servers, each with the length of its prefix.
pub(crate) fn addresses() -> [Vec<String>; 2] {
    let long =
        |address: &&str| format!("{address}/{}", if address.contains(':') { "64" } else { "24" });
    let own = PUBLIC.map(|(_, address)| address);
    let others = [RESOLVER, PROVIDER, AUTHORITY, NOTIFIER, "2001:db9::1"];
    [own.iter().map(long).collect(), others.iter().map(long).collect()]
}

fn at(address: &str, port: u16) -> SocketAddr {
    (address.parse::<std::net::IpAddr>().unwrap(), port).into()
}

impl Internet {
    /// Starts all servers, and makes this machine resolve their names and trust their authorities.
    pub(crate) async fn start() -> Self {
        let dns = start_dns();
        let dovecot = Dovecot::naming(Setup::Vanilla, &["imap.example.org"]);
        forward(at(PROVIDER, 993), dovecot.imaps).await;
        let folder = tempfile::tempdir().unwrap();
        let names = ["smtp.example.org", "notifications.delta.chat", LETS_ENCRYPT];
        let [smtp, notifier, lets_encrypt] = names.map(|name| {
            let folder = folder.path().join(name);
            fs::create_dir(&folder).unwrap();
            Authority::naming(&folder, &[name])
        });
        let submission = Submission::start_with(&dovecot, &smtp.leaf_cert, &smtp.leaf_key).await;
        forward(at(PROVIDER, 465), submission.port).await;
        let notify = NotifyServer::start_tls(&notifier.server_config()).await;
        forward(at(NOTIFIER, 443), notify.port).await;
        let lifetime = Duration::from_secs(90 * 24 * 3600);
        let pebble = at(AUTHORITY, PEBBLE);
        let acme = Pebble::start_at(pebble, LETS_ENCRYPT, at(RESOLVER, 53), lifetime);
        trust(&[&dovecot.authority.ca, &notifier.ca, &lets_encrypt.ca, &acme.ca]);
        trust(&[&acme.root().await]);
        serve_directory(&lets_encrypt, &acme).await;
        let smtp = smtp.leaf_cert;
        Self { dns, dovecot, notify, submission, smtp, acme, _folder: folder }
    }

    /// Adds a name that leads to the VPS.
    pub(crate) fn name(&self, name: &str) {
        self.dns.address(name, public("203.0.113.7"));
    }

    /// Makes the browsers of this machine trust the authority's certificates.
    pub(crate) async fn trust_in_browsers(&self) {
        let root = CertificateDer::from_pem_file(self.acme.root().await).unwrap();
        fs::create_dir_all(POLICIES).unwrap();
        let policy = json!({ "CACertificates": [BASE64_STANDARD.encode(&root)] });
        fs::write(Path::new(POLICIES).join("authority.json"), policy.to_string()).unwrap();
    }
}

/// Serves Pebble's directory where Let's Encrypt has its own. The URLs in it lead to Pebble.
async fn serve_directory(authority: &Authority, acme: &Pebble) {
    let mut trusted = (*client_config(&acme.ca)).clone();
    trusted.alpn_protocols = vec![b"http/1.1".to_vec()];
    let client = reqwest::Client::builder().tls_backend_preconfigured(trusted).build().unwrap();
    // Pebble answers no client without a User-Agent (RFC 8555 section 6.1).
    let asked = client.get(&acme.directory).header("User-Agent", "deltapush-tests");
    let answer = asked.send().await.unwrap().error_for_status().unwrap();
    let directory = answer.text().await.unwrap();
    let length = directory.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{directory}"
    );
    let mut config = (*authority.server_config()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(at(AUTHORITY, 443)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that is gone is no fault of the test.
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut request = String::new();
            let mut reader = BufReader::new(&mut stream);
            let _ = reader.read_line(&mut request).await;
            assert!(request.starts_with(&format!("GET {DIRECTORY} ")), "{request}");
            while reader.read_line(&mut request).await.is_ok_and(|read| read > 2) {}
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
}

/// The names of the provider and of the servers that everybody uses. Those of the page come from the page.
fn start_dns() -> DnsServer {
    for (file, text) in [
        ("/etc/resolv.conf", &*format!("nameserver {RESOLVER}\n")),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ] {
        // A link may lead elsewhere. A file that is missing need not be removed.
        let _ = fs::remove_file(file);
        fs::write(file, text).unwrap();
    }
    let dns = DnsServer::start_at(at(RESOLVER, 53));
    dns.service("_imaps._tcp.example.org", 10, "imap.example.org.", 993);
    dns.service("_submissions._tcp.example.org", 10, "smtp.example.org.", 465);
    for (name, address) in [
        ("imap.example.org", PROVIDER),
        ("smtp.example.org", PROVIDER),
        (LETS_ENCRYPT, AUTHORITY),
        ("notifications.delta.chat", NOTIFIER),
    ] {
        dns.address(name, address);
    }
    for page::Record { name, address } in page::records() {
        dns.address(name, public(address));
    }
    dns
}

/// Adds authorities to the system's list.
fn trust(authorities: &[&Path]) {
    fs::create_dir_all(Path::new(AUTHORITIES).parent().unwrap()).unwrap();
    let mut list = fs::File::options().create(true).append(true).open(AUTHORITIES).unwrap();
    for authority in authorities {
        list.write_all(&fs::read(authority).unwrap()).unwrap();
    }
}
