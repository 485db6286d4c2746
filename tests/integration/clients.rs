//! Clients that people use: Python's imaplib and curl see through the proxy what they see without it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, PASSWORD, Setup};
use super::support::python;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program that reads `input`, and returns what it printed.
pub(crate) async fn run(mut command: Command, input: &str) -> Vec<u8> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("the client takes too long")
        .unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

async fn imaplib(port: u16, trusted: &Path, user: &str) -> Value {
    let mut script = python::script("imap_client.py");
    script.arg(port.to_string()).arg(trusted).arg(user);
    let told = run(script, &format!("{PASSWORD}\n")).await;
    serde_json::from_slice(&told).unwrap()
}

#[tokio::test]
async fn imaplib_sees_the_same_through_the_proxy() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let deltapush = Deltapush::start(&Options::dovecot(dovecot));
    for way in ["", ".plain"] {
        let mut direct = imaplib(
            dovecot.imaps,
            &dovecot.authority.ca,
            &dovecot.user(&format!("imaplib-direct{way}")),
        )
        .await;
        let user = dovecot.user(&format!("imaplib-proxy{way}"));
        let mut through = imaplib(deltapush.imaps, &deltapush.certificate(), &user).await;
        assert_eq!(through["same"], true, "{through}");
        let added: Vec<Value> = take(&mut through, "capabilities");
        let there: Vec<Value> = take(&mut direct, "capabilities");
        assert_eq!(
            added.iter().filter(|word| !there.contains(word)).collect::<Vec<_>>(),
            ["COMPRESS=DEFLATE", "METADATA", "XDELTAPUSH"]
        );
        assert_eq!(through, direct);
    }
}

fn take(told: &mut Value, key: &str) -> Vec<Value> {
    told[key].take().as_array().unwrap().clone()
}

async fn curl(trusted: &Path, user: &str, arguments: &[&str]) -> Vec<u8> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--config", "-", "--cacert"])
        .arg(trusted)
        .args(arguments);
    // The configuration comes by standard input: a password in the arguments would be seen by everyone.
    let login = format!("{user}:{PASSWORD}").replace('\\', r"\\").replace('"', r#"\""#);
    run(curl, &format!("user = \"{login}\"\n")).await
}

#[tokio::test]
async fn curl_uploads_and_fetches_through_the_proxy() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let deltapush = Deltapush::start(&Options::dovecot(dovecot));
    let (user, trusted) = (dovecot.user("curl"), deltapush.certificate());
    let dir = tempfile::tempdir().unwrap();
    let (file, mail) = (
        dir.path().join("mail"),
        format!("Subject: up and down\r\n\r\n{}", "body {9}\r\n".repeat(50_000)),
    );
    std::fs::write(&file, &mail).unwrap();

    let inbox = format!("imaps://localhost:{}/INBOX", deltapush.imaps);
    curl(&trusted, &user, &["--upload-file", file.to_str().unwrap(), &inbox]).await;
    let down = curl(&trusted, &user, &[&format!("{inbox};UID=1")]).await;
    assert_eq!(String::from_utf8_lossy(&down), mail);
    let starttls = format!("imap://localhost:{}/INBOX;UID=1", deltapush.starttls);
    assert_eq!(curl(&trusted, &user, &["--ssl-reqd", &starttls]).await, down);
    let direct = format!("imaps://localhost:{}/INBOX;UID=1", dovecot.imaps);
    assert_eq!(curl(&dovecot.authority.ca, &user, &[&direct]).await, down);
}
