//! Every mistake with its line and its message.

use super::tests::{complaint, parse};
use super::*;

#[test]
fn every_mistake_has_its_place_and_its_cure() {
    for (text, expected) in [
        // Unknown, missing, doubled, empty.
        (
            "lisen: 1\n",
            "config.yaml:1:1: unknown field `lisen`, expected one of `hostname`, `listeners`",
        ),
        (
            "push:\n  notify_url: https://a.example/\n  colaesce: 5s\n",
            "config.yaml:3:3: unknown field `colaesce`, expected one of `notify_url`",
        ),
        (
            "listeners:\n  - address: 127.0.0.1:1\n    tls: implicit\n    port: 5\n",
            "config.yaml:4:5: unknown field `port`",
        ),
        ("listeners:\n  - address: 127.0.0.1:1\n", "config.yaml:2:5: `tls` is missing here"),
        (
            "routes:\n  - upstream: imaps://a.example\n",
            "config.yaml:2:15: this route matches no login",
        ),
        ("trace: true\ntrace: false\n", "config.yaml:2:1: duplicate mapping key `trace`"),
        (
            "log:\n  # level: info\n",
            "config.yaml:1:4: `log`: empty value: give a value or remove the line",
        ),
        ("hostname:\n", "config.yaml:1:9: `hostname`: empty value"),
        ("listeners: []\n", "config.yaml: `listeners` is an empty list"),
        (
            "listeners:\n  - address: [::]:993\n    tls: implicit\n",
            "config.yaml:2:14: `address`: an address in brackets must stand in quotes, as in \"[::]:993\"",
        ),
        (
            "routes:\n  - domain: @example.org\n",
            "config.yaml:2:13: `domain`: a value that starts with @ must stand in quotes",
        ),
        ("routes: []\n", "config.yaml: `routes` is an empty list"),
        ("push: 5\n", "config.yaml:1:7: `push`: expected further `key: value` lines"),
        ("routes: 5\n", "config.yaml:1:9: `routes`: expected a list"),
        ("trace: false\n---\ntrace: true\n", "config.yaml:3:1: a second document starts here"),
        // Values.
        (
            "hostname: imap.example.org:993\n",
            "config.yaml:1:11: `hostname`: \"imap.example.org:993\" is neither a host name nor",
        ),
        ("hostname: ../x\n", "config.yaml:1:11: `hostname`: "),
        (
            "listeners:\n  - address: localhost:1993\n    tls: implicit\n",
            "config.yaml:2:14: `address`: \"localhost:1993\" is not an IP address and port",
        ),
        (
            "listeners:\n  - address: 127.0.0.1:1\n    tls: ssl\n",
            "config.yaml:3:10: `tls`: unknown variant `ssl`, expected one of implicit, starttls, none",
        ),
        (
            "hostname: localhost\ntrace: maybe\n",
            "config.yaml:2:8: `trace`: write `true` to print it, `false`, or `directory: trace`",
        ),
        (
            "hostname: localhost\ntrace:\n  sise: 1MiB\n",
            "config.yaml:3:3: unknown field `sise`, expected one of `directory`",
        ),
        (
            "hostname: localhost\ntrace:\n  size: 1KiB\n",
            "config.yaml:3:9: `size`: 1KiB is too small: the minimum is 64KiB",
        ),
        (
            "hostname: localhost\ntrace:\n  files: 0\n",
            "config.yaml:3:10: `files`: must be at least 1",
        ),
        (
            "push:\n  coalesce: 10\n",
            "config.yaml:2:13: `coalesce`: \"10\" is not a duration: write it as `10s`",
        ),
        ("push:\n  coalesce: 0s\n", "config.yaml:2:13: `coalesce`: must be more than 0s"),
        ("push:\n  idle_renewal: 29m\n", "config.yaml:2:17: `idle_renewal`: 29m is too long"),
        ("push:\n  idle_renewal: 29s\n", "config.yaml:2:17: `idle_renewal`: 29s is too short"),
        ("push:\n  max_in_flight: 0\n", "config.yaml:2:18: `max_in_flight`: must be at least 1"),
        (
            "push:\n  max_in_flight: -4\n",
            "config.yaml:2:18: `max_in_flight`: \"-4\" is not a whole number",
        ),
        (
            "push:\n  native: both\n",
            "config.yaml:2:11: `native`: unknown variant `both`, expected one of passthrough, takeover",
        ),
        (
            "push:\n  notify_url: http://notifications.delta.chat/notify\n",
            "config.yaml:2:15: `notify_url`: a token must not cross the network in clear",
        ),
        (
            "push:\n  notify_url: ftp://localhost/\n",
            "config.yaml:2:15: `notify_url`: \"ftp\" is not a scheme",
        ),
        (
            "push:\n  notify_url: notifications\n",
            "config.yaml:2:15: `notify_url`: \"notifications\" is not a URL",
        ),
        (
            "push:\n  contact: me\n",
            "config.yaml:2:12: `contact`: \"me\" is not a contact: write `https://",
        ),
        (
            "push:\n  contact: ftp://a.example/\n",
            "config.yaml:2:12: `contact`: \"ftp://a.example/\" is not a contact",
        ),
        ("push:\n  contact: a@b@c\n", "config.yaml:2:12: `contact`: \"a@b@c\" is not a contact"),
        (
            "push:\n  contact: \"a@b.example\\r\\nX: y\"\n",
            "config.yaml:2:12: `contact`: \"a@b.example\\r\\nX: y\" contains char",
        ),
        (
            "push:\n  contact: https://a.example/(x)\n",
            "config.yaml:2:12: `contact`: \"https://a.example/(x)\" contains char",
        ),
        ("limits:\n  connections: 0\n", "config.yaml:2:16: `connections`: must be at least 1"),
        (
            "limits:\n  accounts: many\n",
            "config.yaml:2:13: `accounts`: \"many\" is neither a whole number nor `auto`",
        ),
        ("limits:\n  accounts: 0\n", "config.yaml:2:13: `accounts`: must be at least 1"),
        (
            "limits:\n  command: 64\n",
            "config.yaml:2:12: `command`: \"64\" is not a size: write it as `512B`",
        ),
        (
            "limits:\n  command: 0B\n",
            "config.yaml:2:12: `command`: 0B is too small: the minimum is 8KiB",
        ),
        (
            "limits:\n  buffer: 1B\n",
            "config.yaml:2:11: `buffer`: 1B is too small: the minimum is 4KiB",
        ),
        ("limits:\n  login_time: 0s\n", "config.yaml:2:15: `login_time`: must be more than 0s"),
        ("log:\n  level: inof\n", "config.yaml:2:10: `level`: \"inof\" is not a log level"),
        ("metadata:\n  /private/comment: x\n", "config.yaml:2:3: "),
        ("metadata:\n  /private/comment: x\n", "metadata entries must start with `/shared/`"),
        ("metadata:\n  /shared/a%: x\n", "printable ASCII without * %"),
        (
            "metadata:\n  /shared/comment: \"a\\0b\"\n",
            "config.yaml:2:20: `/shared/comment`: the value has a NUL",
        ),
        ("metadata:\n  push_status: true\n  push_status: false\n", "push_status"),
        ("metadata:\n  push_status: maybe\n", "config.yaml:2:16: "),
        (
            "metadata:\n  /shared/comment: a\n  /shared/Comment: b\n",
            "`/shared/comment` occurs twice",
        ),
        (
            "metadata:\n  /shared/vendor/deltachat/maxsmtprecipients: many\n",
            "must be a number of at least 1",
        ),
        (
            "relay:\n  keepalive: 10\n",
            "config.yaml:2:14: `keepalive`: \"10\" is not a duration: write it as",
        ),
        ("relay:\n  keepalive: soon\n", "or `off`"),
        (
            "relay:\n  keepalive: 0s\n",
            "config.yaml:2:14: `keepalive`: 0s is too short, it drains batteries: 1s at least",
        ),
        (
            "relay:\n  keepalive: 30m\n",
            "30m is longer than a client idles (RFC 2177): less than 29m, or `off`",
        ),
        (
            "relay:\n  jmapaccess: yes\n",
            "config.yaml:2:15: `jmapaccess`: unknown variant `yes`, expected one of strip, pass",
        ),
        // The database.
        ("storage:\n  postgres:\n    ca: system\n", "config.yaml:3:5: `url` is missing here"),
        (
            "storage:\n  postgres:\n    url: mysql://db/a\n",
            "config.yaml:3:10: `url`: write a URL as `postgresql://deltapush@db.example.org/deltapush`",
        ),
        (
            "storage:\n  postgres:\n    url: postgresql://a:sesame@db.example.org/a\n",
            "config.yaml:3:10: `url`: a password must not stand in the URL",
        ),
        (
            "storage:\n  postgres:\n    url: postgresql://localhost,db.example.org/a?sslmode=disable\n",
            "config.yaml:3:10: `url`: with `sslmode=disable` passwords and tokens would cross the network in clear to db.example.org",
        ),
        (
            "storage:\n  postgres:\n    url: postgresql://db.example.org/a?sslmode=prefer\n",
            "config.yaml:3:10: `url`: sslmode=prefer is not supported: deltapush verifies certificate and name",
        ),
        (
            "storage:\n  postgres:\n    url: postgresql://db.example.org/a?target_session_attrs=read-only\n",
            "config.yaml:3:10: `url`: `target_session_attrs=read-only` leads to servers that take no writes",
        ),
        (
            "storage:\n  postgres:\n    url: postgresql://db.example.org/a?pool=9\n",
            "config.yaml:3:10: `url`: not a URL of a database: unknown option `pool`",
        ),
        (
            "storage:\n  postgres:\n    url: postgresql:///deltapush\n",
            "config.yaml:3:10: `url`: names no host",
        ),
        (
            "storage:\n  credentials: memory\n  postgres:\n    url: postgresql://db.example.org/a\n",
            "config.yaml:4:10: `credentials: memory` and `postgres` do not go together",
        ),
        (
            "storage:\n  credentials: none\n  postgres:\n    url: postgresql://db.example.org/a\n",
            "config.yaml:4:10: `credentials: none` and `postgres` do not go together",
        ),
        ("node:\n  name: push 1\n", "config.yaml:2:9: `name`: \"push 1\" is not a node's name"),
        // Routes.
        (
            "routes:\n  - domain: *\n    upstream: imaps://a.example\n",
            "config.yaml:2:13: `domain`: a value that starts with * must stand in quotes",
        ),
        (
            "routes:\n  - domain: bob@example.org\n    upstream: imaps://a.example\n",
            "config.yaml:2:13: `domain`: \"bob@example.org\" is not a domain",
        ),
        (
            "routes:\n  - domain: a.example\n    upstream: a.example:993\n",
            "config.yaml:3:15: `upstream`: \"a.example:993\" has no scheme",
        ),
        (
            "routes:\n  - domain: a.example\n    upstream: imaps://a.example:{domain}\n",
            "config.yaml:3:15: `upstream`: ",
        ),
        (
            "routes:\n  - address: bob\n    upstream: imaps://a.example\n",
            "config.yaml:2:14: `address`: \"bob\" is not an address",
        ),
        (
            "routes:\n  - domain: a.example\n    address: bob@b.example\n    upstream: imaps://a.example\n",
            "config.yaml:2:13: `bob@b.example` is not in this domain",
        ),
        (
            "routes:\n  - host: \"*\"\n    upstream: imaps://a.example\n",
            "config.yaml:2:11: `host`: \"*\" is not a host name",
        ),
        (
            "routes:\n  - listener: office\n    upstream: imaps://a.example\n",
            "config.yaml:2:15: no listener is called `office`",
        ),
        ("routes:\n  - domain: a.example\n", "config.yaml:2:13: this route has no server"),
        (
            "routes:\n  - domain: a.example\n    discover: true\n    upstream: imaps://a.example\n",
            "config.yaml:4:15: `upstream` and `discover: true` exclude each other",
        ),
        (
            "routes:\n  - domain: a.example\n    upstream: imaps://a.example\n    targets: [a.example]\n",
            "config.yaml:2:13: `targets` and `autoconfig` have no effect without `discover: true`",
        ),
        (
            "routes:\n  - domain: bücher.example\n    discover: true\n",
            "config.yaml:2:13: the server of `bücher.example` cannot be looked up",
        ),
        (
            "routes:\n  - domain: a.example\n    upstream: imaps://a.example\n    login: \"{user}\"\n",
            "config.yaml:4:12: `login`: `{user}` is not a placeholder",
        ),
        (
            "allow:\n  networks: [10.0.0.1/8]\n",
            "\"10.0.0.1/8\" has bits beyond its prefix: write 10.0.0.0/8",
        ),
        ("allow:\n  logins: [\"*\"]\n", "\"*\" is neither a login nor a domain"),
        ("dns:\n  server: localhost\n", "config.yaml:2:11: `server`: "),
        (
            "listeners:\n  - address: 127.0.0.1:1\n    tls: implicit\n    name: a\n  - address: 127.0.0.1:2\n    tls: implicit\n    name: a\n",
            "config.yaml:7:11: two listeners are called `a`",
        ),
    ] {
        let said = complaint(text);
        assert!(said.contains(expected), "{text}\nsays      {said}\ninstead of {expected}");
    }
}

