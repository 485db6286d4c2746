//! Routes: the server of each login, and the login name there.

use std::path::Path;

use super::*;
use crate::config::Config;

fn routes(yaml: &str) -> Routes {
    Routes::new(
        &Config::parse(&format!("routes:\n{yaml}"), Path::new(""), "test").unwrap().live.routes,
    )
}

fn find(routes: &Routes, login: &str) -> Option<Target> {
    routes.find(&Asked { login, listener: None, host: None })
}

fn resolved(routes: &Routes, login: &str) -> Option<String> {
    find(routes, login).map(|target| target.name())
}

fn endpoint_of(target: Target) -> Endpoint {
    match target.servers {
        Servers::Fixed(endpoint) => endpoint,
        Servers::Discovered(domain) => panic!("{domain} is looked up"),
    }
}

#[test]
fn domain_decides_and_the_exact_route_comes_first() {
    let routes = routes(concat!(
        "  - domain: \"*\"\n    upstream: imaps://imap.{domain}:994\n",
        "  - domain: Example.org\n    upstream: imap://mail.example.net\n    ca: system\n",
        "  - domain: six.example\n    upstream: imap+plain://[::1]:1143\n",
        "  - domain: own.example\n    upstream: imaps://mx.{domain}\n",
    ));
    let target = find(&routes, "bob@EXAMPLE.org").unwrap();
    assert_eq!((&target.terms.trust, target.reach), (&Trust::System, Reach::Anywhere));
    let host: Arc<str> = "mail.example.net".into();
    let endpoint =
        Endpoint { identity: host.clone(), host, port: 143, security: Security::StartTls };
    assert_eq!(endpoint_of(target), endpoint);
    let target = find(&routes, "bob@Else.example").unwrap();
    assert_eq!((&target.terms.trust, target.reach), (&Trust::WebPki, Reach::PublicOnly));
    let host: Arc<str> = "imap.else.example".into();
    let endpoint = Endpoint { identity: host.clone(), host, port: 994, security: Security::Tls };
    assert_eq!(endpoint_of(target), endpoint);
    assert_eq!(resolved(&routes, "bob@six.example").unwrap(), "[::1]:1143");
    assert_eq!(resolved(&routes, "bob@own.example").unwrap(), "mx.own.example:993");
    assert_eq!(resolved(&routes, "bob@evil.example@example.org").unwrap(), "mail.example.net:143");
    assert_eq!(resolved(&routes, "@example.org").unwrap(), "mail.example.net:143");
}

#[test]
fn without_a_default_route_others_are_refused() {
    let routes = routes("  - domain: example.org\n    upstream: imaps://mail.example.org\n");
    assert_eq!(resolved(&routes, "bob@example.org").unwrap(), "mail.example.org:993");
    for login in [
        "bob@example.com",
        "bob@sub.example.org",
        "bob",
        "",
        "example.org",
        "bob@",
        "bob@example.org.",
    ] {
        assert_eq!(resolved(&routes, login), None, "{login}");
    }
}

#[test]
fn fixed_default_host_takes_every_login() {
    let routes = routes("  - domain: \"*\"\n    upstream: imaps://mail.example.org\n");
    for login in ["bob", "bob@example.com", "bob@localhost", "bob@[127.0.0.1]", "bob@bücher.de"] {
        assert_eq!(resolved(&routes, login).unwrap(), "mail.example.org:993", "{login}");
    }
    for login in ["bob\0@example.org", "bob@example.org\r\n", "b\nob"] {
        assert_eq!(resolved(&routes, login), None, "{login:?}");
    }
}

#[test]
fn login_cannot_choose_a_host_inside() {
    for upstream in ["imaps://{domain}", "imaps://imap.{domain}"] {
        let routes = routes(&format!("  - domain: \"*\"\n    upstream: {upstream}\n"));
        assert!(find(&routes, "bob@a-1.example").is_some());
        let too_long = format!("bob@{}.org", vec!["a".repeat(62); 4].join("."));
        for login in [
            "bob",
            "bob@",
            "bob@localhost",
            "bob@a.localhost",
            "bob@router",
            "bob@printer.local",
            "bob@db.internal",
            "bob@nas.lan",
            "bob@127.0.0.1",
            "bob@127.1",
            "bob@0x7f.1",
            "bob@[127.0.0.1]",
            "bob@[::1]",
            "bob@::1",
            "bob@1.0.0.127.in-addr.arpa",
            "bob@example.org.",
            "bob@.example.org",
            "bob@a..b",
            "bob@a.b:25",
            "bob@a.b/c",
            "bob@a b.de",
            "bob@bücher.de",
            "bob@{domain}",
            "bob@{domain}.org",
            "bob@-a.org",
            "bob@a.b\0",
            "bob@a.b\r\n",
            &too_long,
        ] {
            assert_eq!(resolved(&routes, login), None, "{login:?}");
        }
    }
}

