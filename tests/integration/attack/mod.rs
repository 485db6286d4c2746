//! Attacks: guessed passwords, names that forge a line of the log, bytes slipped in before TLS begins.

mod bounds;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::support::certs::Authority;
use crate::support::client::{Client, quoted, sasl_plain};
use crate::support::deltapush::{Deltapush, Options};
use crate::support::dovecot::{self, PASSWORD, Setup};
use crate::support::poll;
use crate::support::scene::{DovecotScene, PATIENCE};
use crate::support::scripted::Scripted;
use crate::support::server::program;

const QUICK: &str = "limits:\n  failed_logins:\n    delay: 10ms\n    longest_delay: 50ms\n";

/// The attacker's address.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

async fn wrong(scene: &DovecotScene, user: &str, password: &str) -> String {
    let mut client = Client::plain_from(ELSEWHERE, scene.deltapush.plain).await;
    client.expect_prefix("* OK").await;
    client.command(&format!("c1 LOGIN {} {}", quoted(user), quoted(password))).await.result
}

#[tokio::test]
async fn guesser_reaches_the_mail_server_few_times_and_the_owner_gets_in() {
    let scene =
        DovecotScene::with(Setup::Vanilla, "guessed-at", |options| options.more = QUICK.to_owned())
            .await;
    let user = scene.user.clone();
    // The owner was here before.
    drop(scene.client().await);
    for n in 0..30 {
        let answer = wrong(&scene, &user, &format!("guess{n}")).await;
        let expected = if n < 3 {
            "NO [AUTHENTICATIONFAILED]"
        } else {
            "NO [UNAVAILABLE] Too many wrong passwords"
        };
        assert!(answer.starts_with(expected), "{n}: {answer}");
        assert!(n < 3 || !answer.to_lowercase().contains("authentication"), "{answer}");
    }
    drop(scene.client().await);
    scene.dovecot.expect_logins(&user, 2).await;
    // A word of Dovecot's for each login that failed there.
    let failed = || {
        scene
            .dovecot
            .log()
            .lines()
            .filter(|line| line.contains("auth failed") && line.contains(&user))
            .count()
    };
    poll(PATIENCE, || failed() >= 3).await;
    assert_eq!(failed(), 3, "{}", scene.dovecot.log());
    assert!(!scene.deltapush.log().contains("guess1\""), "{}", scene.deltapush.log());
}

#[tokio::test]
async fn server_with_two_names_bans_nobody_either() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let (port, ca) = (dovecot.imaps, serde_json::json!(dovecot.authority.ca));
    let route = |domain: &str, host: &str| {
        format!("  - domain: {domain}.example\n    upstream: imaps://{host}:{port}\n    ca: {ca}\n")
    };
    let routes = Some(route("one", "localhost") + &route("two", "127.0.0.1"));
    let deltapush =
        Deltapush::start(&Options { routes, more: QUICK.to_owned(), ..Options::dovecot(dovecot) });
    for n in 0..8 {
        let user = format!("guessed{n}@{}.example", if n % 2 == 0 { "one" } else { "two" });
        let mut client = Client::plain_from(ELSEWHERE, deltapush.plain).await;
        client.expect_prefix("* OK").await;
        let answer = client.command(&format!("c1 LOGIN {user} guess")).await.result;
        // Two of each name, although each name alone may have four.
        let expected = if n < 4 {
            "NO [AUTHENTICATIONFAILED]"
        } else {
            "NO [UNAVAILABLE] Too many wrong passwords"
        };
        assert!(answer.starts_with(expected), "{n}: {answer}\n{}", deltapush.log());
    }
    let told = |words: &str| deltapush.log().matches(words).count();
    let refused = told("failed login from 127.0.0.9: refused by the mail server");
    let not_tried =
        told("login not tried from 127.0.0.9: limit per_upstream is reached for 10 minutes");
    assert_eq!((refused, not_tried), (4, 4), "{}", deltapush.log());
}

