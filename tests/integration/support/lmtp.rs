//! A client for LMTP (RFC 2033), as small as a delivery needs it.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Delivers one message to one mailbox; returns when the server has stored it.
pub(crate) async fn deliver(port: u16, sender: &str, recipient: &str, message: &str) {
    timeout(Duration::from_secs(20), dialogue(port, sender, recipient, message)).await.expect("LMTP takes too long");
}

async fn dialogue(port: u16, sender: &str, recipient: &str, message: &str) {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let mut stream = BufReader::new(stream);
    answer(&mut stream, "220").await;
    for (line, code) in [
        ("LHLO localhost".to_owned(), "250"),
        (format!("MAIL FROM:<{sender}>"), "250"),
        (format!("RCPT TO:<{recipient}>"), "250"),
        ("DATA".to_owned(), "354"),
        (format!("{}\r\n.", message.trim_end().replace("\r\n.", "\r\n..")), "250"),
        ("QUIT".to_owned(), "221"),
    ] {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        answer(&mut stream, code).await;
    }
}

async fn answer(stream: &mut BufReader<TcpStream>, code: &str) {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with(code), "LMTP: expected {code}, got {line:?}");
        // A hyphen after the code says that more lines follow.
        if line.get(3..4) != Some("-") {
            return;
        }
    }
}