#[test]
fn certificate_from_an_authority_takes_two_lines() {
    let text = |acme: &str, more: &str| {
        format!("hostname: imap.example.org\ncertificate:\n  acme:{acme}\n{more}")
    };
    let certificate = parse(&text("\n    terms_agreed: true", "")).unwrap().live.certificate;
    let acme = certificate.acme.unwrap();
    assert_eq!(acme.directory.as_str(), "https://acme-v02.api.letsencrypt.org/directory");
    let own = Hostname::new("imap.example.org").unwrap();
    assert_eq!(acme.names_or(&own), [own]);
    let agreed = " { terms_agreed: true, names: [a.example, b.example], ca: pebble.pem, email: a@b.example }";
    let acme = parse(&text(agreed, "")).unwrap().live.certificate.acme.unwrap();
    let names = ["a.example", "b.example"].map(|name| Hostname::new(name).unwrap());
    assert_eq!(acme.names_or(&Hostname::localhost()), names);
    assert_eq!(acme.ca, Some(Trust::File(Path::new("/etc/deltapush/pebble.pem").into())));
    for (acme, more, expected) in [
        (
            " { email: a@b.example }",
            "",
            "config.yaml:3:9: `acme` needs `terms_agreed: true`: read the terms of service of acme-v02",
        ),
        (
            " { terms_agreed: true, email: me }",
            "",
            "config.yaml:3:38: `acme`: \"me\" is not a mail address",
        ),
        (
            " { terms_agreed: true, directory: http://a.example/ }",
            "",
            "is not the URL of an ACME directory",
        ),
        (
            " { terms_agreed: true, names: [_imap.example.org] }",
            "",
            "config.yaml:3:39: no authority issues a certificate for _imap",
        ),
        (
            " { terms_agreed: true, http: 80 }",
            "",
            "config.yaml:3:37: `acme`: \"80\" is not an IP address and port: write it as `127.0.0.1:1080`, or `[::]:80`",
        ),
        (
            " { terms_agreed: true, http: 127.0.0.1:1980 }",
            "",
            "config.yaml:3:37: a listener, or `admin`, has the address 127.0.0.1:1980",
        ),
        (
            " { terms_agreed: true }",
            "  chain: a\n  key: b\n",
            "config.yaml:4:10: `chain` and `acme` exclude each other",
        ),
        (
            " { terms_agreed: true }",
            "listeners:\n  - address: 127.0.0.1:1\n    tls: starttls\n",
            "config.yaml:3:9: `acme` needs a listener with `tls: implicit`",
        ),
    ] {
        let said = complaint(&text(acme, more));
        assert!(said.contains(expected), "{said}\ninstead of {expected}");
    }
}

