//! The log for programs: JSON, and systemd's journal with its fields.

use std::collections::HashMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::support::dovecot::Setup;
use super::support::ports::ReservedPort;
use super::support::scene::{DovecotScene, PATIENCE};

#[tokio::test]
async fn as_json_each_line_is_an_object_with_account_and_session() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "logging", |options| options.log_format = "json").await;
    scene.register("secret-token").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["secret-token"]).await;
    scene.deltapush.terminate();
    let log = scene.deltapush.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let find = |words: &str| {
        let line = lines
            .iter()
            .find(|line| line["message"].as_str().is_some_and(|message| message.contains(words)));
        line.unwrap_or_else(|| panic!("no {words:?} in {log}"))
    };
    let line = find("device token registered");
    assert_eq!((&line["level"], &line["account"]), (&"INFO".into(), &scene.user.as_str().into()));
    assert!(
        line["session"].is_u64() && line["timestamp"].is_string() && line["target"].is_string(),
        "{line}"
    );
    assert_eq!(find("push accepted")["account"], scene.user.as_str());
    assert!(!log.contains("secret-token"));
}

/// The fields of an entry, in the journal's own format: a name and a value in a line, or the name in a line, and the length of the
/// value before it.
fn fields(mut entry: &[u8]) -> HashMap<String, String> {
    let mut fields = HashMap::new();
    while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&entry[..end]).unwrap();
        entry = &entry[end + 1..];
        let (name, value) =
            line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        let value = value.map(str::to_owned).unwrap_or_else(|| {
            let (length, rest) = entry.split_at(8);
            let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
            entry = &rest[length + 1..];
            String::from_utf8(rest[..length].to_vec()).unwrap()
        });
        fields.insert(name.to_owned(), value);
    }
    fields
}

#[test]
fn journal_gets_fields_and_priorities() {
    let folder = tempfile::tempdir().unwrap();
    let journal = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let config = format!(
        "listeners:\n  - address: 127.0.0.1:{port}\n    tls: none\nadmin:\n  address: off\nlog:\n  format: journal\n  \
         level: debug\n"
    );
    fs::write(folder.path().join("config.yaml"), config).unwrap();
    // In a view of the file system of its own, the folder is the journal's.
    let script = r#"mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$1" /run/systemd/journal &&
        exec "$0" --config "$1/config.yaml" run"#;
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        env!("CARGO_BIN_EXE_deltapush"),
    ]);
    let mut child = command
        .arg(folder.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare, of util-linux, is missing");
    let mut buffer = vec![0; 65_536];
    let deadline = Instant::now() + PATIENCE;
    let mut wait_for = |words: &str| loop {
        let length = journal.recv(&mut buffer).expect("the journal hears something");
        let fields = fields(&buffer[..length]);
        if fields.get("MESSAGE").is_some_and(|message| message.contains(words)) {
            break fields;
        }
        assert!(Instant::now() < deadline, "no {words:?}");
    };
    let ready = wait_for("is ready");
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let connected = wait_for("client connected");
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!(
        (ready["PRIORITY"].as_str(), ready["SYSLOG_IDENTIFIER"].as_str()),
        ("6", "deltapush")
    );
    assert_eq!(
        (connected["PRIORITY"].as_str(), connected["DELTAPUSH_SESSION"].as_str()),
        ("7", "1")
    );
    assert!(connected["DELTAPUSH_PEER"].starts_with("127.0.0.1:"), "{connected:?}");
}

#[test]
fn without_a_journal_it_says_so_and_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("config.yaml"),
        "admin:\n  address: off\nlog:\n  format: journal\n",
    )
    .unwrap();
    let script = r#"mount -t tmpfs none /run && exec "$0" --config "$1/config.yaml" run"#;
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        env!("CARGO_BIN_EXE_deltapush"),
    ]);
    let output = command.arg(folder.path()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("cannot connect to systemd's journal")
            && said.contains("set `log.format: text`"),
        "{said}"
    );
}
