//! A client for LMTP (RFC 2033), as small as a delivery needs it.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Delivers one message to one mailbox; returns when the server has stored it.
pub(crate) async fn deliver(port: u16, sender: &str, recipient: &str, message: &str) {
    try_deliver(port, sender, recipient, message).await.unwrap();
}

/// As [`deliver`], at a server that may go away meanwhile. Returns the last moment at which the message was not there yet.
///
/// # Errors
/// If the server did not confirm the message: it may have stored it all the same.
pub(crate) async fn try_deliver(
    port: u16,
    sender: &str,
    recipient: &str,
    message: &str,
) -> io::Result<Instant> {
    let message = message.trim_end().replace("\r\n.", "\r\n..");
    try_deliver_bytes(port, sender, recipient, message.as_bytes()).await
}

/// The same with a message of any bytes, in which no line begins with a dot.
///
/// # Errors
/// As [`try_deliver`].
pub(crate) async fn try_deliver_bytes(
    port: u16,
    sender: &str,
    recipient: &str,
    message: &[u8],
) -> io::Result<Instant> {
    timeout(Duration::from_secs(40), dialogue(port, sender, recipient, message)).await?
}

async fn dialogue(port: u16, sender: &str, recipient: &str, message: &[u8]) -> io::Result<Instant> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut stream = BufReader::new(stream);
    answer(&mut stream, "220").await?;
    for (line, code) in [
        ("LHLO localhost".to_owned(), "250"),
        (format!("MAIL FROM:<{sender}>"), "250"),
        (format!("RCPT TO:<{recipient}>"), "250"),
        ("DATA".to_owned(), "354"),
    ] {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await?;
        answer(&mut stream, code).await?;
    }
    let text = [message, b"\r\n.\r\n"].concat();
    let before = Instant::now();
    stream.get_mut().write_all(&text).await?;
    answer(&mut stream, "250").await?;
    // It is stored, whatever becomes of the goodbye.
    let _ = stream.get_mut().write_all(b"QUIT\r\n").await;
    Ok(before)
}

async fn answer(stream: &mut BufReader<TcpStream>, code: &str) -> io::Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if !line.starts_with(code) {
            return Err(io::Error::other(format!("LMTP: expected {code}, got {line:?}")));
        }
        // A hyphen after the code says that more lines follow.
        if line.get(3..4) != Some("-") {
            return Ok(());
        }
    }
}
