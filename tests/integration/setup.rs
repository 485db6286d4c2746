//! From nothing to a phone that is set up: `deltapush init`, the login code on the terminal and on the page, autoconfig. Each is
//! taken by a real Delta Chat core, which then reads and sends through what it was told.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rcgen::PublicKeyData as _;
use serde_json::json;

use super::support::browser::{Browser, Look};
use super::support::certs::Authority;
use super::support::client::{Client, quoted};
use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dns::DnsServer;
use super::support::dovecot::{self, Dovecot, PASSWORD, Setup};
use super::support::scripted::{Manner, Scripted};
use super::support::tls::trusting;
use super::support::tunnel::Tunnel;

/// Runs `check` on the configuration that `init` wrote, but for the page: another test's deltapush may have its port.
fn checked(folder: &Path) -> Output {
    let written = fs::read_to_string(folder.join("config.yaml")).unwrap();
    assert!(!written.contains("admin:"), "{written}");
    fs::write(folder.join("checked.yaml"), written + "\nadmin: {address: off}\n").unwrap();
    deltapush(folder, &["check", "--config", "checked.yaml"], "")
}

/// Runs `deltapush` in a folder, with this on standard input.
pub(crate) fn deltapush(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
    command.current_dir(folder).args(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have refused, and not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// Reads the code in a picture of dark and light points.
fn read_code(width: usize, height: usize, is_dark: impl Fn(usize, usize) -> bool) -> String {
    let grey = |x: usize, y: usize| if is_dark(x, y) { 0 } else { 255 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, grey);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "no code in the picture, or more than one");
    grids[0].decode().unwrap().1
}

/// The code that stands on a terminal, in half blocks.
pub(crate) fn read_terminal(shown: &str) -> String {
    let rows: Vec<Vec<char>> = shown
        .lines()
        .map(|line| line.chars().collect())
        .filter(|row: &Vec<char>| row.len() > 20)
        .collect();
    let is_code = |row: &Vec<char>| row.iter().all(|c| matches!(c, '█' | '▀' | '▄' | ' '));
    let rows: Vec<_> = rows.into_iter().filter(is_code).collect();
    let side = rows[0].len();
    read_code(side * 4, rows.len() * 8, |x, y| match rows[y / 8][x / 4] {
        '█' => true,
        '▀' => (y / 4).is_multiple_of(2),
        '▄' => !(y / 4).is_multiple_of(2),
        _ => false,
    })
}

/// The code in a screenshot.
fn read_png(picture: &[u8]) -> String {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(picture));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let samples = info.color_type.samples();
    let (width, height) = (info.width as usize, info.height as usize);
    read_code(width, height, |x, y| pixels[y * info.line_size + x * samples] < 128)
}

/// A route of `lab.test` to a Dovecot, and mail sent through `submission`.
pub(crate) fn options(dovecot: &Dovecot, smtp: &str) -> Options {
    let routes = format!(
        "  - domain: lab.test\n    upstream: imaps://localhost:{}\n    ca: {}\n    smtp: {smtp}\n",
        dovecot.imaps,
        json!(dovecot.authority.ca)
    );
    Options { routes: Some(routes), listener: "web: true", ..Options::plain(0) }
}

/// Sets a core up by a code, and sees that it reads through deltapush and can send.
async fn accept(code: &str, user: &str, dovecot: &Dovecot, deltapush: &Deltapush) {
    let mut core = Core::start(Version::Current).await;
    let account = core.call("add_account", json!([])).await;
    let seen = core.call("check_qr", json!([account, code])).await;
    assert_eq!((&seen["kind"], &seen["address"]), (&json!("login"), &json!(user)), "{seen}");
    core.call("add_transport_from_qr", json!([account, code])).await;
    assert_eq!(core.call("is_configured", json!([account])).await, true);
    dovecot.expect_logins(user, 1).await;
    let log = deltapush.log();
    assert!(log.contains(user), "{log}");
    assert!(!log.contains("quoted") && !log.contains("%22"), "the password is in the log: {log}");
    core.kill().await;
}

