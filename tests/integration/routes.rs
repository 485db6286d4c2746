//! Routes of logins: servers that are looked up, addresses that do not answer, names that lead inside, and what a server
//! is told of the client.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::mechanisms::WATCHING;
use super::support::certs::Authority;
use super::support::client::{Client, quoted};
use super::support::deltapush::{Deltapush, Options};
use super::support::dns::DnsServer;
use super::support::dovecot::{self, PASSWORD, Setup};
use super::support::poll;
use super::support::ports::ReservedPort;
use super::support::scripted::{Manner, Scripted};

const LOGIN: &str = r"
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] welcome
";

/// Names, certificates for them, and a server that lets one client in at 127.0.0.1.
struct Lab {
    dns: DnsServer,
    authority: Authority,
    server: Scripted,
    _dir: tempfile::TempDir,
}

impl Lab {
    async fn new(dialogues: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = ["imap.lab.test", "config.lab.test", "imap.provider.test"];
        let authority = Authority::naming(dir.path(), &names);
        let server = Scripted::start_with(encrypted(&authority), dialogues).await;
        Self { dns: DnsServer::start(), authority, server, _dir: dir }
    }

    fn start(&self, route: &str) -> Deltapush {
        let ca = serde_json::json!(self.authority.ca);
        let routes = Some(format!("  - ca: {ca}\n{route}"));
        Deltapush::start(&Options { routes, more: self.dns.yaml(), ..Options::plain(0) })
    }

    /// A listener at `::1` with the same port as the server.
    async fn at_ipv6(&self) -> TcpListener {
        TcpListener::bind((Ipv6Addr::LOCALHOST, self.server.port)).await.unwrap()
    }

    fn fixed(&self) -> String {
        format!("    domain: lab.test\n    upstream: imaps://imap.lab.test:{}\n", self.server.port)
    }
}

fn encrypted(authority: &Authority) -> Manner {
    Manner { tls: Some(authority.server_config()), ..Manner::default() }
}

/// The log is written beside the answer to the client.
async fn expect_log(deltapush: &Deltapush, words: &str) {
    assert!(
        poll(Duration::from_secs(40), || deltapush.log().contains(words)).await,
        "{}",
        deltapush.log()
    );
}

async fn log_in(deltapush: &Deltapush, login: &str) -> String {
    log_in_by(Client::plain(deltapush.plain).await, login).await
}

async fn log_in_by(mut client: Client, login: &str) -> String {
    client.expect_prefix("* OK").await;
    client.command(&format!("c1 LOGIN {login} sesame")).await.result
}

const DISCOVERED: &str = "    domain: lab.test\n    discover: true\n    private: true\n";

// The command that is waited for asks the DNS server of this test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_is_found_by_srv_and_remembered() {
    let lab = Lab::new(&[LOGIN, LOGIN]).await;
    let closed = ReservedPort::new();
    lab.dns.service("_imaps._tcp.lab.test", 10, "imap.lab.test.", closed.number());
    lab.dns.service("_imaps._tcp.lab.test", 20, "imap.lab.test.", lab.server.port);
    lab.dns.address("imap.lab.test", "127.0.0.1");
    let deltapush = lab.start(DISCOVERED);
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
    let said = deltapush.check_login("alice@lab.test");
    let expected =
        format!("server       imaps://imap.lab.test:{} (127.0.0.1), discovered", lab.server.port);
    assert!(
        said.contains("account      alice@lab.test at lab.test:discovered")
            && said.contains(&expected),
        "{said}"
    );
    // The discovered server is used beyond its TTL of a second, without another SRV query.
    lab.dns.clear();
    lab.dns.address("imap.lab.test", "127.0.0.1");
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
    lab.server.finish().await;
}

