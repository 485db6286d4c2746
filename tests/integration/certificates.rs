//! The certificate that clients see, its source, and what else a port with TLS serves.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use deltapush::config::Config;
use deltapush::tls::client::ClientConfigs;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::pki_types::ServerName;

use super::support::client::Client;
use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Setup};
use super::support::pebble::Pebble;
use super::support::poll;
use super::support::ports::ReservedPort;
use super::support::tls::{
    Decompressor, handshake, handshake_again, is_alive, kind_after_greeting, leaf, line,
    public_key, trusting,
};

const NAME: &str = "imap.example.org";

fn by_acme(pebble: &Pebble) -> Options {
    let acme = serde_json::json!({
        "terms_agreed": true, "directory": pebble.directory, "ca": pebble.ca, "email": "postmaster@example.org",
    });
    Options { hostname: NAME, certificate: format!("acme: {acme}"), ..Options::plain(9) }
}

/// The certificate that a client sees which verifies it.
async fn shown(port: u16, name: &str, trusted: &Path) -> Option<Vec<u8>> {
    handshake(port, name, trusting(trusted, &[])).await.ok().map(|stream| leaf(&stream).to_vec())
}

#[tokio::test]
async fn authority_issues_and_renews_while_sessions_go_on() {
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let pebble = Pebble::start(NAME, port, Duration::from_secs(30));
    let deltapush = Deltapush::start_on(reserved, &by_acme(&pebble));
    let self_signed = deltapush.dir().join(format!("certs/{NAME}.cert.pem"));
    assert!(self_signed.exists(), "something is to be shown from the start");
    let root = pebble.root().await;

    let mut first = None;
    for _ in 0..200 {
        first = handshake(port, NAME, trusting(&root, &[b"imap"])).await.ok();
        if first.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut first = first.unwrap_or_else(|| panic!("no certificate came\n{}", deltapush.log()));
    assert!(line(&mut first).await.starts_with("* OK"));
    let issued = leaf(&first);
    let own = handshake(port, NAME, trusting(&root, &[])).await.unwrap();
    assert_eq!(leaf(&own), issued);

    // Nobody else is told that challenges exist once they are over.
    assert!(handshake(port, NAME, trusting(&root, &[b"acme-tls/1"])).await.is_err());

    let mut renewed = None;
    for _ in 0..300 {
        renewed = shown(port, NAME, &root).await.filter(|leaf| leaf[..] != issued[..]);
        if renewed.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let renewed = renewed.unwrap_or_else(|| panic!("no renewal came\n{}", deltapush.log()));
    assert_eq!(public_key(&renewed.into()), public_key(&issued), "Delta Chat remembers the key");
    assert!(is_alive(&mut first).await, "a session outlives the renewal");

    let files: Vec<PathBuf> =
        fs::read_dir(deltapush.dir().join("certs")).unwrap().map(|f| f.unwrap().path()).collect();
    for file in &files {
        use std::os::unix::fs::PermissionsExt as _;
        let secret = fs::read_to_string(file).unwrap().contains("PRIVATE KEY")
            || file.extension().unwrap() == "json";
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if secret { 0o600 } else { 0o644 }, "{}", file.display());
    }
    assert_eq!(files.len(), 4, "{files:?}");
}

#[tokio::test]
async fn authority_may_come_from_anywhere_and_is_not_asked_twice() {
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let pebble = Pebble::start(NAME, port, Duration::from_secs(3600));
    let options =
        Options { more: "allow: { networks: [192.0.2.0/24] }".to_owned(), ..by_acme(&pebble) };
    let mut deltapush = Deltapush::start_on(reserved, &options);
    let issued = || deltapush.log().contains(", renewal due about ");
    assert!(poll(Duration::from_secs(40), issued).await, "{}", deltapush.log());
    let root = pebble.root().await;
    assert!(shown(port, NAME, &root).await.is_none(), "others are still turned away");

    deltapush.reconfigure(|text| text.replace("allow: { networks: [192.0.2.0/24] }", ""));
    let taken = || deltapush.log().contains("the configuration was read again");
    assert!(poll(Duration::from_secs(40), taken).await, "{}", deltapush.log());
    let before = shown(port, NAME, &root).await.unwrap();
    deltapush.restart();
    assert_eq!(shown(port, NAME, &root).await.unwrap(), before);
    assert_eq!(
        deltapush.log().matches("requesting a certificate from localhost").count(),
        1,
        "{}",
        deltapush.log()
    );
}

/// A fault at this end costs no certificate: authorities issue few of the same kind.
#[tokio::test]
async fn nothing_is_asked_for_while_something_is_broken_here() {
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let pebble = Pebble::start(NAME, port, Duration::from_secs(15));
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), "more", "mail.example.net");
    let file = |kind: &str| folder.path().join(format!("more.{kind}"));
    let mut options = by_acme(&pebble);
    let more = serde_json::json!([{"chain": file("chain"), "key": file("key")}]);
    options.certificate = format!("{}\n  more: {more}", options.certificate);
    let deltapush = Deltapush::start_on(reserved, &options);
    let issued = || deltapush.log().matches("valid until ").count() > 0;
    assert!(poll(Duration::from_secs(40), issued).await, "{}", deltapush.log());
    fs::write(file("chain"), "broken").unwrap();
    let asked = || deltapush.log().matches("requesting a certificate from localhost").count();
    let (before, told) = (asked(), || {
        deltapush.log().contains("deltapush requests no certificate before this is corrected")
    });
    assert!(poll(Duration::from_secs(40), told).await, "{}", deltapush.log());
    assert!(deltapush.log().contains("more.chain") && asked() == before, "{}", deltapush.log());
}

