//! `deltapush check --login NAME --connect` with a real mail server: result, remedy and exit code of each case that
//! docs/routes.md names.

use super::support::certs::Authority;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Setup};
use super::support::notify::NotifyServer;
use super::support::ports::ReservedPort;

/// A refusal of the configuration, and a mail server that is not there or cannot be used.
const CONFIGURATION: i32 = 78;
const UNAVAILABLE: i32 = 69;

/// The exit code of the command, its output and its error.
fn check(options: &Options) -> (i32, String, String) {
    let deltapush = Deltapush::start(options);
    let output = deltapush.asked(&["check", "--login", "alice@lab.test", "--connect"]);
    let [text, error] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    (output.status.code().unwrap(), text, error)
}

/// Expects the command to fail with this exit code and these words, and not to report a connection that works.
#[track_caller]
fn expect_failure(options: &Options, code: i32, words: &[&str]) {
    let (exit, text, error) = check(options);
    assert_eq!(exit, code, "{text}{error}");
    for words in words {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
    assert!(!text.contains("connection "), "{text}");
}

#[test]
fn mail_server_that_works_is_shown_with_its_capabilities() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let (exit, text, error) = check(&Options::dovecot(dovecot));
    assert_eq!((exit, &*error), (0, ""), "{text}");
    for line in [
        "connection   works; the certificate is valid\n",
        "IDLE: yes: push works\n",
        &format!("server       imaps://localhost:{} (", dovecot.imaps),
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
}

#[test]
fn certificate_that_is_not_trusted_is_answered_with_the_key_to_set() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new(folder.path());
    let options = Options { ca: Some(other.ca), ..Options::dovecot(dovecot) };
    expect_failure(&options, UNAVAILABLE, &["invalid peer certificate", "set `ca:` in the route"]);
}

#[test]
fn port_without_a_server_is_answered_with_the_places_to_look() {
    let port = ReservedPort::new();
    let upstream = format!("imaps://localhost:{}", port.number());
    let options = Options { upstream, ..Options::plain(0) };
    let words = ["Connection refused", "check that the mail server runs, and its port"];
    expect_failure(&options, UNAVAILABLE, &words);
}

#[test]
fn login_without_a_route_is_refused_before_any_connection() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let options = Options { domain: "else.test".to_owned(), ..Options::dovecot(dovecot) };
    let words = ["alice@lab.test is refused", "no route matches it"];
    expect_failure(&options, CONFIGURATION, &words);
}

/// The findings of `deltapush doctor`, without those of the machine: its versions and its clock.
fn doctor(deltapush: &Deltapush, arguments: &[&str]) -> (i32, String, String) {
    let output = deltapush.asked(&[&["doctor"], arguments].concat());
    let [text, error] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    (output.status.code().unwrap(), text, error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_a_running_deltapush_well_and_names_what_is_missing() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let notify = NotifyServer::start().await;
    let options = Options { notify_url: notify.url.clone(), ..Options::dovecot(dovecot) };
    let deltapush = Deltapush::start(&options);
    let (exit, text, error) = tokio::task::block_in_place(|| doctor(&deltapush, &[]));
    assert_eq!((exit, &*error), (0, ""), "{text}");
    for line in [
        &*format!("ok    service      deltapush {} runs since ", env!("CARGO_PKG_VERSION")),
        "ok    state        ",
        "warn  hostname     localhost is for this machine only",
        &format!("ok    listen       port {} (TLS: implicit) answers at ", deltapush.imaps),
        "warn  certificate  self-signed",
        &format!(
            "ok    route        localhost:{} answers, its certificate is valid, IDLE: yes",
            dovecot.imaps
        ),
        "ok    push         the notification server 127.0.0.1 answers",
        "ok    clock        the clock of this machine is right",
        "warn  accounts     no app has logged in yet",
        "ok    idle         watches renew IDLE after ",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert!(notify.posted().is_empty(), "it wakes nobody");

    // A push test is for an account that is there.
    let arguments = ["--push-test", "nobody@lab.test"];
    let (exit, _, error) = tokio::task::block_in_place(|| doctor(&deltapush, &arguments));
    assert_eq!(exit, UNAVAILABLE, "{error}");
    assert!(error.contains("nobody@lab.test"), "{error}");
}

#[test]
fn doctor_names_each_part_that_does_not_answer() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new(folder.path());
    let options = Options { ca: Some(other.ca), ..Options::dovecot(dovecot) };
    let mut deltapush = Deltapush::start(&options);
    assert!(deltapush.terminate().success());
    let (exit, text, error) = doctor(&deltapush, &[]);
    assert_eq!(exit, UNAVAILABLE, "{text}{error}");
    for line in [
        "fail  service      no deltapush runs with this configuration\n",
        "connection refused\n                   → deltapush does not listen there",
        "invalid peer certificate",
        "set `ca:` in the route",
        "fail  push         the notification server ",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert!(error.ends_with(": service, listen, route, push\n"), "{error}");
}
