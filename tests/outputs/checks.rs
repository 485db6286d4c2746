//! `check` and `doctor`: of a sound configuration, and of one with obstacles.

use std::net::TcpListener;

use insta::assert_snapshot;

use super::Folder;
use super::ports::ReservedPort;

fn config(port: u16, more: &str) -> String {
    format!(
        "hostname: push.example.org
admin: {{address: off}}
listeners:
  - {{address: 127.0.0.1:{port}, tls: implicit}}
routes:
  - {{domain: example.org, upstream: \"imaps://127.0.0.1\", ca: system}}
  - {{address: bob@example.net, upstream: \"imaps://127.0.0.2:1993\", login: local}}
{more}"
    )
}

fn checked(port: u16, more: &str, arguments: &[&str]) -> String {
    let folder = Folder::with(&config(port, more));
    folder.run(&[&["check"], arguments].concat()).replace(&port.to_string(), "PORT")
}

#[test]
fn sound_configuration_is_shown() {
    let free = ReservedPort::new();
    let port = free.number();
    assert_snapshot!(checked(port, "", &[]));
}

#[test]
fn default_route_is_shown() {
    let free = ReservedPort::new();
    let port = free.number();
    let folder = Folder::with(&format!(
        "hostname: localhost\nadmin: {{address: off}}\nlisteners:\n  - {{address: 127.0.0.1:{port}, tls: implicit}}\n"
    ));
    assert_snapshot!(folder.run(&["check"]).replace(&port.to_string(), "PORT"));
}

#[test]
fn environment_is_a_configuration_where_there_is_no_file() {
    let variables = [
        ("DELTAPUSH_HOSTNAME", "push.example.org"),
        ("DELTAPUSH_LOGINS", "example.org,bob@example.net"),
        ("DELTAPUSH_UPSTREAM", "imaps://127.0.0.1"),
    ];
    let check = |login| Folder::new().run_with(&variables, &["check", "--login", login]);
    assert_snapshot!([check("you@example.org"), check("eve@example.net")].join("\n"));
}

#[test]
fn obstacles_are_listed_with_their_remedies() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let more = "certificate: {acme: {email: you@example.org, terms_agreed: true}}\nstorage: {directory: config.yaml/state}\n";
    assert_snapshot!(checked(port, more, &[]));
}

#[test]
fn route_of_a_login_is_shown() {
    let free = ReservedPort::new();
    let port = free.number();
    let logins = ["alice@example.org", "bob@example.net", "eve@example.net", "alice"];
    let told: Vec<String> =
        logins.iter().map(|login| checked(port, "", &["--login", login])).collect();
    assert_snapshot!(told.join("\n"));
}

/// Nothing runs, and nothing listens at the notification server's port. The name is an address, so that no DNS server is asked.
#[test]
fn doctor_of_a_deltapush_that_does_not_run() {
    let free = ReservedPort::new();
    let port = free.number();
    let more = format!("push: {{notify_url: \"http://127.0.0.1:{port}/notify\"}}\n");
    let text = config(port, &more).replace("push.example.org", "127.0.0.1");
    let folder = Folder::with(&text);
    let shown = folder.run(&["doctor"]).replace(&port.to_string(), "PORT");
    let shown: Vec<_> =
        shown.lines().filter(|line| !line.contains("versions")).map(str::to_owned).collect();
    assert_snapshot!(shown.join("\n"));
}