#[test]
fn certificate_from_an_authority_needs_no_tls_listener_with_http_and_may_be_for_addresses() {
    let text = "hostname: 192.0.2.1\nlisteners:\n  - address: 127.0.0.1:1\n    tls: starttls\ncertificate:\n  acme:\n    \
                terms_agreed: true\n    http: \"[::]:80\"\n    names: [192.0.2.1, \"2001:DB8::1\", a.example]\n";
    let acme = parse(text).unwrap().live.certificate.acme.unwrap();
    assert_eq!(acme.http.as_deref(), Some(&"[::]:80".parse().unwrap()));
    let names = acme.names_or(&Hostname::localhost());
    let text: Vec<_> = names.iter().map(Hostname::as_str).collect();
    assert_eq!(text, ["192.0.2.1", "2001:db8::1", "a.example"]);
    let addresses: Vec<_> = names.iter().filter_map(Hostname::address).collect();
    assert_eq!(addresses.len(), 2);
}

#[test]
fn web_pages_need_tls_and_announced_addresses_a_network() {
    let text = |more: &str| format!("listeners:\n  - address: 127.0.0.1:1\n{more}");
    let listener = &parse(&text(
        "    tls: implicit\n    web: true\n    proxy_protocol: [10.0.0.0/8, \"::1\"]\n",
    ))
    .unwrap()
    .live
    .listeners[0];
    assert!(listener.web && listener.proxy_protocol.len() == 2);
    assert!(
        complaint(&text("    tls: starttls\n    web: true\n")).contains("needs `tls: implicit`")
    );
    assert!(
        complaint(&text("    tls: none\n    proxy_protocol: [10.0.0.1/8]\n"))
            .contains("beyond its prefix")
    );
}