#[tokio::test]
async fn core_accepts_the_code_of_qr() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let submission = Submission::start(dovecot).await;
    let proxy =
        Deltapush::start(&options(dovecot, &format!("smtps://localhost:{}", submission.port)));
    let user = dovecot.user("code-of-qr");
    let shown = deltapush(proxy.dir(), &["qr", &user], &format!("{PASSWORD}\n"));
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(text(&shown.stderr).contains("anyone who sees it"), "{}", text(&shown.stderr));
    assert!(!text(&shown.stderr).contains(PASSWORD));
    let code = read_terminal(text(&shown.stdout));

    let link = deltapush(proxy.dir(), &["qr", "--link", &user], PASSWORD);
    assert_eq!(text(&link.stdout).trim_end(), code);
    assert!(
        text(&link.stderr).contains("WARNING: this text contains the password"),
        "{}",
        text(&link.stderr)
    );
    accept(&code, &user, dovecot, &proxy).await;

    for (arguments, input, exit, complaint) in [
        (&["qr", "alice@else.test"][..], "x", 78, "cannot log in here"),
        (&["qr", &user], "", 64, "no password was given"),
        (&["qr", &user], &"x".repeat(1001), 64, "longer than 1000 bytes"),
        (&["qr", "alice"], "x", 64, "is not a mail address"),
    ] {
        let refused = deltapush(proxy.dir(), arguments, input);
        assert_eq!(refused.status.code(), Some(exit), "{arguments:?}");
        assert!(
            text(&refused.stderr).contains(complaint) && refused.stdout.is_empty(),
            "{}",
            text(&refused.stderr)
        );
    }
}

#[tokio::test]
async fn page_makes_a_code_in_the_browser_that_a_core_accepts() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let submission = Submission::start(dovecot).await;
    let proxy =
        Deltapush::start(&options(dovecot, &format!("smtps://localhost:{}", submission.port)));
    let user = dovecot.user("code-of-the-page");
    let page = format!("https://localhost:{}/", proxy.imaps);
    let mut browser = Browser::start();
    let look = Look { width: 900, scheme: "dark", script: true };
    assert_eq!(browser.open(&page, look).complaints, Vec::<serde_json::Value>::new());

    // The first step: the address alone goes to the server.
    browser.fill("[name=address]", &user);
    browser.click("form button");
    browser.wait_until("return document.getElementById('login')?.hidden === false");
    let table =
        "return [...document.querySelectorAll('tbody tr')].map((row) => row.textContent).join()";
    let expected = format!(
        "Incoming (IMAP)localhost{}SSL/TLS{user},Outgoing (SMTP)localhost{}SSL/TLS{user}",
        proxy.imaps, submission.port
    );
    assert_eq!(browser.run(table), expected);
    let requests = browser.requests();
    assert!(requests.iter().all(|url| url.starts_with(&page)), "{requests:?}");
    assert!(
        requests.contains(&format!("{page}?address={}", user.replace('@', "%40"))),
        "{requests:?}"
    );

    // The second step: the password stays in the browser.
    browser.fill("#password", PASSWORD);
    browser.click("#login button");
    browser.wait_until("return !document.getElementById('code').hidden");
    let folder = tempfile::tempdir().unwrap();
    let picture = std::env::var_os("DELTAPUSH_SCREENSHOTS")
        .map_or(folder.path().to_owned(), Into::into)
        .join("code.png");
    browser.shoot(&picture, 4000);
    let code = read_png(&fs::read(picture).unwrap());
    assert_eq!(browser.run("return document.getElementById('open').getAttribute('href')"), code);
    // Typed input goes nowhere, and the page's policy lets it go nowhere.
    assert_eq!(browser.requests(), Vec::<String>::new());
    let sent = browser.run("return fetch('/?x').then(() => 'sent', () => 'forbidden')");
    assert_eq!(sent, "forbidden");
    assert_eq!(browser.run("return document.getElementById('password').value"), "");
    drop(browser);

    let link = deltapush(proxy.dir(), &["qr", "--link", &user], PASSWORD);
    assert_eq!(text(&link.stdout).trim_end(), code, "the page and the command make the same code");
    accept(&code, &user, dovecot, &proxy).await;
}