/// A domain without TLS from the first byte: STARTTLS comes before the password.
#[tokio::test]
async fn server_with_starttls_is_found_by_srv() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let dns = DnsServer::start();
    dns.service("_imaps._tcp.lab.test", 0, ".", 0);
    dns.service("_imap._tcp.lab.test", 0, "localhost.", dovecot.imap);
    let ca = serde_json::json!(dovecot.authority.ca);
    let routes = Some(format!("  - ca: {ca}\n{DISCOVERED}    targets: [localhost]\n"));
    let deltapush = Deltapush::start(&Options { routes, more: dns.yaml(), ..Options::plain(0) });
    let user = dovecot.user("srv-starttls");
    Client::plain(deltapush.plain).await.log_in(&user).await;
    let logged_in =
        |line: &str| line.contains(&format!("Login: user=<{user}>")) && line.contains(", TLS,");
    assert!(
        poll(Duration::from_secs(40), || dovecot.log().lines().any(logged_in)).await,
        "{}",
        dovecot.log()
    );
}

#[tokio::test]
async fn discovered_server_inside_is_not_reached() {
    let lab = Lab::new(&[]).await;
    lab.dns.service("_imaps._tcp.lab.test", 10, "imap.lab.test.", lab.server.port);
    for address in ["127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1"] {
        lab.dns.address("imap.lab.test", address);
    }
    let deltapush = lab.start("    domain: lab.test\n    discover: true\n");
    let said = log_in(&deltapush, "alice@lab.test").await;
    assert!(said.starts_with("NO [UNAVAILABLE] The mail server cannot be reached."), "{said}");
    expect_log(&deltapush, "no address on the public internet").await;
    let upstream =
        format!("    domain: \"*\"\n    upstream: imaps://imap.{{domain}}:{}\n", lab.server.port);
    let deltapush = lab.start(&upstream);
    let said = log_in(&deltapush, "alice@lab.test").await;
    assert!(
        said.starts_with("NO [UNAVAILABLE]") && !said.to_lowercase().contains("authentication"),
        "{said}"
    );
    assert_eq!(lab.server.connections(), 0);
}

#[tokio::test]
async fn host_that_only_dns_names_must_be_certified_for_the_domain() {
    let lab = Lab::new(&["", LOGIN]).await;
    lab.dns.service("_imaps._tcp.lab.test", 10, "imap.provider.test.", lab.server.port);
    lab.dns.address("imap.provider.test", "127.0.0.1");
    let said = log_in(&lab.start(DISCOVERED), "alice@lab.test").await;
    assert!(
        said.starts_with("NO [UNAVAILABLE] There is no secure connection to the mail server"),
        "{said}"
    );
    let trusting = format!("{DISCOVERED}    targets: [\"*.provider.test\"]\n");
    assert!(log_in(&lab.start(&trusting), "alice@lab.test").await.starts_with("OK"));
}

#[tokio::test]
async fn domain_that_offers_no_imap_is_believed() {
    let lab = Lab::new(&[]).await;
    lab.dns.service("_imaps._tcp.lab.test", 0, ".", 0);
    lab.dns.service("_imap._tcp.lab.test", 0, ".", 0);
    let deltapush = lab.start(DISCOVERED);
    let said = log_in(&deltapush, "alice@lab.test").await;
    assert!(
        said.ends_with("There is no mail server for this address. Check the address."),
        "{said}"
    );
    expect_log(&deltapush, "lab.test says that it has no IMAP server").await;
    let asked = lab.dns.questions();
    log_in(&deltapush, "alice@lab.test").await;
    assert_eq!(lab.dns.questions(), asked, "that there is none was not remembered");
}

