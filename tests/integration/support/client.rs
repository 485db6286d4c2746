//! A raw IMAP client: it knows bytes and lines, and what it was promised.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::certs::client_config;
use super::dovecot::PASSWORD;

/// Time limit of a client's wait before the test fails.
const PATIENCE: Duration = Duration::from_secs(40);

/// Anything that carries bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to an IMAP server. A failed expectation shows the whole dialogue.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    dialogue: String,
    /// Consumed since [`Client::take_recorded`] was called last.
    recorded: Vec<u8>,
    bytewise: bool,
}

/// Answer to a command.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The untagged lines before the end, without CRLF. A literal is part of its line.
    pub(crate) untagged: Vec<String>,
    /// The tagged line, without CRLF and tag.
    pub(crate) result: String,
}

impl Reply {
    /// Everything in one string, to look for something in it.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.untagged.join("\n"), self.result)
    }
}

impl Client {
    /// Connects in plain text.
    pub(crate) async fn plain(port: u16) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await;
        let stream = stream.expect("connecting takes too long").unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(Box::new(stream))
    }

    /// Connects in plain text from another of this machine's addresses, all of which begin with 127.
    pub(crate) async fn plain_from(address: Ipv4Addr, port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        let stream = timeout(PATIENCE, socket.connect((Ipv4Addr::LOCALHOST, port).into())).await;
        let stream = stream.expect("connecting takes too long").unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(Box::new(stream))
    }

    /// The same, with TLS from the first byte.
    pub(crate) async fn tls_from(address: Ipv4Addr, port: u16, trusted: &Path) -> Self {
        Self::plain_from(address, port).await.encrypted(trusted).await
    }

    /// Connects with TLS from the first byte, trusting what is in a PEM file.
    pub(crate) async fn tls(port: u16, trusted: &Path) -> Self {
        Self::plain(port).await.encrypted(trusted).await
    }

    /// Connects to another machine, with TLS from the first byte and a certificate for `name`.
    pub(crate) async fn tls_at(address: SocketAddr, name: &'static str, trusted: &Path) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = stream.expect("connecting takes too long").unwrap();
        let name = ServerName::try_from(name).unwrap();
        let handshake = TlsConnector::from(client_config(trusted)).connect(name, stream);
        let stream = timeout(PATIENCE, handshake).await.expect("the TLS handshake takes too long");
        Self::new(Box::new(stream.unwrap()))
    }

    /// Connects in plain text and goes on encrypted after STARTTLS.
    pub(crate) async fn starttls(port: u16, trusted: &Path) -> Self {
        let mut client = Self::plain(port).await;
        client.expect_prefix("* OK").await;
        client.send("c0 STARTTLS").await;
        client.expect_prefix("c0 OK").await;
        client.encrypted(trusted).await
    }

    /// Goes on encrypted, as after STARTTLS; none if the handshake fails.
    pub(crate) async fn try_encrypted(self, trusted: &Path) -> Option<Self> {
        assert!(
            self.received.is_empty(),
            "the server spoke before the TLS handshake\n{}",
            self.state()
        );
        let name = ServerName::try_from("localhost").unwrap();
        let handshake = TlsConnector::from(client_config(trusted)).connect(name, self.stream);
        let stream =
            timeout(PATIENCE, handshake).await.expect("the TLS handshake takes too long").ok()?;
        Some(Self::new(Box::new(stream)))
    }

    /// Sends every byte on its own from here on.
    pub(crate) fn bytewise(mut self) -> Self {
        self.bytewise = true;
        self
    }

    /// Reads the greeting and logs in as a user of the test Dovecot, the way Delta Chat does.
    pub(crate) async fn log_in(&mut self, user: &str) -> Reply {
        self.expect_prefix("* OK").await;
        let reply = self.command(&format!("c1 LOGIN \"{user}\" {}", quoted(PASSWORD))).await;
        assert!(reply.result.starts_with("OK"), "login of {user}: {reply:?}\n{}", self.dialogue);
        reply
    }

    /// Sends one line; CRLF is added.
    pub(crate) async fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\r\n").as_bytes()).await;
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.note("C", bytes);
        let pace = if self.bytewise { 1 } else { bytes.len().max(1) };
        for chunk in bytes.chunks(pace) {
            let sent = timeout(PATIENCE, async {
                self.stream.write_all(chunk).await?;
                self.stream.flush().await
            });
            let sent = sent.await;
            assert!(matches!(sent, Ok(Ok(()))), "sending failed: {sent:?}\n{}", self.dialogue);
            if self.bytewise {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sends a command (its tag first) and reads to its end, which must come.
    pub(crate) async fn command(&mut self, line: &str) -> Reply {
        self.send(line).await;
        let tag = line.split(' ').next().unwrap();
        self.until_tagged(tag).await
    }

    /// Reads to the tagged line of a command that was sent before.
    pub(crate) async fn until_tagged(&mut self, tag: &str) -> Reply {
        let mut untagged = Vec::new();
        loop {
            let line = self.response().await;
            if let Some(result) = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                return Reply { untagged, result: result.to_owned() };
            }
            untagged.push(line);
        }
    }

    /// The next response: a line, and every literal that it announces, with the lines after them.
    pub(crate) async fn response(&mut self) -> String {
        let mut response = self.line().await;
        // A status response cannot announce a literal, whatever its text ends in.
        let status = ["* OK", "* NO", "* BAD", "* BYE", "* PREAUTH"]
            .iter()
            .any(|start| response.starts_with(start));
        while let Some(size) =
            literal_size(&response).filter(|_| !status && response.starts_with('*'))
        {
            response += "\r\n";
            response += &String::from_utf8_lossy(&self.bytes(size).await);
            response += &self.line().await;
        }
        response
    }

    /// The next line, from a server that may take longer than others.
    pub(crate) async fn patient_line(&mut self, patience: Duration) -> String {
        if !self.received.contains(&b'\n') {
            let mut buffer = vec![0; 65536];
            if let Ok(Ok(count)) = timeout(patience, self.stream.read(&mut buffer)).await {
                self.received.extend_from_slice(&buffer[..count]);
            }
        }
        self.line().await
    }

    /// The next line, without CRLF.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                self.note("S", &[&line, b"\r\n".as_slice()].concat());
                return String::from_utf8_lossy(&line).into_owned();
            }
            assert!(
                self.fill().await > 0,
                "the connection ended, a line was expected\n{}",
                self.state()
            );
        }
    }

    /// The next `count` bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(
                self.fill().await > 0,
                "the connection ended, {count} bytes were expected\n{}",
                self.state()
            );
        }
        let bytes: Vec<u8> = self.received.drain(..count).collect();
        self.note("S", &bytes);
        bytes
    }

    /// Expects exactly this line.
    pub(crate) async fn expect(&mut self, line: &str) {
        let got = self.line().await;
        assert_eq!(got, line, "\n{}", self.dialogue);
    }

    /// Expects a line that starts like this, and returns it.
    pub(crate) async fn expect_prefix(&mut self, prefix: &str) -> String {
        let got = self.line().await;
        assert!(got.starts_with(prefix), "expected {prefix:?} to begin {got:?}\n{}", self.dialogue);
        got
    }

    /// Expects the other side to end the connection, and returns what it said before.
    pub(crate) async fn expect_eof(&mut self) -> String {
        while self.fill().await > 0 {}
        let rest = std::mem::take(&mut self.received);
        self.note("S", &rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Sends bytes to a peer that may have had enough before the last of them.
    pub(crate) async fn send_whatever_happens(&mut self, bytes: &[u8]) {
        self.note("C", bytes);
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        assert!(sent.is_ok(), "the peer neither reads nor ends the connection\n{}", self.dialogue);
    }

    /// Fails if the other side says anything within `time`.
    pub(crate) async fn expect_silence(&mut self, time: Duration) {
        let mut byte = [0];
        let heard = timeout(time, self.stream.read(&mut byte)).await;
        assert!(
            self.received.is_empty() && heard.is_err(),
            "silence was expected: {heard:?}\n{}",
            self.state()
        );
    }

    /// Returns the other side's words since the last call, a character for each byte.
    pub(crate) fn take_recorded(&mut self) -> String {
        std::mem::take(&mut self.recorded).into_iter().map(char::from).collect()
    }

    /// The dialogue so far, for a test's own messages.
    pub(crate) fn dialogue(&self) -> &str {
        &self.dialogue
    }

    fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            received: Vec::new(),
            dialogue: String::new(),
            recorded: Vec::new(),
            bytewise: false,
        }
    }

    async fn encrypted(self, trusted: &Path) -> Self {
        let state = self.state();
        self.try_encrypted(trusted)
            .await
            .unwrap_or_else(|| panic!("the TLS handshake failed\n{state}"))
    }

    async fn fill(&mut self) -> usize {
        let mut buffer = vec![0; 65536];
        match timeout(PATIENCE, self.stream.read(&mut buffer)).await {
            Ok(Ok(count)) => {
                self.received.extend_from_slice(&buffer[..count]);
                count
            }
            // A peer that closes with unread data resets; a TLS peer may close without notice: both are an end.
            Ok(Err(_)) => 0,
            Err(_) => panic!("nothing came within {PATIENCE:?}\n{}", self.state()),
        }
    }

    fn note(&mut self, who: &str, bytes: &[u8]) {
        if who == "S" {
            self.recorded.extend_from_slice(bytes);
        }
        const SHOWN: usize = 300;
        let text = bytes[..bytes.len().min(SHOWN)].escape_ascii();
        let more =
            if bytes.len() > SHOWN { format!("… {} bytes", bytes.len()) } else { String::new() };
        self.dialogue += &format!("  {who}: {text}{more}\n");
    }

    fn state(&self) -> String {
        format!("{}  not consumed: {}", self.dialogue, self.received.escape_ascii())
    }
}

/// A quoted string (RFC 9051 section 4.3), as Delta Chat writes it.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
}

/// The message of SASL PLAIN for a user of the test Dovecot, in base64.
pub(crate) fn sasl_plain(user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("\0{user}\0{password}"))
}

/// The size of the literal that a line announces at its end: `{5}`, `{5+}`, `~{5}`.
pub(crate) fn literal_size(line: &str) -> Option<usize> {
    let (_, size) = line.strip_suffix('}')?.rsplit_once('{')?;
    size.strip_suffix('+').unwrap_or(size).parse().ok()
}