#[test]
fn plain_listeners_stay_on_loopback_unless_said_otherwise() {
    let listener = |address: &str, more: &str| {
        format!(
            "listeners:\n  - address: \"{address}\"\n    tls: none\n{more}routes:\n  - domain: a.example\n    upstream: imaps://a.example\n"
        )
    };
    for loopback in ["127.0.0.1:143", "[::1]:143", "127.3.2.1:143"] {
        parse(&listener(loopback, "")).unwrap();
    }
    for public in ["0.0.0.0:143", "[::]:143", "192.168.1.2:143"] {
        let said = complaint(&listener(public, ""));
        assert!(
            said.starts_with("config.yaml:2:14: with `tls: none` passwords")
                && said.contains("`insecure: true`"),
            "{said}"
        );
        parse(&listener(public, "    insecure: true\n")).unwrap();
    }
}

#[test]
fn nobody_becomes_an_open_proxy_by_accident() {
    let text = |more: &str| {
        format!(
            "listeners:\n  - address: 0.0.0.0:993\n    tls: implicit\nroutes:\n  - domain: \"*\"\n    upstream: imaps://imap.{{domain}}\n{more}"
        )
    };
    let said = complaint(&text(""));
    assert!(
        said.starts_with(
            "config.yaml:5:13: a \"*\" route lets strangers use this proxy through 0.0.0.0:993"
        ) && said.contains("`open: true`"),
        "{said}"
    );
    parse(&text("    open: true\n")).unwrap();
    for route in ["host: imap.a.example", "listener: 0.0.0.0:993"] {
        let said = complaint(&text("").replace("domain: \"*\"", route));
        assert!(said.contains("lets strangers use this proxy"), "{said}");
    }
    let allowed = |allow: &str| parse(&(text("") + "allow:\n" + allow));
    allowed("  logins: [example.org]\n").unwrap();
    allowed("  networks: [192.0.2.0/24]\n").unwrap();
    assert!(allowed("  networks: [0.0.0.0/0]\n").is_err());
    // The default route is there as well if only listeners are given, and has no line to point to.
    let said = complaint("listeners:\n  - address: 0.0.0.0:993\n    tls: implicit\n");
    assert!(said.starts_with("config.yaml: no `routes` are given"), "{said}");
}