/// Nor has it a web server that DNS knows: nothing is out of order, and will not pass.
#[tokio::test]
async fn domain_that_names_no_server_is_told_apart_from_one_that_cannot_be_asked() {
    let lab = Lab::new(&[]).await;
    let deltapush = lab.start(DISCOVERED);
    let said = log_in(&deltapush, "alice@lab.test").await;
    assert!(
        said.ends_with("There is no mail server for this address. Check the address."),
        "{said}"
    );
    let reason = "lab.test names no IMAP server, neither by SRV records nor by autoconfig";
    expect_log(&deltapush, reason).await;
    let nobody = ReservedPort::new();
    lab.dns.address("config.lab.test", "127.0.0.1");
    let url = format!("    autoconfig: https://config.lab.test:{}/\n", nobody.number());
    let deltapush = lab.start(&format!("{DISCOVERED}{url}"));
    let said = log_in(&deltapush, "alice@lab.test").await;
    assert!(said.contains("cannot be found at the moment. Try again later."), "{said}");
    expect_log(&deltapush, "Connection refused").await;
}

/// A web server that gives every request the same answer, and counts them.
async fn web(
    authority: &Authority,
    answer: impl AsRef<[u8]> + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let (acceptor, counted) = (TlsAcceptor::from(authority.server_config()), Arc::clone(&requests));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            assert!(!String::from_utf8_lossy(&request[..length]).contains("alice"));
            stream.write_all(answer.as_ref()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (port, requests)
}

#[tokio::test]
async fn server_is_found_by_autoconfig() {
    let lab = Lab::new(&[LOGIN]).await;
    let document = format!(
        "<clientConfig><emailProvider><incomingServer type=\"imap\"><hostname>imap.provider.test</hostname>\
         <port>{}</port><socketType>SSL</socketType></incomingServer></emailProvider></clientConfig>",
        lab.server.port
    );
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
    let (port, _) =
        web(&lab.authority, format!("{head} {}\r\n\r\n{document}", document.len())).await;
    lab.dns.address("config.lab.test", "127.0.0.1");
    lab.dns.address("imap.provider.test", "127.0.0.1");
    let url = format!("    autoconfig: https://config.{{domain}}:{port}/{{domain}}\n");
    // Not without the leave to go inside.
    let inside =
        lab.start(&format!("{}{url}", DISCOVERED.replace("private: true", "private: false")));
    let said = log_in(&inside, "alice@lab.test").await;
    assert!(said.contains("cannot be found at the moment. Try again later."), "{said}");
    assert!(
        inside.log().contains("config.lab.test has no address on the public internet"),
        "{}",
        inside.log()
    );
    let deltapush = lab.start(&format!("{DISCOVERED}{url}"));
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
}

/// The document of a domain with customers abroad, as its editor saved it.
#[tokio::test]
async fn autoconfig_with_references_and_in_latin1_is_read() {
    let lab = Lab::new(&[LOGIN]).await;
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<!DOCTYPE clientConfig>\n<clientConfig><emailProvider>\
         <displayName>L&#228;nder und M\u{e4}rkte</displayName><IncomingServer type=\"IMAP\">\
         <hostname>imap&#46;provider.test</hostname><port>{}</port><socketType>ssl</socketType></IncomingServer></emailProvider></clientConfig>",
        lab.server.port
    );
    let latin1: Vec<u8> =
        document.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect();
    let head =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", latin1.len());
    let (port, _) = web(&lab.authority, [head.into_bytes(), latin1].concat()).await;
    lab.dns.address("config.lab.test", "127.0.0.1");
    lab.dns.address("imap.provider.test", "127.0.0.1");
    let deltapush =
        lab.start(&format!("{DISCOVERED}    autoconfig: https://config.lab.test:{port}/\n"));
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
}

