//! The shipped file against the defaults, and values that are taken.

use std::time::Duration;

use super::*;

const SHIPPED: &str = include_str!("../../config.yaml");

pub(super) fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/deltapush"), "config.yaml")
}

/// The error's text for a file that must be refused.
pub(super) fn complaint(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn shipped_file_states_the_defaults() {
    let shipped = Config::parse(SHIPPED, Path::new(""), "config.yaml").unwrap();
    assert_eq!(shipped, Config::default());
}

#[test]
fn shipped_file_states_every_default() {
    // A key that the file left out would still be equal above: each must stand there, commented or not.
    for key in [
        "hostname",
        "listeners",
        "address",
        "tls",
        "insecure",
        "web",
        "proxy_protocol",
        "certificate",
        "directory",
        "chain",
        "key",
        "acme",
        "terms_agreed",
        "email",
        "names",
        "more",
        "routes",
        "address",
        "domain",
        "host",
        "listener",
        "upstream",
        "discover",
        "targets",
        "autoconfig",
        "ca",
        "login",
        "private",
        "proxy_protocol",
        "originating_ip",
        "smtp",
        "smtp_login",
        "open",
        "name",
        "allow",
        "networks",
        "logins",
        "dns",
        "server",
        "relay",
        "keepalive",
        "jmapaccess",
        "push",
        "notify_url",
        "contact",
        "native",
        "coalesce",
        "messages",
        "grace",
        "idle_renewal",
        "pace",
        "sessions",
        "at_once",
        "new_sessions",
        "servers",
        "host",
        "accounts",
        "addresses",
        "mailboxes",
        "max_in_flight",
        "metadata",
        "push_status",
        "storage",
        "credentials",
        "key_file",
        "login",
        "scram",
        "refuse_invented",
        "limits",
        "connections",
        "per_address",
        "before_login",
        "before_login_per_address",
        "commands_before_login",
        "wrong_commands",
        "logins",
        "login_name",
        "handshake_time",
        "command_time",
        "failed_logins",
        "within",
        "delay",
        "longest_delay",
        "per_account",
        "per_upstream",
        "per_upstream_day",
        "command",
        "response",
        "buffer",
        "login_time",
        "upstream_time",
        "idle_time",
        "admin",
        "password_file",
        "hosts",
        "insecure",
        "log",
        "level",
        "format",
        "trace",
    ] {
        assert!(SHIPPED.contains(&format!("{key}:")), "{key}");
    }
}

#[test]
fn suggestions_in_the_shipped_file_are_valid() {
    let suggested = [
        "chain: /etc/ssl",
        "key: /etc/ssl",
        "- domain: example.org",
        "- domain: example.net",
        "  upstream: imap://",
        "  discover: true",
        "  login: local",
        "  ca: /etc",
        "networks: [",
        "logins: [",
        "ca: /etc",
        "/shared/",
        "key_file:",
        "password_file:",
    ];
    let is_suggestion =
        |line: &&str| suggested.iter().any(|start| line.starts_with(&format!("  # {start}")));
    assert_eq!(SHIPPED.lines().filter(is_suggestion).count(), 16);
    let text: Vec<_> = SHIPPED
        .lines()
        .map(|line| {
            if is_suggestion(&line) {
                line.replacen("# ", "", 1)
            } else {
                line.replace("allow: {}", "allow:")
            }
        })
        .collect();
    let config = parse(&text.join("\n")).unwrap();
    assert_eq!(config.live.routes.len(), 3);
    assert!(config.live.allow.is_restrictive() && config.live.routes[2].discover);
    assert_eq!(config.live.metadata.iter().count(), 3);
    assert!(
        config.live.certificate.chain.is_some()
            && config.live.certificate.key.is_some()
            && config.startup.storage.key_file.is_some()
    );
}

#[test]
fn trace_file_defaults_equal_the_shipped_file() {
    let (_, section) = SHIPPED.split_once("\n# trace:\n").unwrap();
    let lines: String =
        section.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap())).collect();
    let config = parse(&format!("trace:\n{lines}")).unwrap();
    let directory = Path::new("/etc/deltapush/trace").into();
    assert_eq!(config.live.trace.files, Some(TraceFiles { directory, ..TraceFiles::default() }));
    assert_eq!(lines.lines().count(), 7);
}

#[test]
fn empty_file_and_any_single_section_will_do() {
    let resolved = |mut config: Config| {
        config.resolve_paths(Path::new("/etc/deltapush"));
        config
    };
    assert_eq!(parse("").unwrap(), resolved(Config::default()));
    let config = parse("push:\n  coalesce: 1m 30s\n").unwrap();
    let mut expected = resolved(Config::default());
    expected.startup.push.coalesce = Duration::from_secs(90);
    assert_eq!(config, expected);
}

