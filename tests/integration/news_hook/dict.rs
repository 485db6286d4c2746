//! The socket for Dovecot: its dict protocol, as its dict client speaks it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::super::support::poll;
use super::*;

/// A connection as of Dovecot 2.3.
struct DictClient(BufReader<UnixStream>);

impl DictClient {
    fn connect(socket: &Path, hello: &str) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut client = Self(BufReader::new(stream));
        client.send(hello);
        client
    }

    fn send(&mut self, lines: &str) {
        self.0.get_mut().write_all(lines.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

async fn scene() -> (HookScene, std::path::PathBuf) {
    let scene = HookScene::with("  dict: dict.sock\n").await;
    let socket = scene.deltapush.dir().join("dict.sock");
    assert!(poll(Duration::from_secs(40), || socket.exists()).await, "{}", scene.deltapush.log());
    (scene, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn attribute_that_a_script_of_dovecot_sets_wakes_the_device() {
    let (mut scene, socket) = scene().await;
    let mut dovecot = DictClient::connect(&socket, "H3\t2\t0\t\tmetadata\n");
    dovecot.send("B1\talice@lab.test\nS1\tpriv/43f5f508a7ea0366/messagenew\t\nC1\n");
    assert_eq!(dovecot.answer(), "O1\n");
    scene.expect_pushes(1).await;
    // Dovecot 2.4, and a user that has no device.
    let mut newer = DictClient::connect(&socket, "H4\t0\t0\t\tmetadata\n");
    for (user, pushes) in [("carol@lab.test", 1), ("ALICE@lab.test", 2)] {
        newer.send(&format!("B1\t{user}\t0\nS1\tpriv/43f5f508a7ea0366/messagenew\t\nC1\n"));
        assert_eq!(newer.answer(), "O1\n");
        scene.expect_pushes(pushes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_attributes_are_neither_found_nor_stored() {
    let (scene, socket) = scene().await;
    let mut dovecot = DictClient::connect(&socket, "H3\t2\t0\t\tmetadata\n");
    dovecot.send("Lpriv/43f5/devicetoken\talice@lab.test\nI6\t0\tpriv/43f5/\talice@lab.test\n");
    assert_eq!((dovecot.answer(), dovecot.answer()), ("N\n".to_owned(), "\n".to_owned()));
    dovecot.send("B1\talice@lab.test\nS1\tpriv/43f5/comment\tsesame\nC1\n");
    assert!(dovecot.answer().starts_with("F1\tdeltapush takes /private/messagenew only"));
    dovecot.send(
        "B2\talice@lab.test\nS2\tpriv/43f5/messagenew\t\nR2\nB3\tx\nU3\tpriv/43f5/comment\nC3\n",
    );
    assert_eq!(dovecot.answer(), "O3\n");
    assert!(scene.notify.posted().is_empty(), "a transaction that was rolled back is no news");
    assert!(!scene.deltapush.log().contains("sesame"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_its_connection_and_no_other() {
    let (mut scene, socket) = scene().await;
    let mut well = DictClient::connect(&socket, "H3\t2\t0\t\tmetadata\n");
    let long = format!("B1\t{}", "x".repeat(100_000));
    for lines in ["GET / HTTP/1.1\r\n", "C1\n", "\n", &long, &(long.clone() + "\n")] {
        let mut other = DictClient::connect(&socket, "H3\t2\t0\t\tmetadata\n");
        // It may be closed before all is sent.
        let _ = other.0.get_mut().write_all(lines.as_bytes());
        let _ = other.0.get_mut().shutdown(std::net::Shutdown::Write);
        let mut line = String::new();
        assert!(matches!(other.0.read_line(&mut line), Ok(0) | Err(_)), "{lines:.9}: {line}");
    }
    let mut version = DictClient::connect(&socket, "H9\t0\t0\t\tmetadata\n");
    assert_eq!(version.answer(), "");
    assert!(poll(Duration::from_secs(40), || scene.deltapush.log().contains("version 9")).await);
    well.send("B1\talice@lab.test\nS1\tpriv/43f5/messagenew\t\nC1\n");
    assert_eq!(well.answer(), "O1\n");
    scene.expect_pushes(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_goes_with_the_server_and_comes_back_after_a_kill() {
    let (mut scene, socket) = scene().await;
    let mut idle = DictClient::connect(&socket, "H3\t2\t0\t\tmetadata\n");
    let status = tokio::task::block_in_place(|| scene.deltapush.terminate());
    assert!(status.success() && !socket.exists(), "{status}");
    assert_eq!(idle.answer(), "");
    assert!(!scene.deltapush.log().contains("some sessions did not end within"));
    scene.deltapush.start_again();
    assert!(poll(Duration::from_secs(40), || socket.exists()).await);
    scene.deltapush.kill();
    assert!(socket.exists());
    scene.deltapush.start_again();
    let connects = || UnixStream::connect(&socket).is_ok();
    assert!(poll(Duration::from_secs(40), connects).await, "{}", scene.deltapush.log());
    let mut dovecot = DictClient::connect(&socket, "H3\t2\t0\t\tmetadata\n");
    dovecot.send("B1\talice@lab.test\nS1\tpriv/43f5/messagenew\t\nC1\n");
    assert_eq!(dovecot.answer(), "O1\n");
    // A start wakes each device once, for mail of the time before.
    scene.notify.wait_for(1, Duration::from_secs(40)).await;
}
