//! Delivery of messages: past deltapush and its bad network, at a server that may be away for a while.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::support::client::quoted;
use super::super::support::dovecot::{PASSWORD, message};
use super::super::support::lmtp;
use super::ledger::{Account, Delivered, Kind};

/// Longest absence of the mail server.
const PATIENCE: Duration = Duration::from_secs(60);

/// The mail server's ports, which outlive its restarts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) imap: u16,
    pub(crate) lmtp: u16,
}

/// Puts a message of this kind into the mailbox of `accounts[account]`, however often that takes. One that the server has
/// stored without saying so comes twice: the last of them counts.
pub(crate) async fn put(
    ports: Ports,
    accounts: &[Account],
    account: usize,
    kind: Kind,
) -> Delivered {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let user = &accounts[account].user;
        match attempt(ports, user, kind).await {
            Ok((at, message)) => return Delivered { account, message, kind, at },
            Err(error) => {
                assert!(Instant::now() < deadline, "no message can be delivered to {user}: {error}")
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The number of a message, if this is its Message-ID.
pub(crate) fn number(line: &str) -> Option<usize> {
    line.strip_prefix("Message-ID: <")?.split('.').next()?.parse().ok()
}

/// Returns the last moment at which the message was not there yet, and its number.
async fn attempt(ports: Ports, user: &str, kind: Kind) -> io::Result<(Instant, usize)> {
    const BOB: &str = "bob@elsewhere.test";
    let (from, headers) = match kind {
        Kind::News | Kind::Seen => (BOB, ""),
        Kind::AutoReply => (BOB, "Auto-Submitted: auto-replied\r\n"),
        Kind::OwnMail => (user, ""),
    };
    let message = message(from, user, &format!("{kind:?}"), headers);
    let number = message.lines().find_map(number).unwrap();
    let at = match kind {
        // It is marked seen from the first moment on.
        Kind::Seen => timeout(Duration::from_secs(20), append(ports.imap, user, &message)).await?,
        _ => lmtp::try_deliver(ports.lmtp, from, user, &message).await,
    }?;
    Ok((at, number))
}

async fn append(port: u16, user: &str, message: &str) -> io::Result<Instant> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    command(&mut stream, &format!("a LOGIN {user} {}", quoted(PASSWORD)), "a OK").await?;
    let before = Instant::now();
    let size = message.len();
    command(&mut stream, &format!("b APPEND INBOX (\\Seen) {{{size}+}}\r\n{message}"), "b OK")
        .await?;
    Ok(before)
}

async fn command(stream: &mut BufReader<TcpStream>, command: &str, wanted: &str) -> io::Result<()> {
    stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        if line.starts_with(wanted) {
            return Ok(());
        }
        if !line.starts_with('*') {
            break;
        }
        line.clear();
    }
    Err(io::Error::other(format!("expected {wanted}, got {line:?}")))
}