#[test]
fn paths_start_from_the_folder_of_the_file() {
    let push = |ca: &str| parse(&format!("push:\n  ca: {ca}\n")).unwrap().startup.push.ca;
    assert_eq!(push("ca.pem"), Some(Trust::File(Path::new("/etc/deltapush/ca.pem").into())));
    assert_eq!((push("webpki"), push("system")), (Some(Trust::WebPki), Some(Trust::System)));
    let config = parse("certificate:\n  chain: tls/chain.pem\n  key: /run/key.pem\n  more:\n    - chain: c.pem\n      key: /k.pem\nroutes:\n  - domain: Example.ORG\n    upstream: imaps://mail.example.org\n    ca: ca.pem\n").unwrap();
    assert_eq!(
        config.live.certificate.chain.as_deref().unwrap(),
        Path::new("/etc/deltapush/tls/chain.pem")
    );
    assert_eq!(config.live.certificate.key.as_deref().unwrap(), Path::new("/run/key.pem"));
    let more = CertificateFiles { chain: "/etc/deltapush/c.pem".into(), key: "/k.pem".into() };
    assert_eq!(config.live.certificate.more, [more]);
    assert_eq!(config.startup.storage.key_path(), Path::new("/etc/deltapush/state/seal.key"));
    assert_eq!(*config.live.routes[0].ca, Trust::File(Path::new("/etc/deltapush/ca.pem").into()));
    assert_eq!(
        **config.live.routes[0].domain.as_ref().unwrap(),
        Domain::Named("example.org".to_owned())
    );
}

#[test]
fn file_is_loaded_relative_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.yaml");
    let missing = Config::load(&path).unwrap_err().to_string();
    assert!(
        missing.starts_with(&format!("{}: cannot be read", path.display()))
            && missing.contains("--config"),
        "{missing}"
    );
    fs::write(&path, "trace: true\n").unwrap();
    let config = Config::load(&path).unwrap();
    assert!(config.live.trace.print && config.live.trace.files.is_none());
    assert_eq!(config.startup.storage.directory, folder.path().join("state"));
    fs::write(&path, "trace:\n  accounts: [a@example.org]\n  format: text\n  total: 2MiB\n")
        .unwrap();
    let files = Config::load(&path).unwrap().live.trace.files.unwrap();
    assert_eq!(files.directory, folder.path().join("trace"));
    assert_eq!(
        (files.accounts, files.format, files.total),
        (vec!["a@example.org".into()], TraceFormat::Text, Size::kib(2048))
    );
    fs::write(&path, "\n\u{20}\n  x: 1\n").unwrap();
    assert!(
        Config::load(&path)
            .unwrap_err()
            .to_string()
            .starts_with(&format!("{}:3:3: unknown field `x`", path.display()))
    );
    fs::write(&path, "#".repeat(1 << 20)).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("1 MiB"));
}

#[test]
fn contact_is_a_url_or_a_mail_address() {
    let contact = |text: &str| {
        parse(&format!("push:\n  contact: {text}\n"))
            .unwrap()
            .startup
            .push
            .contact
            .unwrap()
            .to_string()
    };
    assert_eq!(contact("https://push.example.org/about"), "https://push.example.org/about");
    assert_eq!(contact("admin@example.org"), "mailto:admin@example.org");
    assert_eq!(contact("mailto:admin@example.org"), "mailto:admin@example.org");
    assert!(
        complaint(&format!("push:\n  contact: https://a.example/{}\n", "x".repeat(200)))
            .contains("too long")
    );
}

#[test]
fn file_may_have_a_byte_order_mark_other_line_ends_or_utf16() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let text = "\u{feff}hostname: imap.example.org\r\n";
    for content in [text.as_bytes().to_vec(), utf16(text)] {
        fs::write(&path, content).unwrap();
        assert_eq!(Config::load(&path).unwrap().live.hostname.as_str(), "imap.example.org");
    }
    fs::write(&path, "\u{feff}hostnam: imap.example.org\r\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("config.yaml:1:1: unknown field"), "{error}");
    fs::write(&path, b"hostname: a.example\n# L\xe4nder\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("line 2 is not UTF-8: save the file in that encoding"), "{error}");
}

#[test]
fn turn_password_is_never_shown() {
    let text = "metadata:\n  /shared/vendor/deltachat/TURN: turn.example:3478:1758650868:sesame\n  /shared/vendor/deltachat/maxsmtprecipients: 50\n";
    let config = parse(text).unwrap();
    assert!(!format!("{config:?}").contains("sesame"));
    assert!(
        config
            .live
            .metadata
            .get("/SHARED/vendor/deltachat/turn")
            .unwrap()
            .expose()
            .ends_with("sesame")
    );
    assert!(!complaint(&format!("{text}  /shared/a: b: c\n")).contains("sesame"));
    assert!(
        !complaint(&text.replace("turn.example", "\"\\0").replace("sesame", "sesame\""))
            .contains("sesame")
    );
}

#[test]
fn keepalives_can_be_left_to_the_server() {
    for (text, expected) in
        [("4m50s", Some(290)), ("4m 50s", Some(290)), ("off", None), ("1s", Some(1))]
    {
        let config = parse(&format!("relay:\n  keepalive: {text}\n")).unwrap();
        assert_eq!(config.live.relay.keepalive, expected.map(Duration::from_secs), "{text}");
    }
}
