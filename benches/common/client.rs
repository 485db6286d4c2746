//! A client that fetches and appends messages of any size, says small commands, and waits; compressed if wanted.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use deltapush::proxy::compress::{Deflater, Inflater, MIN_WORK};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::HandshakeKind;

use super::message::{self, PAUSE};
use super::session::SLOW;
use super::tls;

/// Bytes that are read at once.
const BUFFER: usize = 64 * 1024;

/// A session, logged in.
pub(crate) struct Client {
    stream: BufReader<TlsStream<TcpStream>>,
    layer: Option<Layer>,
}

/// The layer between TLS and IMAP after COMPRESS.
struct Layer {
    deflater: Deflater,
    inflater: Inflater,
    /// Inflated bytes that are not read yet.
    inflated: Vec<u8>,
    work: Box<[u8]>,
}

impl Client {
    /// Connects from an address on loopback, any port, and logs in.
    pub(crate) async fn connect(
        from: SocketAddr,
        to: SocketAddr,
        tls: &TlsConnector,
        user: &str,
    ) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        socket.bind(from)?;
        let tcp = socket.connect(to).await.context("cannot connect")?;
        let stream = tls.connect(tls::server_name()?, tcp).await.context("no TLS")?;
        let mut client = Self { stream: BufReader::with_capacity(BUFFER, stream), layer: None };
        ensure!(client.line().await?.starts_with("* OK"), "no greeting");
        client.command(&format!("LOGIN {user} sesame")).await.context("no login")?;
        Ok(client)
    }

    /// Reports if its TLS session continues an earlier one.
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.get_ref().get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Fetches a message; if `slow`, its reader makes everybody wait.
    pub(crate) async fn fetch(&mut self, size: u64, slow: bool) -> Result<()> {
        self.send(&format!("a FETCH {size} BODY[]")).await?;
        let line = self.line().await?;
        ensure!(line.ends_with(&format!("{{{size}}}")), "instead of a message came {line:?}");
        if slow {
            sleep(PAUSE).await;
        }
        message::read(size, &mut self.stream).await?;
        ensure!(self.line().await? == ")", "the message does not end where it should");
        self.done().await
    }

    /// Appends a message; if `slow`, its reader makes everybody wait.
    pub(crate) async fn append(&mut self, size: u64, slow: bool) -> Result<()> {
        let mailbox = if slow { SLOW } else { "INBOX" };
        self.send(&format!("a APPEND {mailbox} {{{size}}}")).await?;
        let line = self.line().await?;
        ensure!(line.starts_with('+'), "the server does not want the message: {line}");
        message::write(size, self.stream.get_mut()).await?;
        self.send("").await?;
        self.done().await
    }

    /// Fetches the headers of 50 messages, as a client lists a mailbox.
    pub(crate) async fn headers(&mut self) -> Result<()> {
        let fields = "MESSAGE-ID DATE FROM TO CHAT-VERSION AUTOCRYPT-SETUP-MESSAGE IN-REPLY-TO";
        self.command(&format!(
            "UID FETCH 1:50 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS ({fields})])"
        ))
        .await
    }

    /// Says a command that is answered by a tagged OK, after whatever else.
    pub(crate) async fn command(&mut self, command: &str) -> Result<()> {
        self.send(&format!("a {command}")).await?;
        self.done().await
    }

    /// From here on both sides compress.
    pub(crate) async fn compress(&mut self) -> Result<()> {
        self.command("COMPRESS DEFLATE").await?;
        let work = vec![0; MIN_WORK].into();
        self.layer = Some(Layer {
            deflater: Deflater::new(),
            inflater: Inflater::new(),
            inflated: Vec::new(),
            work,
        });
        Ok(())
    }

    /// Begins to wait for news.
    pub(crate) async fn idle(&mut self) -> Result<()> {
        self.send("a IDLE").await?;
        let line = self.line().await?;
        ensure!(line.starts_with('+'), "instead of waiting: {line}");
        Ok(())
    }

    /// Logs out, and waits until the other side has closed the connection.
    pub(crate) async fn log_out(mut self) -> Result<()> {
        self.command("LOGOUT").await?;
        // Some close it without saying so in TLS.
        let _ = self.stream.fill_buf().await;
        Ok(())
    }

    async fn send(&mut self, line: &str) -> Result<()> {
        let mut said = format!("{line}\r\n").into_bytes();
        if let Some(layer) = &mut self.layer {
            let mut deflated = Vec::new();
            let mut out = |bytes: &[u8]| deflated.extend_from_slice(bytes);
            layer.deflater.write(&said, &mut out).and_then(|()| layer.deflater.flush(&mut out))?;
            said = deflated;
        }
        self.stream.write_all(&said).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads until the tagged answer.
    async fn done(&mut self) -> Result<()> {
        loop {
            let line = self.line().await?;
            if line.starts_with("a OK") {
                return Ok(());
            }
            if line.starts_with("a ") {
                bail!("the answer is {line:?}");
            }
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match &mut self.layer {
            None => {
                ensure!(self.stream.read_line(&mut line).await? > 0, "the connection was closed");
            }
            Some(layer) => line = layer.line(&mut self.stream).await?,
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

impl Layer {
    async fn line(&mut self, stream: &mut BufReader<TlsStream<TcpStream>>) -> Result<String> {
        loop {
            if let Some(end) = self.inflated.iter().position(|byte| *byte == b'\n') {
                let line = self.inflated.drain(..=end).collect();
                return Ok(String::from_utf8(line)?);
            }
            let mut bytes = stream.fill_buf().await?;
            let len = bytes.len();
            ensure!(len > 0, "the connection was closed");
            while !bytes.is_empty() || self.inflater.has_more() {
                let inflated =
                    self.inflater.inflate(&mut bytes, &mut self.work).context("from deltapush")?;
                self.inflated.extend_from_slice(inflated);
            }
            stream.consume(len);
        }
    }
}
