//! Health of deltapush, in words.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use super::super::support::python;
use super::super::support::scene::PATIENCE;
use super::{Admin, alone, scene};

/// Asks until the answer has `words` in it.
async fn wait_for(admin: &Admin, status: u16, words: &str) -> String {
    let deadline = tokio::time::Instant::now() + PATIENCE * 2;
    loop {
        let (got, text) = admin.get("/readyz").await;
        if got == status && text.contains(words) {
            return text;
        }
        assert!(tokio::time::Instant::now() < deadline, "no {status} with {words:?}: {got} {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn notification_server_that_does_not_answer_is_named() {
    // Nobody listens there.
    let (scene, admin) = scene("admin-health", |options| {
        options.notify_url = "http://127.0.0.1:9/notify".to_owned()
    })
    .await;
    let (status, text) = admin.get("/readyz").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.starts_with(
        "ok   listeners: 3 of 3 accept clients\nok   state: can be written\nok   notification"
    ));
    for token in ["one", "two", "three"] {
        scene.register(token).await;
    }
    scene.deliver_news().await;
    let text = wait_for(&admin, 503, "FAIL notification server: did not answer").await;
    assert!(text.contains("ok   state") && text.contains("ok   listeners"), "{text}");
    assert_eq!(admin.get("/healthz").await, (200, "ok\n".to_owned()), "it is alive all the same");
    let (_, page) = admin.get_with_password("/").await;
    assert!(page.contains("The notification server"), "{page}");
}

#[tokio::test]
async fn state_that_cannot_be_written_is_named() {
    let (deltapush, admin) = alone();
    // Another program holds the file for writing.
    let hold = "import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()";
    let mut command = python::program("python");
    command.args(["-c", hold]).arg(deltapush.dir().join("state/state.sqlite"));
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    wait_for(&admin, 503, "FAIL state: cannot be written").await;
    assert!(admin.get("/metrics").await.1.contains("\ndeltapush_state_writable 0\n"));
    drop(holder.stdin.take());
    holder.wait().unwrap();
    wait_for(&admin, 200, "ok   state: can be written").await;
    assert!(admin.get("/metrics").await.1.contains("\ndeltapush_state_writable 1\n"));
}
