//! Variables of the environment as a configuration, and their mistakes.

use std::path::Path;

use super::environment::{CA, HOSTNAME, LOGINS, TERMS, UPSTREAM};
use super::{Config, Environment, Trust};

fn environment(set: &[(&str, &str)]) -> Environment {
    Environment::of(set.iter().map(|(name, value)| ((*name).to_owned(), value.into())))
}

fn config(set: &[(&str, &str)]) -> Result<Config, String> {
    environment(set).config().map_err(|error| error.to_string())
}

const LEAST: [(&str, &str); 2] = [(HOSTNAME, "Push.example.org"), (LOGINS, "example.org")];

#[test]
fn two_variables_are_a_configuration() {
    let config = config(&LEAST).unwrap();
    assert_eq!(config.live.hostname.as_str(), "push.example.org");
    let listeners: Vec<_> =
        config.live.listeners.iter().map(|l| (l.address.port(), l.web)).collect();
    assert_eq!(listeners, [(993, false), (443, true)]);
    let route = &config.live.routes[0];
    assert!(route.discover && route.upstream.is_none());
    assert_eq!((route.to_string().as_str(), config.live.routes.len()), ("example.org", 1));
    assert!(config.live.certificate.acme.is_none());
    assert_eq!(config.startup.storage.directory, Path::new("state"));
}

#[test]
fn all_variables_are_keys() {
    let set = [
        (HOSTNAME, "push.example.org"),
        (LOGINS, "example.org, alice@example.net  Bob@example.net"),
        (UPSTREAM, "imaps://mail.example.org"),
        (CA, "/run/secrets/ca.pem"),
        (TERMS, "true"),
        ("DELTAPUSH_SEAL_KEY", "x"),
        ("DELTAPUSH_PORT_993_TCP", "tcp://192.0.2.1:993"),
        ("PATH", "/usr/bin"),
    ];
    let config = config(&set).unwrap();
    let routes: Vec<_> = config.live.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["example.org", "alice@example.net", "bob@example.net"]);
    assert!(config.live.routes.iter().all(|route| {
        route.destination() == "imaps://mail.example.org:993"
            && !route.discover
            && *route.ca == Trust::File(Path::new("/run/secrets/ca.pem").into())
    }));
    assert!(config.live.certificate.acme.unwrap().terms_agreed);
}

#[test]
fn each_mistake_names_its_variable() {
    let with = |name, value| [LEAST[0], LEAST[1], (name, value)];
    for (set, expected) in [
        (
            vec![(HOSTNAME, "a.example")],
            "environment: DELTAPUSH_LOGINS: is missing, while DELTAPUSH_HOSTNAME is set",
        ),
        (
            vec![(LOGINS, "a.example"), (HOSTNAME, "")],
            "environment: DELTAPUSH_HOSTNAME: is missing",
        ),
        (
            vec![(HOSTNAME, "a.example:993"), LEAST[1]],
            "environment: DELTAPUSH_HOSTNAME: \"a.example:993\" is neither",
        ),
        (vec![LEAST[0], (LOGINS, "*")], "environment: DELTAPUSH_LOGINS: \"*\" would let strangers"),
        (
            vec![LEAST[0], (LOGINS, "@a.example")],
            "environment: DELTAPUSH_LOGINS: \"@a.example\" is neither a domain nor",
        ),
        (
            vec![LEAST[0], (LOGINS, "a.example,a.example")],
            "environment: DELTAPUSH_LOGINS: there are two routes for `a.example`",
        ),
        (vec![LEAST[0], (LOGINS, " ")], "environment: DELTAPUSH_LOGINS: names no login"),
        (vec![LEAST[0], (LOGINS, ",")], "environment: DELTAPUSH_LOGINS: names no login"),
        (
            with("DELTAPUSH_UPSTREEM", "x").to_vec(),
            "environment: unknown variable DELTAPUSH_UPSTREEM, expected one of DELTAPUSH_HOSTNAME, ",
        ),
        (
            with(UPSTREAM, "mail.example.org").to_vec(),
            "environment: DELTAPUSH_UPSTREAM: \"mail.example.org\" has no scheme",
        ),
        (
            with(UPSTREAM, "imap+plain://dovecot").to_vec(),
            "environment: DELTAPUSH_UPSTREAM: passwords would cross the network in clear to dovecot",
        ),
        (
            with(TERMS, "1").to_vec(),
            "environment: DELTAPUSH_AGREE_TO_TERMS: \"1\" is neither `true` nor `false`",
        ),
        (
            vec![(HOSTNAME, "_imap.example.org"), LEAST[1], (TERMS, "true")],
            "environment: DELTAPUSH_AGREE_TO_TERMS: no authority issues",
        ),
    ] {
        let error = config(&set).unwrap_err();
        assert!(error.starts_with(expected) && error.lines().count() == 1, "{set:?}: {error}");
        assert!(!error.contains("`acme`"), "{error}");
    }
}

#[test]
fn all_mistakes_are_named_at_once() {
    let error = config(&[(HOSTNAME, "a b"), (TERMS, "maybe"), (UPSTREAM, "x")]).unwrap_err();
    assert_eq!(error.lines().count(), 4, "{error}");
}

#[test]
fn file_and_variables_exclude_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let error = Config::find(Some(&file), &environment(&LEAST)).unwrap_err().to_string();
    assert!(
        error.contains("DELTAPUSH_HOSTNAME, DELTAPUSH_LOGINS") && error.contains("config.yaml"),
        "{error}"
    );
    std::fs::write(&file, "hostname: a.example\n").unwrap();
    let config = Config::find(Some(&file), &environment(&[])).unwrap();
    assert_eq!(config.live.hostname.as_str(), "a.example");
}