#[tokio::test]
async fn refusal_is_told_with_its_cure_and_the_old_certificate_stays() {
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let nobody = ReservedPort::new();
    let pebble = Pebble::start(NAME, nobody.number(), Duration::from_secs(3600));
    let deltapush = Deltapush::start_on(reserved, &by_acme(&pebble));
    let wanted =
        "no certificate from localhost: it could not validate the names: imap.example.org: ";
    assert!(
        poll(Duration::from_secs(40), || deltapush.log().contains(wanted)).await,
        "{}",
        deltapush.log()
    );
    let log = deltapush.log();
    assert!(
        log.contains("next attempt in ") && log.contains("its port 443 to a listener"),
        "{log}"
    );
    let self_signed = deltapush.dir().join(format!("certs/{NAME}.cert.pem"));
    assert!(shown(port, NAME, &self_signed).await.is_some());
}

#[tokio::test]
async fn one_port_serves_imap_and_a_page() {
    let options = Options { listener: "web: true", ..Options::plain(9) };
    let deltapush = Deltapush::start(&options);
    let (port, trusted) = (deltapush.imaps, deltapush.certificate());
    for alpn in [&[] as &[&[u8]], &[b"imap"], &[b"h2", b"imap"]] {
        let mut stream = handshake(port, "localhost", trusting(&trusted, alpn)).await.unwrap();
        assert!(line(&mut stream).await.starts_with("* OK"), "{alpn:?}");
    }
    for (alpn, version) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], reqwest::Version::HTTP_2),
        (&[b"http/1.1"], reqwest::Version::HTTP_11),
    ] {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trusting(&trusted, alpn))
            // A connection ends with a POST that is refused; the next request must not meet its end.
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        let page = client.get(format!("https://localhost:{port}/")).send().await.unwrap();
        assert_eq!((page.status().as_u16(), page.version()), (200, version));
        let text = page.text().await.unwrap();
        assert!(text.contains("Delta Chat") && text.contains("name=\"address\""), "{text}");
        let head = client.head(format!("https://localhost:{port}/")).send().await.unwrap();
        assert_eq!(head.headers()["content-length"], text.len().to_string());
        assert_eq!(head.headers()["x-content-type-options"], "nosniff");
        let post =
            client.post(format!("https://localhost:{port}/")).body(vec![0; 100_000]).send().await;
        assert!(post.is_err() || post.is_ok_and(|answer| answer.status() == 405));
        assert_eq!(
            client
                .get(format!("https://localhost:{port}/x"))
                .send()
                .await
                .unwrap()
                .status()
                .as_u16(),
            404
        );
    }
    assert!(handshake(port, "localhost", trusting(&trusted, &[b"acme-tls/1"])).await.is_err());

    let without = Deltapush::start(&Options::plain(9));
    assert!(
        handshake(without.imaps, "localhost", trusting(&without.certificate(), &[b"h2"]))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn addresses_and_names_with_an_underscore_are_verified_like_others() {
    for name in ["127.0.0.1", "_imap.example.org"] {
        let deltapush = Deltapush::start(&Options { hostname: name, ..Options::plain(9) });
        let mut stream = handshake(deltapush.imaps, name, trusting(&deltapush.certificate(), &[]))
            .await
            .unwrap();
        assert!(line(&mut stream).await.starts_with("* OK"), "{name}");
        assert!(shown(deltapush.imaps, "localhost", &deltapush.certificate()).await.is_none());
    }
}

/// Each with a new ticket store, so that every handshake is a full one.
#[tokio::test]
async fn certificate_is_compressed_for_clients_that_offer_it() {
    let deltapush = Deltapush::start(&Options::plain(9));
    let trusted = deltapush.certificate();
    let mut sizes = Vec::new();
    for offers in [false, true, true] {
        let decompressor = Decompressor::new();
        let mut config = trusting(&trusted, &[]);
        config.cert_decompressors = if offers { vec![decompressor] } else { vec![] };
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, deltapush.imaps)).await.unwrap();
        let counted = Counted { stream: tcp, read: 0 };
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, counted).await.unwrap();
        let (tcp, tls) = stream.get_ref();
        assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(decompressor.count(), usize::from(offers));
        sizes.push(tcp.read);
    }
    println!("bytes of a handshake from the server, without and with brotli: {sizes:?}");
    assert!(sizes[1] < sizes[0] && sizes[2] < sizes[0], "{sizes:?}");
}