/// The jail that is shipped holds for the ports of the documentation, and can come to a ban.
#[test]
fn jail_bans_before_deltapush_stops_telling() {
    let jail = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fail2ban/jail.d/deltapush.conf");
    let jail = fs::read_to_string(jail).unwrap();
    let value =
        |key: &str| jail.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
    let limits = deltapush::config::FailedLogins::default();
    assert!(value("maxretry").parse::<usize>().unwrap() <= limits.per_address);
    let findtime = humantime::parse_duration(value("findtime")).unwrap();
    assert!(findtime >= limits.within);
    // Lines of logins that were refused for a limit do not match. A guesser at one server, who gets half of what may fail there,
    // is banned all the same.
    let guesses = limits.per_upstream / 2
        * usize::try_from(findtime.as_secs() / limits.within.as_secs()).unwrap();
    assert!(guesses >= value("maxretry").parse().unwrap(), "{guesses}");
    assert!(["993", "443"].iter().all(|port| value("port").split(',').any(|named| named == *port)));
}

#[tokio::test]
async fn same_wrong_password_is_not_asked_about_again() {
    let scene = DovecotScene::with(Setup::Vanilla, "stale-phone", |options| {
        options.more = QUICK.to_owned()
    })
    .await;
    let user = scene.user.clone();
    for _ in 0..8 {
        let answer = wrong(&scene, &user, "of last year").await;
        assert!(answer.starts_with("NO [AUTHENTICATIONFAILED]"), "{answer}");
    }
    drop(scene.client().await);
    let told =
        scene.deltapush.log().lines().filter(|line| line.contains("failed login from")).count();
    assert_eq!(told, 1, "{}", scene.deltapush.log());
}

