//! A client that fetches and appends messages of any size.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use super::idle;
use super::message::{Message, PAUSE};
use super::tls::{self, Authority};
use super::upstream;

/// How much is read at once.
const BUFFER: usize = 64 * 1024;

pub(crate) struct Client {
    stream: BufReader<TlsStream<TcpStream>>,
    message: Message,
}

impl Client {
    /// Connects as soon as there is somebody, and logs in.
    pub(crate) async fn connect(port: u16, authority: &Authority) -> Result<Self> {
        let tcp = loop {
            match TcpStream::connect((tls::HOST, port)).await {
                Ok(tcp) => break tcp,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        tcp.set_nodelay(true)?;
        let stream = authority.connector()?.connect(tls::server_name()?, tcp).await?;
        let mut client = Self { stream: BufReader::with_capacity(BUFFER, stream), message: Message::new() };
        client.line().await?;
        client.say("a AUTHENTICATE PLAIN AGFsaWNlQGxhYi50ZXN0AHNlc2FtZQ==\r\n").await?;
        client.done().await?;
        Ok(client)
    }

    /// Fetches a message; if `slow`, its reader makes everybody wait.
    pub(crate) async fn fetch(&mut self, size: u64, slow: bool) -> Result<()> {
        self.say(&format!("a FETCH {size} BODY[]\r\n")).await?;
        let line = self.line().await?;
        ensure!(line.ends_with(&format!("{{{size}}}")), "instead of a message came {line:?}");
        if slow {
            sleep(PAUSE).await;
        }
        self.message.read(size, &mut self.stream).await?;
        ensure!(self.line().await? == ")", "the message does not end where it should");
        self.done().await
    }

    /// Appends a message; if `slow`, its reader makes everybody wait.
    pub(crate) async fn append(&mut self, size: u64, slow: bool) -> Result<()> {
        let mailbox = if slow { upstream::SLOW } else { "INBOX" };
        self.say(&format!("a APPEND {mailbox} {{{size}}}\r\n")).await?;
        let line = self.line().await?;
        ensure!(line.starts_with('+'), "the server does not want the message: {line}");
        self.message.write(size, self.stream.get_mut()).await?;
        self.say("\r\n").await?;
        self.done().await
    }

    /// Says a few small commands; from here on compressed, if wanted.
    pub(crate) async fn chat(&mut self, compressed: bool) -> Result<()> {
        if compressed {
            self.say("a COMPRESS DEFLATE\r\n").await?;
            self.done().await?;
        }
        idle::chat(&mut self.stream, compressed).await
    }

    async fn say(&mut self, line: &str) -> Result<()> {
        self.stream.write_all(line.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    async fn done(&mut self) -> Result<()> {
        let line = self.line().await?;
        if line.starts_with("a OK") { Ok(()) } else { bail!("the answer is {line:?}") }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "the connection was closed");
        Ok(line.trim_end().to_owned())
    }
}