/// Counts the bytes that are read.
struct Counted {
    stream: TcpStream,
    read: usize,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read += buf.filled().len() - before;
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A certificate for `name` as two files in `folder`; returns the DER.
fn make(folder: &Path, file: &str, name: &str) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    // As careful programs do it: never half a file.
    for (kind, text) in [("key", made.signing_key.serialize_pem()), ("chain", made.cert.pem())] {
        let path = folder.join(format!("{file}.{kind}"));
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }
    made.cert.der().to_vec()
}

#[tokio::test]
async fn changed_files_are_read_again_and_broken_ones_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file);
    let (first, other) =
        (make(folder.path(), "a", "localhost"), make(folder.path(), "b", "mail.example.net"));
    let files = |name: &str| serde_json::json!({"chain": path(&format!("{name}.chain")), "key": path(&format!("{name}.key"))});
    let mut certificate = files("a");
    certificate["more"] = serde_json::json!([files("b")]);
    let certificate = certificate
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n  "))
        .collect();
    let deltapush = Deltapush::start(&Options { certificate, ..Options::plain(9) });
    let port = deltapush.imaps;
    assert_eq!(shown(port, "localhost", &path("a.chain")).await.unwrap(), first);
    assert_eq!(shown(port, "mail.example.net", &path("b.chain")).await.unwrap(), other);
    let mut session = handshake(port, "localhost", trusting(&path("a.chain"), &[])).await.unwrap();
    assert!(line(&mut session).await.starts_with("* OK"));

    // By looking, without a signal.
    let second = make(folder.path(), "a", "localhost");
    let read =
        poll(Duration::from_secs(40), || deltapush.log().contains("certificates read again")).await;
    assert!(read, "{}", deltapush.log());
    assert_eq!(shown(port, "localhost", &path("a.chain")).await.unwrap(), second);
    assert_ne!(first, second);

    let good = fs::read(path("a.chain")).unwrap();
    fs::copy(path("b.key"), path("a.key")).unwrap();
    let told = || deltapush.log().matches("the previous ones stay in use: ").count();
    assert!(poll(Duration::from_secs(40), || told() == 1).await, "{}", deltapush.log());
    assert!(deltapush.log().contains("must belong together"), "{}", deltapush.log());
    assert_eq!(shown(port, "localhost", &path("a.chain")).await.unwrap(), second);

    // By a signal: refused as well, then taken.
    deltapush.signal("HUP");
    let refused = || {
        deltapush
            .log()
            .contains("the new configuration is not valid, deltapush keeps the previous one: ")
    };
    assert!(poll(Duration::from_secs(40), refused).await, "{}", deltapush.log());
    let third = make(folder.path(), "a", "localhost");
    deltapush.signal("HUP");
    let taken = || deltapush.log().contains("the configuration was read again");
    assert!(poll(Duration::from_secs(40), taken).await, "{}", deltapush.log());
    assert_eq!(shown(port, "localhost", &path("a.chain")).await.unwrap(), third);
    assert_ne!(fs::read(path("a.chain")).unwrap(), good);
    assert_eq!(told(), 1, "told once: {}", deltapush.log());
    assert!(is_alive(&mut session).await);
}