#[test]
fn name_that_only_the_prefix_makes_too_long_is_refused() {
    let routes = routes("  - domain: \"*\"\n    upstream: imaps://imap.{domain}\n");
    let domain =
        [&*"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &"d".repeat(57), "org"].join(".");
    assert!(is_dns_name(&domain));
    assert_eq!(resolved(&routes, &format!("bob@{domain}")), None);
}

#[test]
fn certificates_are_checked_for_names_and_addresses() {
    let endpoint = |host: &str| Endpoint {
        host: host.into(),
        port: 1,
        security: Security::Tls,
        identity: host.into(),
    };
    assert!(matches!(endpoint("_imap.example.org").server_name(), Ok(ServerName::DnsName(_))));
    assert!(matches!(endpoint("::1").server_name(), Ok(ServerName::IpAddress(_))));
    assert!(matches!(endpoint("192.0.2.1").server_name(), Ok(ServerName::IpAddress(_))));
}

const MANY: &str = r#"
  - domain: "*"
    upstream: imaps://any.example
  - listener: office
    upstream: imaps://office.example
  - host: imap.family.example
    upstream: imaps://family.example
    login: "{local}@family.example"
  - domain: example.org
    upstream: imaps://org.example
    login: local
  - domain: example.org
    host: imap.family.example
    upstream: imaps://org-family.example
  - address: Alice@example.org
    upstream: imaps://alice.example
    login: "{local}%{domain}"
  - address: alice@example.org
    listener: office
    upstream: imaps://alice-office.example
"#;

fn many() -> (Routes, Vec<Listener>) {
    let listeners = "listeners:\n  - address: 127.0.0.1:1\n    tls: implicit\n    name: office\n  - address: 127.0.0.1:2\n    tls: implicit\n";
    let config =
        Config::parse(&format!("{listeners}routes:{MANY}"), Path::new(""), "test").unwrap();
    (Routes::new(&config.live.routes), config.live.listeners)
}

#[test]
fn most_specific_route_that_fits_counts() {
    let (routes, listeners) = many();
    let (office, other) = (Some(&listeners[0]), Some(&listeners[1]));
    let family = Some("imap.family.example");
    for (login, listener, host, expected) in [
        ("bob@else.example", other, None, "any.example:993"),
        ("bob@else.example", office, None, "office.example:993"),
        ("bob@else.example", office, family, "family.example:993"),
        ("bob", other, family, "family.example:993"),
        ("bob@example.org", office, None, "org.example:993"),
        ("bob@example.org", office, family, "org-family.example:993"),
        ("ALICE@example.ORG", other, family, "alice.example:993"),
        ("alice@example.org", office, family, "alice-office.example:993"),
        ("alice@example.org", None, None, "alice.example:993"),
    ] {
        let asked = Asked { login, listener, host };
        assert_eq!(routes.find(&asked).unwrap().name(), expected, "{asked:?}");
    }
    let order: Vec<_> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(order[0], "alice@example.org on listener office");
    assert_eq!(order[6], "*");
}

#[test]
fn account_is_found_again_without_listener_and_tls_name() {
    let (routes, _) = many();
    for (upstream, applied, login) in [
        ("any.example:993", "bob@else.example", "bob@else.example"),
        ("office.example:993", "bob@else.example", "bob@else.example"),
        ("family.example:993", "bob@family.example", "bob@family.example"),
        ("org.example:993", "bob", "bob@example.org"),
        ("alice.example:993", "alice%example.org", "alice@example.org"),
        ("alice-office.example:993", "alice@example.org", "alice@example.org"),
    ] {
        let (target, found) =
            routes.find_again(upstream, applied).unwrap_or_else(|| panic!("{upstream} {applied}"));
        assert_eq!((target.name().as_str(), found.as_str()), (upstream, login));
        assert_eq!(target.login_for(&found), applied);
    }
    for (upstream, applied) in [
        ("gone.example:993", "bob@else.example"),
        ("family.example:993", "bob"),
        ("org-family.example:993", "bob@else.example"),
        ("alice.example:993", "bob%example.org"),
        ("alice.example:993", "alice@example.org"),
    ] {
        assert!(routes.find_again(upstream, applied).is_none(), "{upstream} {applied}");
    }
}

#[test]
fn domain_from_the_login_is_found_again_by_host_or_name() {
    let fixed =
        routes("  - domain: \"*\"\n    upstream: imaps://imap.{domain}\n    login: local\n");
    let (_, login) = fixed.find_again("imap.else.example:993", "bob").unwrap();
    assert_eq!(login, "bob@else.example");
    assert!(fixed.find_again("imap.localhost:993", "bob").is_none());
    let found = routes("  - domain: \"*\"\n    discover: true\n    login: local\n");
    let target = find(&found, "Bob@Else.example").unwrap();
    assert_eq!(
        (target.name().as_str(), target.reach),
        ("else.example:discovered", Reach::PublicOnly)
    );
    assert_eq!(found.find_again("else.example:discovered", "Bob").unwrap().1, "Bob@else.example");
    assert!(found.find_again("else.example:993", "bob").is_none());
    assert!(find(&found, "bob@localhost").is_none() && find(&found, "bob").is_none());
}

#[test]
fn watch_prefers_a_route_with_encryption() {
    let routes = routes(concat!(
        "  - address: bob@a.example\n    upstream: imap+plain://mail.example:143\n    insecure: true\n",
        "  - domain: a.example\n    upstream: imap://mail.example:143\n",
    ));
    let (target, _) = routes.find_again("mail.example:143", "bob@a.example").unwrap();
    assert_eq!(endpoint_of(target).security, Security::StartTls);
    assert_eq!(endpoint_of(find(&routes, "bob@a.example").unwrap()).security, Security::Plain);
}

#[test]
fn private_servers_are_reached_where_the_route_says_so() {
    let reach = |yaml: &str| find(&routes(yaml), "bob@a.example").unwrap().reach;
    assert_eq!(reach("  - domain: a.example\n    discover: true\n"), Reach::PublicOnly);
    assert_eq!(
        reach("  - domain: a.example\n    discover: true\n    private: true\n"),
        Reach::Anywhere
    );
    assert_eq!(
        reach("  - domain: a.example\n    upstream: imaps://imap.{domain}\n"),
        Reach::Anywhere
    );
    assert_eq!(
        reach("  - domain: \"*\"\n    upstream: imaps://imap.{domain}\n    private: true\n"),
        Reach::Anywhere
    );
    assert_eq!(reach("  - domain: \"*\"\n    upstream: imaps://fixed.example\n"), Reach::Anywhere);
}