#[tokio::test]
async fn autoconfig_that_cannot_be_used_is_named_with_its_line() {
    let lab = Lab::new(&[]).await;
    let document = "<clientConfig>\n<emailProvider>\n<displayName>Meyer & Co</displayName>\n</emailProvider></clientConfig>";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{document}", document.len());
    let long = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n<clientConfig>{}",
        " ".repeat(69_986)
    );
    lab.dns.address("config.lab.test", "127.0.0.1");
    for (answer, problem) in
        [(answer, "line 3: "), (long, "line 1: the document is longer than 64 KiB")]
    {
        let (port, _) = web(&lab.authority, answer).await;
        let url = format!("https://config.lab.test:{port}/");
        let deltapush = lab.start(&format!("{DISCOVERED}    autoconfig: {url}\n"));
        let said = log_in(&deltapush, "alice@lab.test").await;
        assert!(
            said.ends_with(
                "The mail server for this address cannot be found. Ask the operator of this server."
            ),
            "{said}"
        );
        let expected = format!("the autoconfig document {url} cannot be used: {problem}");
        assert!(deltapush.log().contains(&expected), "{}", deltapush.log());
        let mut check = tokio::process::Command::new(env!("CARGO_BIN_EXE_deltapush"));
        check.current_dir(deltapush.dir()).args(["check", "--login", "alice@lab.test"]);
        let checked = check.output().await.unwrap();
        assert_eq!(checked.status.code(), Some(69), "{checked:?}");
        let printed = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
        assert!(
            printed.contains(&expected)
                && printed.contains("no other source names the mail server"),
            "{printed}"
        );
    }
}

