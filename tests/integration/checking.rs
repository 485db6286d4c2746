//! `deltapush check --login NAME --connect` with a real mail server: result, remedy and exit code of each case that
//! docs/routes.md names.

use super::support::certs::Authority;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, Setup};
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