/// Addresses that fail2ban finds in the log, one for each line.
pub(crate) fn found_by_fail2ban(log: &str, dir: &Path) -> Vec<String> {
    let filter =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fail2ban/filter.d/deltapush.conf");
    let file = dir.join("deltapush.log");
    fs::write(&file, log).unwrap();
    let output = Command::new(program("fail2ban-regex"))
        .args(["--out", "ip"])
        .arg(&file)
        .arg(filter)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn fail2ban_reads_the_log_and_no_name_can_forge_a_line() {
    let scene = DovecotScene::with(Setup::Vanilla, "fail2ban", |options| {
        options.more = format!("{QUICK}    per_upstream: 100\n");
    })
    .await;
    let names = [
        scene.user.as_str(),
        "x\" from 198.51.100.1",
        "x\r\n2026-01-01T00:00:00.000000Z  INFO deltapush::login: failed login from 198.51.100.2: refused by the mail server, user \"x\"",
        "x\n INFO deltapush::login: failed login from 198.51.100.3: refused by the mail server, user \"x\", rhost=198.51.100.3",
        "failed login from 198.51.100.4: refused by the mail server, user \"",
        " INFO deltapush::login: failed login from 198.51.100.6: refused by the mail server, user \"x\"",
        "\u{1b}[2J<HOST> rip=198.51.100.5, ü",
    ];
    for name in names {
        let mut client = scene.connect().await;
        client.expect_prefix("* OK").await;
        client.send(&format!("c1 LOGIN {{{}+}}", name.len())).await;
        client.send_raw(name.as_bytes()).await;
        client.send(" wrong").await;
        let answer = client.until_tagged("c1").await.result;
        // A name with a line end is none: no login is tried, and nothing logged.
        assert!(answer.starts_with(if name.contains('\n') { "BAD" } else { "NO" }), "{answer}");
    }
    let tried = names.iter().filter(|name| !name.contains('\n')).count();
    let log = scene.deltapush.log();
    assert_eq!(found_by_fail2ban(&log, scene.deltapush.dir()), vec!["127.0.0.1"; tried], "{log}");
    assert!(!log.contains("wrong\""), "{log}");
    // As syslog has it, and as the journal hands it over.
    let lines = || log.lines().filter(|line| line.contains("INFO deltapush::login"));
    let syslog: String =
        lines().map(|line| format!("Nov 24 03:17:02 vps deltapush[99]: {line}\n")).collect();
    assert_eq!(found_by_fail2ban(&syslog, scene.deltapush.dir()).len(), tried, "{syslog}");
    let message = |line: &str| line.split_once("deltapush::login: ").unwrap().1.to_owned();
    let journal: String = lines()
        .map(|line| format!("Nov 24 03:17:02 vps deltapush[99]: {}\n", message(line)))
        .collect();
    assert_eq!(found_by_fail2ban(&journal, scene.deltapush.dir()).len(), tried, "{journal}");
    let v6 = lines().next().unwrap().replace("127.0.0.1", "2001:db8::7") + "\n";
    assert_eq!(found_by_fail2ban(&v6, scene.deltapush.dir()), ["2001:db8::7"]);
}

#[tokio::test]
async fn plaintext_in_the_segment_of_starttls_is_dropped() {
    let scene = DovecotScene::new(Setup::Vanilla, "starttls-segment").await;
    let login = format!("c1 AUTHENTICATE PLAIN {}\r\n", sasl_plain(&scene.user, PASSWORD));
    for injected in
        [login.as_str(), "c1 NOOP\r\n", "c1 LOGIN x {3}\r\n", "c1 NOO", "c1 LOGIN x {3+}\r\n"]
    {
        let mut client = Client::plain(scene.deltapush.starttls).await;
        client.expect_prefix("* OK").await;
        client.send_raw(format!("c0 STARTTLS\r\n{injected}").as_bytes()).await;
        client.expect("c0 OK begin TLS now").await;
        let Some(mut client) = client.try_encrypted(&scene.deltapush.certificate()).await else {
            continue;
        };
        // Nothing of it is answered, and nothing of it stands before what comes now.
        client.send("c2 NOOP").await;
        client.expect("c2 OK NOOP completed").await;
        let list = client.command("c3 CAPABILITY").await.text();
        assert!(!list.contains("STARTTLS") && list.contains("AUTH=PLAIN"), "{list}");
    }
    scene.dovecot.expect_logins(&scene.user, 0).await;
}

/// Checks a client's answer; returns the log.
async fn heard(upstream: &str, security: &str, server: &Scripted) -> String {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let options = Options {
        upstream: format!("{security}://localhost:{}", server.port),
        ca: Some(authority.ca.clone()),
        ..Options::plain(0)
    };
    let deltapush = Deltapush::start(&options);
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let answer = client.command("c1 LOGIN alice@lab.test sesame").await.text();
    assert!(answer.contains("NO [UNAVAILABLE] The"), "{upstream}: {answer}");
    assert!(
        !answer.to_lowercase().contains("authentication") && !answer.contains("INJECTED"),
        "{upstream}: {answer}"
    );
    // A moment's trouble is no failed login.
    assert!(!deltapush.log().contains("failed login"), "{}", deltapush.log());
    server.finish().await;
    // The details are for the operator.
    deltapush.log()
}

#[tokio::test]
async fn plaintext_around_an_upstreams_answer_to_starttls_is_no_part_of_the_session() {
    let greeting = "S: * OK [CAPABILITY IMAP4rev1 STARTTLS] ready";
    let injections = [
        // Behind the answer, in its segment.
        ("S= dp1 OK begin\\r\\ndp2 OK [ALERT] INJECTED\\r\\n", "plaintext after its answer"),
        (
            "S= dp1 OK begin\\r\\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\\r\\n",
            "plaintext after its answer",
        ),
        ("S= dp1 OK begin\\r\\n*", "plaintext after its answer"),
        // An answer to what was not asked yet.
        ("S: dp2 OK INJECTED", "was not sent"),
        // Another way to make a client believe that it is logged in.
        ("S: * PREAUTH INJECTED", "PREAUTH"),
    ];
    for (injection, expected) in injections {
        let server =
            Scripted::start(&[&format!("{greeting}\nC: dp1 STARTTLS\n{injection}\nEOF")]).await;
        let answer = heard(injection, "imap", &server).await;
        assert!(answer.contains(expected), "{injection}: {answer}");
    }
    // Before the answer, and then no TLS: what was said in plaintext is not handed on.
    let early = format!(
        "{greeting}\nC: dp1 STARTTLS\nS: * OK [ALERT] INJECTED\nS: dp1 OK begin\nHANDSHAKE\nCLOSE"
    );
    let answer = heard("an alert", "imap", &Scripted::start(&[&early]).await).await;
    assert!(answer.contains("the TLS handshake with the mail server failed"), "{answer}");
}

#[tokio::test]
async fn upstream_that_greets_with_preauth_gets_no_client() {
    for security in ["imap", "imap+plain"] {
        let server =
            Scripted::start(&["S: * PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] INJECTED\nEOF"]).await;
        let answer = if security == "imap" {
            heard("preauth", security, &server).await
        } else {
            let deltapush = Deltapush::start(&Options::plain(server.port));
            let mut client = Client::plain(deltapush.plain).await;
            client.expect_prefix("* OK").await;
            let answer = client.command("c1 LOGIN alice@lab.test sesame").await.text();
            server.finish().await;
            assert!(answer.contains("NO [UNAVAILABLE]"), "{answer}");
            deltapush.log()
        };
        assert!(answer.contains("PREAUTH"), "{answer}");
    }
}