#[tokio::test]
async fn redirection_to_an_address_is_not_followed() {
    let lab = Lab::new(&[]).await;
    let (inside, requests) = web(&lab.authority, String::new()).await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:{inside}/\r\nContent-Length: 0\r\n\r\n"
    );
    let (port, asked) = web(&lab.authority, redirect).await;
    lab.dns.address("config.lab.test", "127.0.0.1");
    let url = format!("    autoconfig: https://config.lab.test:{port}/\n");
    let deltapush = lab.start(&format!("{DISCOVERED}{url}"));
    let said = log_in(&deltapush, "alice@lab.test").await;
    assert!(said.starts_with("NO [UNAVAILABLE]"), "{said}");
    assert_eq!((asked.load(Ordering::SeqCst), requests.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn refused_address_gives_way_to_the_next() {
    let lab = Lab::new(&[LOGIN]).await;
    lab.dns.address("imap.lab.test", "::1");
    lab.dns.address("imap.lab.test", "127.0.0.1");
    assert!(log_in(&lab.start(&lab.fixed()), "alice@lab.test").await.starts_with("OK"));
}

#[tokio::test]
async fn address_without_tls_or_greeting_gives_way_to_the_next() {
    let lab = Lab::new(&[LOGIN, LOGIN]).await;
    lab.dns.address("imap.lab.test", "::1");
    lab.dns.address("imap.lab.test", "127.0.0.1");
    let broken = lab.at_ipv6().await;
    let deltapush = lab.start(&lab.fixed());
    let hang_up = async { drop(broken.accept().await.unwrap()) };
    let (said, ()) = tokio::join!(log_in(&deltapush, "alice@lab.test"), hang_up);
    assert!(said.starts_with("OK"), "{said}");
    // The second one would neither be refused nor answered there. It is tried last now.
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
    lab.server.finish().await;
}

#[tokio::test]
async fn no_other_address_is_tried_once_the_credentials_were_sent() {
    let lab = Lab::new(&[]).await;
    lab.dns.address("imap.lab.test", "::1");
    lab.dns.address("imap.lab.test", "127.0.0.1");
    let first = lab.at_ipv6().await;
    let deltapush = lab.start(&lab.fixed());
    let breaks = async {
        let (tcp, _) = first.accept().await.unwrap();
        let mut stream =
            TlsAcceptor::from(lab.authority.server_config()).accept(tcp).await.unwrap();
        stream
            .write_all(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello\r\n")
            .await
            .unwrap();
        let mut heard = [0; 100];
        assert!(stream.read(&mut heard).await.unwrap() > 0);
    };
    let (said, ()) = tokio::join!(log_in(&deltapush, "alice@lab.test"), breaks);
    assert!(said.starts_with("NO [UNAVAILABLE]"), "{said}");
    assert_eq!(lab.server.connections(), 0);
}

/// An address that is connected to and says nothing costs the first login some seconds, and no other for some minutes.
#[tokio::test]
async fn address_that_is_of_no_use_is_tried_last_the_next_time() {
    let lab = Lab::new(&[LOGIN, LOGIN]).await;
    let silent = lab.at_ipv6().await;
    for address in ["::1", "127.0.0.1"] {
        lab.dns.address("imap.lab.test", address);
    }
    let deltapush = lab.start(&lab.fixed());
    let began = Instant::now();
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
    assert!(began.elapsed() >= Duration::from_secs(5), "IPv6 goes first: {:?}", began.elapsed());
    let began = Instant::now();
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(silent);
    lab.server.finish().await;
}

/// A server moves to another machine, and takes its name along: the watch and the next client find it there.
#[tokio::test]
async fn reconnection_goes_where_the_name_leads_by_then() {
    let lab = Lab::new(&[&format!("{LOGIN}{WATCHING}EOF"), LOGIN]).await;
    let sessions =
        [format!("{LOGIN}EOF"), format!("{LOGIN}{WATCHING}GATE\nS: * BYE moving\nCLOSE")];
    let before = (Ipv6Addr::LOCALHOST, lab.server.port).into();
    let before =
        Scripted::start_at(before, encrypted(&lab.authority), &[&sessions[0], &sessions[1]]).await;
    lab.dns.address("imap.lab.test", "::1");
    let deltapush = lab.start(&lab.fixed());
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert!(client.command("c1 LOGIN alice@lab.test sesame").await.result.starts_with("OK"));
    client.command("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:alice\")").await;
    before.reached().await;
    drop(client);

    lab.dns.clear();
    lab.dns.address("imap.lab.test", "127.0.0.1");
    // The old answer holds for a second.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    before.open_gate();
    lab.server.reached().await;
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
    drop(deltapush);
    before.finish().await;
    lab.server.finish().await;
}

#[tokio::test]
async fn route_that_says_most_of_a_login_leads_the_way() {
    let named = |name: &str| {
        LOGIN
            .replace("LOGIN", "C~ dp1 AUTHENTICATE PLAIN ")
            .replace("<tag>", "dp1")
            .replace("welcome", name)
    };
    let mut routes = String::new();
    let mut servers = Vec::new();
    // The least particular one stands first: the order is of no account.
    for (condition, name) in [
        ("domain: \"*\"", "anybody"),
        ("listener: office", "office"),
        ("domain: lab.test", "domain"),
        ("address: alice@lab.test", "address"),
    ] {
        let server = Scripted::start(&[&named(name), &named(name)]).await;
        routes +=
            &format!("  - {condition}\n    upstream: imap+plain://127.0.0.1:{}\n", server.port);
        servers.push(server);
    }
    let deltapush = Deltapush::start(&Options {
        routes: Some(routes),
        listener: "name: office",
        ..Options::plain(0)
    });
    let office = async || Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    let elsewhere = async || Client::plain(deltapush.plain).await;
    for (client, login, name) in [
        (office().await, "alice@lab.test", "address"),
        (elsewhere().await, "Alice@LAB.test", "address"),
        (office().await, "bob@lab.test", "domain"),
        (elsewhere().await, "bob@lab.test", "domain"),
        (office().await, "carol@else.test", "office"),
        (elsewhere().await, "carol@else.test", "anybody"),
    ] {
        let said = log_in_by(client, login).await;
        assert!(said.ends_with(name), "{login}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_who_are_allowed_come_in() {
    let server = Scripted::start(&[LOGIN]).await;
    let allow = "allow:\n  networks: [127.0.0.1]\n  logins: [lab.test]\n".to_owned();
    let deltapush = Deltapush::start(&Options { more: allow, ..Options::plain(server.port) });
    let mut stranger = Client::plain_from(Ipv4Addr::new(127, 0, 0, 5), deltapush.plain).await;
    assert_eq!(stranger.expect_eof().await, "");
    let said = log_in(&deltapush, "alice@else.test").await;
    assert_eq!(
        said,
        "NO [AUTHORIZATIONFAILED] This address may not be used here. Ask the operator of this server."
    );
    assert_eq!(server.connections(), 0);
    assert!(log_in(&deltapush, "alice@lab.test").await.starts_with("OK"));
    assert!(deltapush.check_login("alice@else.test").contains("`allow` does not list it"));
}

/// Logs in through a route to a Dovecot that trusts deltapush, from another address, under another login; waits for the watch.
async fn through(name: &str, scheme: &str, port: u16, terms: &str) {
    let dovecot = dovecot::shared(Setup::Trusting);
    let user = dovecot.user(name);
    let routes = format!(
        "  - domain: other.test\n    upstream: {scheme}://localhost:{port}\n    ca: {}\n    \
         login: \"{{local}}@lab.test\"\n{terms}",
        serde_json::json!(dovecot.authority.ca)
    );
    let mut deltapush = Deltapush::start(&Options { routes: Some(routes), ..Options::plain(0) });
    let mut client = Client::plain_from(Ipv4Addr::new(127, 0, 0, 5), deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let login = client.command(&format!("c1 LOGIN {name}@other.test {}", quoted(PASSWORD))).await;
    assert!(login.result.starts_with("OK"), "{login:?}");
    let logged_in = |wanted: &str| {
        let of_user = format!("Login: user=<{user}>");
        dovecot.log().lines().any(|line| line.contains(&of_user) && line.contains(wanted))
    };
    let seen = poll(Duration::from_secs(40), || logged_in("rip=127.0.0.5,")).await;
    assert!(seen, "{}", dovecot.log());
    client.command("c2 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:route\")").await;
    dovecot.wait_for_watch(&user, 1).await;
    assert!(
        poll(Duration::from_secs(40), || logged_in("rip=127.0.0.1,")).await,
        "{}",
        dovecot.log()
    );
    // The account is found again without the client.
    deltapush.restart();
    dovecot.wait_for_watch(&user, 2).await;
    let status = deltapush.status();
    assert!(status.contains(&format!("{name}@lab.test")), "{status}");
}

#[tokio::test]
async fn dovecot_learns_the_clients_address_by_proxy_v1() {
    let port = dovecot::shared(Setup::Trusting).imap;
    through("proxy-v1", "imap", port, "    proxy_protocol: v1\n").await;
}

#[tokio::test]
async fn dovecot_learns_the_clients_address_by_proxy_v2() {
    let port = dovecot::shared(Setup::Trusting).imap;
    through("proxy-v2", "imap", port, "    proxy_protocol: v2\n").await;
}

#[tokio::test]
async fn dovecot_learns_the_clients_address_by_id() {
    let port = dovecot::shared(Setup::Trusting).imaps;
    through("originating", "imaps", port, "    originating_ip: true\n").await;
}

#[tokio::test]
async fn route_may_go_by_the_name_asked_for_in_tls() {
    let server = Scripted::start(&[LOGIN]).await;
    let routes = format!(
        "  - host: localhost\n    upstream: imap+plain://127.0.0.1:{}\n    login: \"{{local}}@lab.test\"\n",
        server.port
    );
    let deltapush = Deltapush::start(&Options { routes: Some(routes), ..Options::plain(0) });
    // Without TLS there is no such name.
    let said = log_in(&deltapush, "alice").await;
    assert!(
        said.starts_with("NO [AUTHORIZATIONFAILED] This server is not set up for this address"),
        "{said}"
    );
    let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    client.expect_prefix("* OK").await;
    let login = client.command("c1 LOGIN alice sesame").await;
    assert!(login.result.starts_with("OK"), "{login:?}");
}