#[test]
fn plain_upstreams_stay_on_loopback_unless_said_otherwise() {
    let text = |upstream: &str, more: &str| {
        format!("routes:\n  - domain: \"*\"\n    upstream: {upstream}\n{more}")
    };
    parse(&text("imap+plain://localhost", "")).unwrap();
    parse(&text("\"imap+plain://[::1]:1143\"", "")).unwrap();
    for upstream in
        ["imap+plain://mail.example.org", "imap+plain://{domain}", "imap+plain://10.0.0.1"]
    {
        let said = complaint(&text(upstream, ""));
        assert!(
            said.starts_with("config.yaml:3:15: passwords would cross the network in clear to"),
            "{said}"
        );
        parse(&text(upstream, "    insecure: true\n")).unwrap();
    }
}

#[test]
fn contradictions_in_the_configuration_are_named_together() {
    let said = complaint(concat!(
        "listeners:\n  - address: 127.0.0.1:993\n    tls: implicit\n  - address: 127.0.0.1:993\n    tls: starttls\n",
        "certificate:\n  chain: a.pem\n",
        "routes:\n  - domain: bücher.example\n    upstream: imaps://imap.{domain}\n  - domain: BÜCHER.example\n    upstream: imaps://b.example\n",
    ));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(
        lines[0].starts_with("config.yaml:4:14: two listeners have the address 127.0.0.1:993"),
        "{said}"
    );
    assert!(lines[1].starts_with("config.yaml:7:10: `chain` without `key`"), "{said}");
    assert!(
        lines[2].starts_with("config.yaml:10:15: `bücher.example` cannot stand for {domain}"),
        "{said}"
    );
    assert!(
        lines[3].starts_with("config.yaml:11:13: there are two routes for `bücher.example`"),
        "{said}"
    );
    assert!(
        complaint("certificate:\n  key: a.pem\n")
            .starts_with("config.yaml:2:8: `key` without `chain`")
    );
}