#[tokio::test]
async fn sessions_are_resumed_with_clients_and_with_dovecot() {
    let dovecot = dovecot::shared(Setup::OneLoginProcess);
    let deltapush = Deltapush::start(&Options::dovecot(dovecot));
    let client = Arc::new(trusting(&deltapush.certificate(), &[]));
    let yaml = format!(
        "routes:\n  - domain: a.example\n    upstream: imaps://localhost\n    ca: {}\n",
        serde_json::json!(dovecot.authority.ca)
    );
    let config = Config::parse(&yaml, Path::new(""), "test").unwrap();
    let upstreams = ClientConfigs::new(&config.live.routes).unwrap();
    let upstream = upstreams.get(&config.live.routes[0].ca);
    for (port, config) in [(deltapush.imaps, &client), (dovecot.imaps, upstream)] {
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let mut stream = handshake_again(port, "localhost", config).await.unwrap();
            kinds.push(kind_after_greeting(&mut stream).await);
        }
        assert_eq!(
            kinds,
            [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed],
            "port {port}"
        );
    }
    Client::tls(deltapush.imaps, &deltapush.certificate())
        .await
        .log_in(&dovecot.user("resumption"))
        .await;
}

/// The certificates of both servers are self-signed.
#[tokio::test]
async fn strict_core_accepts_a_self_signed_certificate_for_a_name_with_an_underscore() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), "smtp", "_smtp.example.org");
    let file = |name: &str| folder.path().join(name);
    let submission = Submission::start_with(dovecot, &file("smtp.chain"), &file("smtp.key")).await;
    let smtp = ("_smtp.example.org", submission.port);
    const REFUSED: &str = "received fatal alert: UnknownCA";
    for (name, accepted) in [("_imap.example.org", true), ("imap.example.org", false)] {
        let deltapush = Deltapush::start(&Options { hostname: name, ..Options::dovecot(dovecot) });
        let mut core = Core::start(Version::Current).await;
        let user = dovecot.user(&format!("strict-{accepted}"));
        let mut made = core.add_strict_account(&user, (name, deltapush.imaps), smtp).await;
        // The core's own patience with names and connections is short when the machine is busy; a person tries again.
        let is_settled =
            |made: &Result<_, _>| made.is_ok() || !accepted && deltapush.log().contains(REFUSED);
        for _ in 0..3 {
            if !is_settled(&made) {
                made = core.add_strict_account(&user, (name, deltapush.imaps), smtp).await;
            }
        }
        assert_eq!(made.is_ok(), accepted, "{name}: {made:?}\n{}", deltapush.log());
        let reason = made.err().unwrap_or_default().to_lowercase();
        // The core tells its user no more than that it found no server; the alert says why.
        assert!(accepted || deltapush.log().contains(REFUSED), "{reason}");
        core.kill().await;
    }
}