#[tokio::test]
async fn page_without_a_script_says_what_to_enter() {
    let routes = "  - domain: lab.test\n    upstream: imaps://imap.lab.test\n    smtp: smtp://smtp.lab.test\n    smtp_login: local\n";
    let options =
        Options { routes: Some(routes.to_owned()), listener: "web: true", ..Options::plain(0) };
    let proxy = Deltapush::start(&options);
    let mut browser = Browser::start();
    for width in [390, 1280] {
        let look = Look { width, scheme: "light", script: false };
        let page = format!("https://localhost:{}/", proxy.imaps);
        let shown = browser.open(&page, look);
        assert!(shown.html.contains("action=\"/\"") && shown.width <= f64::from(width));
        let shown = browser.open(&format!("{page}?address=alice%40lab.test"), look);
        assert!(shown.width <= f64::from(width), "{}", shown.width);
        assert!(shown.complaints.is_empty(), "{:?}", shown.complaints);
        for entry in [
            "needs JavaScript",
            &format!(">{}<", proxy.imaps),
            ">alice@lab.test<",
            ">smtp.lab.test<",
            ">587<",
            ">STARTTLS<",
            ">alice<",
        ] {
            assert!(shown.html.contains(entry), "{entry} in {}", shown.html);
        }
    }
}

/// A certificate for `names` as two files in `folder`, and the hash of its key as Delta Chat remembers it.
pub(crate) fn certificate(folder: &Path, file: &str, names: &[&str]) -> String {
    let made = rcgen::generate_simple_self_signed(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::write(folder.join(format!("{file}.pem")), made.cert.pem()).unwrap();
    fs::write(folder.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    let info = made.signing_key.subject_public_key_info();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &info);
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, hash)
}

/// The core verifies certificates by Mozilla's list, which a test cannot join. It also takes a key that it has verified before; so
/// it is made to remember those of this test. All else of its verification, such as the name on the certificate, counts.
async fn find_from_the_address(web_host: &'static str, name: &str) {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let sending = certificate(folder.path(), "smtp", &["smtp.lab.test"]);
    let reading = certificate(folder.path(), "imap", &["push.lab.test", web_host]);
    let submission = Submission::start_with(dovecot, &file("smtp.pem"), &file("smtp.key")).await;
    let files = format!("chain: {}\n  key: {}", json!(file("imap.pem")), json!(file("imap.key")));
    let options = options(dovecot, "smtps://smtp.lab.test");
    let proxy =
        Deltapush::start(&Options { hostname: "push.lab.test", certificate: files, ..options });
    let tunnel = Tunnel::start(&[
        (format!("{web_host}:443"), proxy.imaps),
        (format!("push.lab.test:{}", proxy.imaps), proxy.imaps),
        ("smtp.lab.test:465".to_owned(), submission.port),
    ])
    .await;
    let user = dovecot.user(name);
    let mut core = Core::start(Version::Current).await;
    let verified =
        [("push.lab.test", reading.clone()), (web_host, reading), ("smtp.lab.test", sending)];
    let account = core.add_account_behind(tunnel.port, &verified).await;
    core.call("add_or_update_transport", json!([account, {"addr": user, "password": PASSWORD}]))
        .await;
    dovecot.expect_logins(&user, 1).await;
    let asked = tunnel.asked();
    assert!(asked.contains(&format!("push.lab.test:{}", proxy.imaps)), "{asked:?}");
    assert!(asked.contains(&"smtp.lab.test:465".to_owned()), "{asked:?}");
    core.kill().await;
}

#[tokio::test]
async fn core_finds_the_proxy_at_the_autoconfig_host_from_the_address_alone() {
    find_from_the_address("autoconfig.lab.test", "autoconfig-host").await;
}

#[tokio::test]
async fn core_finds_the_proxy_at_the_domain_from_the_address_alone() {
    find_from_the_address("lab.test", "autoconfig-domain").await;
}