#[test]
fn admin_listener_gives_nothing_away() {
    let admin = |keys: &str| parse(&format!("admin:\n{keys}"));
    let defaults = admin("  insecure: false\n").unwrap().startup.admin;
    assert!(defaults.is_on_loopback() && !defaults.has_tls());
    assert_eq!(defaults.password_path(Path::new("/state")), Path::new("/state/admin.password"));
    let elsewhere =
        admin("  address: \"[::]:1980\"\n  password_file: secret\n").unwrap().startup.admin;
    assert!(!elsewhere.is_on_loopback() && elsewhere.has_tls());
    assert_eq!(elsewhere.password_path(Path::new("/state")), Path::new("/etc/deltapush/secret"));
    assert!(admin("  address: off\n").unwrap().startup.admin.address.is_none());
    assert!(admin("  address: 127.0.0.1:1980\n  tls: true\n").unwrap().startup.admin.has_tls());
    assert!(admin("  address: 192.0.2.1:1980\n  tls: false\n  insecure: true\n").is_ok());
    let error = complaint("admin:\n  address: 192.0.2.1:1980\n  tls: false\n");
    assert!(
        error.starts_with(
            "config.yaml:2:12: without TLS the password would cross the network in clear"
        ),
        "{error}"
    );
    let error = complaint("admin:\n  address: 127.0.0.1:1993\n");
    assert!(error.contains("a listener has the address 127.0.0.1:1993"), "{error}");
    let error = complaint("admin:\n  address: localhost:1980\n");
    assert!(
        error.contains("is not an IP address and port") && error.contains("or `off`"),
        "{error}"
    );
}
