//! Errors on the command line: wrong usage, no configuration, no running deltapush, files that are something else.

use insta::assert_snapshot;

use super::Folder;

const CONFIG: &str = "hostname: localhost
listeners:
  - {address: 127.0.0.1:1993, tls: implicit}
routes:
  - {domain: \"*\", upstream: \"imaps://imap.{domain}\"}
";

fn outputs(folder: &Folder, lines: &[&str]) -> String {
    let runs: Vec<String> =
        lines.iter().map(|line| folder.run(&line.split_whitespace().collect::<Vec<_>>())).collect();
    runs.join("\n")
}

#[test]
fn wrong_usage_is_explained() {
    let lines = [
        "serve",
        "status --trace",
        "--trace check",
        "check --connect",
        "trace --session 7 --account alice",
        "trace --session seven",
        "push-test",
        "push-test alice --wait 1h",
        "push-test alice --wait soon",
        "init",
        "init not-an-address",
        "qr not-an-address",
    ];
    assert_snapshot!(outputs(&Folder::with(CONFIG), &lines));
}

#[test]
fn missing_configuration_is_explained() {
    let lines = ["", "check", "status", "qr you@example.org", "--config elsewhere.yaml check"];
    assert_snapshot!(outputs(&Folder::new(), &lines));
}

#[test]
fn mistakes_in_the_environment_are_explained() {
    let hostname = ("DELTAPUSH_HOSTNAME", "push.example.org");
    let logins = ("DELTAPUSH_LOGINS", "example.org");
    let empty = Folder::new();
    let runs = [
        empty.run_with(&[hostname], &["check"]),
        empty.run_with(
            &[hostname, ("DELTAPUSH_LOGIN", "*"), ("DELTAPUSH_UPSTREAM", "imap.example.org")],
            &["check"],
        ),
        Folder::with(CONFIG).run_with(&[hostname, logins], &["check"]),
        empty.run_with(&[hostname, logins], &["init", "you@example.org"]),
    ];
    assert_snapshot!(runs.join("\n"));
}

#[test]
fn deltapush_that_does_not_run_is_explained() {
    let lines = [
        "status",
        "status --quiet",
        "account alice@example.org",
        "account alice@example.org forget --yes",
        "push-test alice@example.org",
        "trace",
        "state check",
        "state backup copy.sqlite",
        "state rotate-key",
    ];
    assert_snapshot!(outputs(&Folder::with(CONFIG), &lines));
}

#[test]
fn file_that_is_no_trace_is_explained() {
    let folder = Folder::with(CONFIG);
    folder.write("no-trace", "hello\n");
    folder.write("empty", "");
    let lines = [
        "trace show no-trace",
        "trace show empty",
        "trace show nowhere",
        "trace export no-trace",
        "trace export empty --to config.yaml",
    ];
    assert_snapshot!(outputs(&folder, &lines));
}

#[test]
fn mistake_in_the_configuration_is_explained() {
    let mistakes = [
        ("brackets", "listeners:\n  - address: [::]:993\n    tls: implicit\n"),
        ("unknown key", "lisen: 1\n"),
        ("empty value", "hostname:\n"),
        ("a tab", "hostname: localhost\nlisteners:\n\t- address: 127.0.0.1:1993\n"),
        ("no unit", "push:\n  coalesce: 10\n"),
        ("route without a login", "routes:\n  - upstream: imaps://a.example\n"),
        ("scheme", "routes:\n  - {domain: example.org, upstream: imap.example.org}\n"),
    ];
    let told: Vec<String> = mistakes
        .iter()
        .map(|(name, config)| format!("# {name}\n{}", Folder::with(config).run(&["check"])))
        .collect();
    assert_snapshot!(told.join("\n"));
}