#[tokio::test]
async fn imap_client_that_names_the_domain_is_greeted_all_the_same() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "imap", &["localhost"]);
    let file = |name: &str| json!(folder.path().join(name));
    let files = format!("chain: {}\n  key: {}", file("imap.pem"), file("imap.key"));
    // The domain is the name that clients ask for.
    let routes = format!(
        "  - domain: localhost\n    upstream: imaps://localhost:{}\n    ca: {}\n    login: \"{{local}}@lab.test\"\n",
        dovecot.imaps,
        json!(dovecot.authority.ca)
    );
    let options = Options {
        routes: Some(routes),
        certificate: files,
        listener: "web: true",
        ..Options::plain(0)
    };
    let proxy = Deltapush::start(&options);
    dovecot.user("greeted");
    let mut client = Client::tls(proxy.imaps, &folder.path().join("imap.pem")).await;
    client.expect_prefix("* OK").await;
    let login = client.command(&format!("c1 LOGIN greeted@localhost {}", quoted(PASSWORD))).await;
    assert!(login.result.starts_with("OK"), "{login:?}");
}

#[tokio::test]
async fn where_mail_is_sent_is_found_and_handed_out() {
    let dns = DnsServer::start();
    dns.service("_submissions._tcp.lab.test", 10, "smtp.lab.test.", 465);
    let routes = "  - domain: lab.test\n    upstream: imaps://imap.lab.test\n".to_owned();
    let options = Options {
        routes: Some(routes),
        listener: "web: true",
        more: dns.yaml(),
        ..Options::plain(0)
    };
    let proxy = Deltapush::start(&options);
    let tls = trusting(&proxy.certificate(), &[b"h2", b"http/1.1"]);
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let url = format!(
        "https://localhost:{}/mail/config-v1.1.xml?emailaddress=alice%40lab.test",
        proxy.imaps
    );
    let mut document = String::new();
    for _ in 0..60 {
        document = client.get(&url).send().await.unwrap().text().await.unwrap();
        if document.contains("outgoingServer") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(
        document.contains("<hostname>smtp.lab.test</hostname>\n      <port>465</port>"),
        "{document}"
    );
    assert!(
        document.contains(&format!(
            "<hostname>localhost</hostname>\n      <port>{}</port>",
            proxy.imaps
        )),
        "{document}"
    );
}

#[tokio::test]
async fn init_looks_logs_in_and_writes_what_runs() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let folder = tempfile::tempdir().unwrap();
    let user = dovecot.user("init");
    let upstream = format!("imaps://localhost:{}", dovecot.imaps);
    let ca = dovecot.authority.ca.to_str().unwrap();
    let arguments = [
        "init",
        &user,
        "--upstream",
        &upstream,
        "--ca",
        ca,
        "--hostname",
        "localhost",
        "--smtp",
        "smtps://smtp.lab.test",
        "--password-stdin",
    ];
    let made = deltapush(folder.path(), &arguments, PASSWORD);
    let (said, complaints) = (text(&made.stdout), text(&made.stderr));
    assert!(made.status.success(), "{said}{complaints}");
    for expected in [
        &*format!("The login as {user} works."),
        "IDLE: yes: push works",
        "NOTIFY: yes",
        "COMPRESS: no: deltapush itself compresses",
        "Created config.yaml.\nStart deltapush: deltapush --config config.yaml",
        "IMAP server localhost, port ",
        "certificate checks: accept invalid certificates",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    let code = read_terminal(said);
    assert!(
        code.contains("&ih=localhost&") && code.contains("&sh=smtp.lab.test&sp=465&ss=ssl"),
        "{code}"
    );
    assert!(!said.contains(PASSWORD) && !complaints.contains(PASSWORD));
    let written = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
    assert!(written.contains("# ") && !written.contains("quoted"), "{written}");
    let check = checked(folder.path());
    assert!(check.status.success(), "{}", text(&check.stderr));
    dovecot.expect_logins(&user, 1).await;

    // An existing file stays without --overwrite.
    let refused = deltapush(folder.path(), &arguments, PASSWORD);
    assert_eq!(refused.status.code(), Some(64));
    assert!(
        text(&refused.stderr).contains("replace it with --overwrite"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(fs::read_to_string(folder.path().join("config.yaml")).unwrap(), written);
    let again = [&arguments[..], &["--overwrite"]].concat();
    assert!(deltapush(folder.path(), &again, PASSWORD).status.success());

    let wrong = [&arguments[..], &["--config", "other.yaml"]].concat();
    let refused = deltapush(folder.path(), &wrong, "wrong");
    assert_eq!(refused.status.code(), Some(64));
    assert!(
        text(&refused.stderr).contains("the mail server refused the login"),
        "{}",
        text(&refused.stderr)
    );
    assert!(!folder.path().join("other.yaml").exists());
}

/// Dialogue with a server that is only looked at.
const LOOK: &str = r"
    S: * OK hello
    C: dp1 CAPABILITY
    S: * CAPABILITY IMAP4rev1 AUTH=PLAIN
    S: dp1 OK done
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_finds_a_server_by_srv_and_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::naming(folder.path(), &["imap.lab.test"]);
    let manner = Manner { tls: Some(authority.server_config()), ..Manner::default() };
    let server = Scripted::start_with(manner, &[LOOK]).await;
    let dns = DnsServer::start();
    dns.service("_imaps._tcp.lab.test", 10, "imap.lab.test.", server.port);
    dns.service("_submissions._tcp.lab.test", 10, "smtp.lab.test.", 465);
    dns.address("imap.lab.test", "127.0.0.1");
    let (address, ca) = (dns.address.to_string(), authority.ca.to_str().unwrap().to_owned());
    let arguments = [
        "init",
        "you@lab.test",
        "--dns",
        &address,
        "--ca",
        &ca,
        "--private",
        "--hostname",
        "_imap.lab.test",
    ];
    let path = folder.path().to_owned();
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let run =
        move || deltapush(&path, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let made = tokio::task::spawn_blocking(run).await.unwrap();
    let (said, complaints) = (text(&made.stdout), text(&made.stderr));
    assert!(made.status.success(), "{said}{complaints}");
    assert!(said.contains("IDLE: not announced before the login"), "{said}");
    assert!(
        said.contains("SMTP server smtps://smtp.lab.test:465: published by its domain."),
        "{said}"
    );
    assert!(said.contains("DNS has no address for _imap.lab.test yet"), "{said}");
    assert!(said.contains("deltapush qr you@lab.test --config config.yaml"), "{said}");
    let written = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
    let upstream = format!("upstream: \"imaps://imap.lab.test:{}\"", server.port);
    for line in [&*upstream, "hostname: \"_imap.lab.test\"", "smtp: \"smtps://smtp.lab.test:465\""]
    {
        assert!(written.contains(line), "{line}\n{written}");
    }
    assert!(checked(folder.path()).status.success());
    server.finish().await;
}

/// `init` for a domain of which this DNS server knows nothing.
async fn finds_nothing(folder: &Path, dns: String) -> Output {
    let path = folder.to_owned();
    let run = move || {
        let arguments = ["init", "you@nowhere.test", "--dns", &dns, "--hostname", "localhost"];
        deltapush(&path, &arguments, "")
    };
    let refused = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(refused.status.code(), Some(69), "{}", text(&refused.stdout));
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_says_what_to_do_where_nothing_is_found() {
    let dns = DnsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let refused = finds_nothing(folder.path(), dns.address.to_string()).await;
    assert!(
        text(&refused.stderr).contains("--upstream imaps://imap.example.org"),
        "{}",
        text(&refused.stderr)
    );
    assert!(text(&refused.stdout).contains("Trying the usual names"), "{}", text(&refused.stdout));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

#[tokio::test]
async fn init_tells_a_silent_dns_server_apart() {
    let folder = tempfile::tempdir().unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = finds_nothing(folder.path(), silent.local_addr().unwrap().to_string()).await;
    let told = text(&refused.stderr);
    assert!(told.contains("DNS gives no answer") && told.contains("--dns ADDRESS:PORT"), "{told}");
}
