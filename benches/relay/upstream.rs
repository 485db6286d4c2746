//! A mail server that has a message of any size and takes any: `FETCH size BODY[]` and `APPEND INBOX {size}`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::message::{Message, PAUSE};
use super::tls::Authority;

/// How much is read at once.
const BUFFER: usize = 64 * 1024;

/// The mailbox of which the server is slow to take messages.
pub(crate) const SLOW: &str = "SLOW";

const CAPABILITIES: &str = "[CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN]";

pub(crate) async fn start(authority: &Authority) -> Result<SocketAddr> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socket.local_addr()?;
    let (acceptor, message) = (authority.acceptor()?, Arc::new(Message::new()));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = socket.accept().await {
            let (acceptor, message) = (acceptor.clone(), Arc::clone(&message));
            tokio::spawn(async move {
                if let Err(error) = serve(tcp, acceptor, &message).await {
                    println!("the upstream: {error:#}");
                }
            });
        }
    });
    Ok(address)
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, message: &Message) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(BUFFER, acceptor.accept(tcp).await?);
    say(&mut stream, &format!("* OK {CAPABILITIES} ready\r\n")).await?;
    let mut line = String::new();
    // A peer that is gone, in whatever manner, is the end.
    while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
        let mut words = line.split_ascii_whitespace();
        let (tag, verb) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match verb.to_ascii_uppercase().as_str() {
            "AUTHENTICATE" => {
                say(&mut stream, &format!("{tag} OK {CAPABILITIES} logged in\r\n")).await?;
                line.clear();
                continue;
            }
            "FETCH" => {
                let size = words.next().context("FETCH without a size")?.parse()?;
                say(&mut stream, &format!("* 1 FETCH (UID 1 BODY[] {{{size}}}\r\n")).await?;
                message.write(size, stream.get_mut()).await?;
                say(&mut stream, ")\r\n").await?;
            }
            "APPEND" => {
                let size = words.next_back().context("APPEND without a size")?.trim_matches(['{', '}']).parse()?;
                say(&mut stream, "+ go on\r\n").await?;
                if line.contains(SLOW) {
                    sleep(PAUSE).await;
                }
                message.read(size, &mut stream).await?;
                stream.read_line(&mut String::new()).await?;
            }
            "SEARCH" => {}
            _ => bail!("unexpected: {verb}"),
        }
        say(&mut stream, &format!("{tag} OK done\r\n")).await?;
        line.clear();
    }
    Ok(())
}

async fn say(stream: &mut BufReader<TlsStream<TcpStream>>, lines: &str) -> Result<()> {
    stream.write_all(lines.as_bytes()).await?;
    Ok(stream.flush().await?)
}
