//! Sockets that are there before deltapush is, and what systemd is told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::client::Client;
use super::support::ports::ReservedPort;

/// Starts deltapush as systemd does: the socket is descriptor 3.
fn start(folder: &Path, socket: &TcpListener) -> Child {
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec "$0" --config "$1" run 3<&0 0</dev/null"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_deltapush")]).arg(folder.join("config.yaml"));
    command.env("NOTIFY_SOCKET", folder.join("notify"));
    let passed = OwnedFd::from(socket.try_clone().unwrap());
    command.stdin(Stdio::from(passed)).stdout(Stdio::null()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", r#"kill -"$0" "$1""#, name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn notification(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 500];
    let length = socket.recv(&mut buffer).expect("systemd is told");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn answers_status(folder: &Path) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
    command.arg("--config").arg(folder.join("config.yaml")).args(["status", "--quiet"]);
    command.status().unwrap().success()
}

#[tokio::test]
async fn restart_refuses_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let systemd = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let config = format!(
        "listeners:\n  - address: 127.0.0.1:{port}\n    tls: none\nadmin:\n  address: off\n"
    );
    fs::write(folder.path().join("config.yaml"), &config).unwrap();

    let mut first = start(folder.path(), &socket);
    assert_eq!(notification(&systemd).trim_end(), "READY=1");
    assert!(answers_status(folder.path()), "deltapush is ready, and `status` does not work");
    Client::plain(port).await.expect_prefix("* OK").await;
    signal(&first, "HUP");
    let reloading = notification(&systemd);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(notification(&systemd).trim_end(), "READY=1");

    // Somebody comes every few milliseconds, before, between and after.
    let over = Arc::new(AtomicBool::new(false));
    let crowd = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let (mut came, mut refused) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                came += 1;
                refused += u32::from(TcpStream::connect(("127.0.0.1", port)).is_err());
                std::thread::sleep(Duration::from_millis(5));
            }
            (came, refused)
        })
    };
    signal(&first, "TERM");
    assert_eq!(notification(&systemd).trim_end(), "STOPPING=1");
    assert!(first.wait().unwrap().success());
    // Nobody serves, and nobody is refused.
    let mut waiting = Client::plain(port).await;
    let mut second = start(folder.path(), &socket);
    waiting.expect_prefix("* OK").await;
    assert_eq!(notification(&systemd).trim_end(), "READY=1");
    over.store(true, Ordering::Relaxed);
    let (came, refused) = crowd.join().unwrap();
    assert!(came > 10 && refused == 0, "{refused} of {came} were refused");
    second.kill().unwrap();
    second.wait().unwrap();
}

#[tokio::test]
async fn news_hook_takes_its_socket_from_systemd_too() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = socket.local_addr().unwrap();
    let imap = ReservedPort::new();
    let config = format!(
        "listeners:\n  - address: 127.0.0.1:{}\n    tls: none\nadmin:\n  address: off\nnews:\n  listen: {hook}\n",
        imap.number()
    );
    fs::write(folder.path().join("config.yaml"), &config).unwrap();
    // It waits in the socket until deltapush is there.
    let mut request = TcpStream::connect(hook).unwrap();
    request.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let body = r#"{"name": "nobody@lab.test"}"#;
    let head =
        format!("POST /v1/news HTTP/1.0\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    request.write_all((head + body).as_bytes()).unwrap();
    let mut deltapush = start(folder.path(), &socket);
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("no-device"), "{answer}");
    signal(&deltapush, "TERM");
    assert!(deltapush.wait().unwrap().success());
}
