//! An IMAP server that plays a written dialogue, byte for byte.
//!
//! A dialogue is a list of lines, each one step:
//!
//! | step | meaning |
//! | --- | --- |
//! | `S: text` | send the line |
//! | `S= bytes` | send these bytes; `\r`, `\n`, `\0`, `\xNN` and `\\` stand for what they do in Rust |
//! | `C: text` | expect exactly this line |
//! | `C~ text` | expect a line that starts like this |
//! | `C= bytes` | expect exactly these bytes, escaped as for `S=` |
//! | `LOGIN` | expect one login, in whatever form deltapush chooses, and keep its tag |
//! | `CAPS list` | from here on, answer a CAPABILITY command of deltapush's own by this list |
//! | `WAIT ms` | pause |
//! | `GATE` | pause until the test calls [`Scripted::open_gate`] |
//! | `REACHED` | let one call of [`Scripted::reached`] go on |
//! | `HANDSHAKE` | expect the beginning of a TLS handshake |
//! | `EOF` | expect the peer to end the connection |
//! | `CLOSE` | end the connection |
//! | `RESET` | end the connection and the dialogue by a TCP reset |
//! | `HANG` | say nothing, read nothing, to the end of the test |
//!
//! `<tag>` stands for the tag of the last command that `LOGIN` accepted or `C: <tag> …` met. After the last step the peer
//! may say no more: whatever comes before its end is a failure.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::client::{Stream, literal_size};

/// Time limit for one step.
const PATIENCE: Duration = Duration::from_secs(40);
/// Observation time of the peer after the last step.
const FAREWELL: Duration = Duration::from_secs(2);

/// The user and the password of every scripted account.
pub(crate) const USER: &str = "alice@lab.test";
/// See [`USER`].
pub(crate) const PASSWORD: &str = "sesame";

/// Transport settings of a [`Scripted`].
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// Send every byte on its own.
    pub(crate) bytewise: bool,
    /// TLS from the first byte.
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// A scripted server: the first connection gets the first dialogue, and so on. They run side by side.
pub(crate) struct Scripted {
    /// Its port, on loopback.
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    finished: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    reached: Arc<Semaphore>,
    dialogues: usize,
}

impl Scripted {
    /// Starts a server in plain text.
    pub(crate) async fn start(dialogues: &[&str]) -> Self {
        Self::start_with(Manner::default(), dialogues).await
    }

    /// Starts a server that behaves as told.
    pub(crate) async fn start_with(manner: Manner, dialogues: &[&str]) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), manner, dialogues).await
    }

    /// The same, at an address of this machine's.
    pub(crate) async fn start_at(address: SocketAddr, manner: Manner, dialogues: &[&str]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
            failures: Arc::default(),
            finished: Arc::new(Semaphore::new(0)),
            gate: Arc::new(Semaphore::new(0)),
            reached: Arc::new(Semaphore::new(0)),
            dialogues: dialogues.len(),
        };
        let scripts: Vec<String> =
            dialogues.iter().map(|dialogue| (*dialogue).to_owned()).collect();
        let (connections, failures) =
            (Arc::clone(&server.connections), Arc::clone(&server.failures));
        let finished = Arc::clone(&server.finished);
        let signals =
            Signals { gate: Arc::clone(&server.gate), reached: Arc::clone(&server.reached) };
        tokio::spawn(async move {
            let mut players = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let Some(script) = scripts.get(number).cloned() else {
                    failures
                        .lock()
                        .unwrap()
                        .push(format!("connection {}: one more than dialogues", number + 1));
                    continue;
                };
                let (manner, signals) = (manner.clone(), signals.clone());
                let (failures, finished) = (Arc::clone(&failures), Arc::clone(&finished));
                players.spawn(async move {
                    if let Err(failure) = play(tcp, &manner, &signals, &script).await {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("connection {}: {failure}", number + 1));
                    }
                    finished.add_permits(1);
                });
            }
        });
        server
    }

    /// Counts the connections made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Lets one `GATE` step go on.
    pub(crate) fn open_gate(&self) {
        self.gate.add_permits(1);
    }

    /// Waits until some dialogue comes to a `REACHED` step.
    pub(crate) async fn reached(&self) {
        match timeout(PATIENCE, self.reached.acquire()).await {
            Ok(permit) => permit.unwrap().forget(),
            Err(_) => panic!("no dialogue came to its REACHED step"),
        }
    }

    /// Waits until every dialogue was played to its end, and fails with what went otherwise.
    pub(crate) async fn finish(&self) {
        let all = u32::try_from(self.dialogues).unwrap();
        let done = timeout(PATIENCE + FAREWELL, self.finished.acquire_many(all)).await.is_ok();
        let failures = self.failures.lock().unwrap().join("\n");
        assert!(failures.is_empty(), "{failures}");
        assert!(
            done,
            "{} connections, {} dialogues: not all came to their end",
            self.connections(),
            self.dialogues
        );
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // A client that waits in vain fails the test first: then this is the reason.
        if std::thread::panicking() {
            let failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            eprintln!(
                "--- the scripted upstream, {} connections\n{}\n---",
                self.connections(),
                failures.join("\n")
            );
        }
    }
}

/// Signals between the dialogues and the test.
#[derive(Clone)]
struct Signals {
    gate: Arc<Semaphore>,
    reached: Arc<Semaphore>,
}

/// One connection under way.
struct Player<'a> {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    tag: String,
    capabilities: Option<String>,
    bytewise: bool,
    signals: &'a Signals,
}

async fn play(
    tcp: TcpStream,
    manner: &Manner,
    signals: &Signals,
    script: &str,
) -> Result<(), String> {
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let (tcp, twin) = twins(tcp).map_err(|error| error.to_string())?;
    let stream: Box<dyn Stream> = match &manner.tls {
        None => Box::new(tcp),
        Some(config) => {
            let accepted = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await;
            Box::new(accepted.map_err(|error| format!("TLS handshake: {error}"))?)
        }
    };
    let mut player = Player {
        stream,
        received: Vec::new(),
        tag: String::new(),
        capabilities: None,
        bytewise: manner.bytewise,
        signals,
    };
    let steps: Vec<&str> =
        script.lines().map(str::trim_start).filter(|step| !step.is_empty()).collect();
    for (number, step) in steps.iter().enumerate() {
        if *step == "RESET" {
            // The last handle that is closed sends the reset.
            return SockRef::from(&twin)
                .set_linger(Some(Duration::ZERO))
                .map_err(|error| error.to_string());
        }
        player.step(step).await.map_err(|failure| shown(&steps, number, &failure))?;
    }
    drop(twin);
    player.farewell().await.map_err(|failure| shown(&steps, steps.len(), &failure))
}

/// A connection and a second handle of it.
fn twins(tcp: TcpStream) -> std::io::Result<(TcpStream, std::net::TcpStream)> {
    let tcp = tcp.into_std()?;
    let twin = tcp.try_clone()?;
    Ok((TcpStream::from_std(tcp)?, twin))
}

/// The dialogue with a mark at the step that failed.
fn shown(steps: &[&str], failed: usize, failure: &str) -> String {
    let mut text = String::from("the dialogue went otherwise\n");
    for (number, step) in steps.iter().enumerate() {
        let mark = if number == failed { ">>" } else { "  " };
        text += &format!("{mark} {step}\n");
    }
    text + failure
}

impl Player<'_> {
    async fn step(&mut self, step: &str) -> Result<(), String> {
        let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
        match word {
            "S:" => self.send(format!("{}\r\n", self.with_tag(rest)).as_bytes()).await,
            "S=" => self.send(&unescaped(rest)).await,
            "C:" => self.expect_line(rest).await,
            "C~" => {
                let line = self.command().await?;
                if line.starts_with(rest) { Ok(()) } else { Err(format!("   got {line:?}")) }
            }
            "C=" => self.expect_bytes(&unescaped(rest)).await,
            "LOGIN" => self.login().await,
            "CAPS" => {
                self.capabilities = Some(rest.to_owned());
                Ok(())
            }
            "WAIT" => {
                tokio::time::sleep(Duration::from_millis(rest.parse().unwrap())).await;
                Ok(())
            }
            "GATE" => match timeout(PATIENCE, self.signals.gate.acquire()).await {
                Ok(permit) => {
                    permit.unwrap().forget();
                    Ok(())
                }
                Err(_) => Err("   the gate was not opened".to_owned()),
            },
            "REACHED" => {
                self.signals.reached.add_permits(1);
                Ok(())
            }
            // A record of the type "handshake" (RFC 8446 section 5.1).
            "HANDSHAKE" => {
                self.expect_bytes(&[22, 3]).await?;
                while self.received.len() < 3 {
                    self.fill().await?;
                }
                let length = usize::from(u16::from_be_bytes([self.received[1], self.received[2]]));
                while self.received.len() < 3 + length {
                    self.fill().await?;
                }
                self.received.drain(..3 + length);
                Ok(())
            }
            "EOF" => self.expect_eof().await,
            "CLOSE" => self.stream.shutdown().await.map_err(|error| error.to_string()),
            "HANG" => std::future::pending().await,
            _ => Err(format!("   no such step: {word}")),
        }
    }

    /// Expects the end after the last step, or nothing at all.
    async fn farewell(&mut self) -> Result<(), String> {
        while self.received.is_empty() {
            if !matches!(timeout(FAREWELL, self.fill()).await, Ok(Ok(()))) {
                return Ok(());
            }
        }
        let rest = self.received.escape_ascii();
        // LOGOUT is how a well-mannered peer leaves.
        if rest.to_string().contains("LOGOUT") {
            Ok(())
        } else {
            Err(format!("   after the end came {rest}"))
        }
    }

    async fn expect_line(&mut self, wanted: &str) -> Result<(), String> {
        let got = self.command().await?;
        if let Some(wanted) = wanted.strip_prefix("<tag> ") {
            let (tag, rest) = got.split_once(' ').unwrap_or((&got, ""));
            if rest == wanted {
                self.tag = tag.to_owned();
                return Ok(());
            }
        }
        if got == self.with_tag(wanted) { Ok(()) } else { Err(format!("   got {got:?}")) }
    }

    async fn expect_bytes(&mut self, wanted: &[u8]) -> Result<(), String> {
        while self.received.len() < wanted.len() && wanted.starts_with(&self.received) {
            self.fill().await?;
        }
        let got: Vec<u8> = self.received.drain(..wanted.len().min(self.received.len())).collect();
        if got == wanted {
            return Ok(());
        }
        let same = got.iter().zip(wanted).take_while(|(left, right)| left == right).count();
        Err(format!("   got {}\n   which differs after {same} bytes", got.escape_ascii()))
    }

    async fn expect_eof(&mut self) -> Result<(), String> {
        if !self.received.is_empty() {
            return Err(format!("   instead came {}", self.received.escape_ascii()));
        }
        let mut buffer = [0; 1024];
        match timeout(PATIENCE, self.stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => Ok(()),
            Ok(Ok(count)) if buffer[..count].windows(6).any(|word| word == b"LOGOUT") => Ok(()),
            Ok(Ok(count)) => Err(format!("   instead came {}", buffer[..count].escape_ascii())),
            Err(_) => Err("   the connection stays open".to_owned()),
        }
    }

    /// LOGIN or AUTHENTICATE PLAIN in any of their forms, with the right credentials.
    async fn login(&mut self) -> Result<(), String> {
        let mut line = self.command().await?;
        while let Some(size) = literal_size(&line) {
            if line.ends_with(&format!("{{{size}}}")) {
                self.send(b"+ go on\r\n").await?;
            }
            while self.received.len() < size {
                self.fill().await?;
            }
            let literal: Vec<u8> = self.received.drain(..size).collect();
            line = format!(
                "{} {}{}",
                strip_announcement(&line),
                String::from_utf8_lossy(&literal),
                self.line().await?
            );
        }
        let mut words = line.splitn(3, ' ');
        self.tag = words.next().unwrap_or_default().to_owned();
        let (verb, arguments) =
            (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let given = match verb.to_ascii_uppercase().as_str() {
            "LOGIN" => arguments.replace('"', "").replace("  ", " "),
            "AUTHENTICATE" => self.authenticate(arguments).await?,
            _ => return Err(format!("   a login was expected, got {line:?}")),
        };
        if given == format!("{USER} {PASSWORD}") {
            Ok(())
        } else {
            Err(format!("   credentials: {given:?}"))
        }
    }

    async fn authenticate(&mut self, arguments: &str) -> Result<String, String> {
        let (mechanism, initial) = arguments.split_once(' ').unwrap_or((arguments, ""));
        if !mechanism.eq_ignore_ascii_case("PLAIN") {
            return Err(format!("   AUTHENTICATE {mechanism}"));
        }
        let response = if initial.is_empty() {
            self.send(b"+ \r\n").await?;
            self.line().await?
        } else {
            initial.to_owned()
        };
        let message =
            BASE64_STANDARD.decode(&response).map_err(|error| format!("   {error}: {response}"))?;
        let message = String::from_utf8_lossy(&message).into_owned();
        let parts: Vec<&str> = message.split('\0').collect();
        match parts.as_slice() {
            [_, user, password] => Ok(format!("{user} {password}")),
            _ => Err(format!("   not a message of SASL PLAIN: {message:?}")),
        }
    }

    /// The next line, past a CAPABILITY command of deltapush's own (its tags are not like the test client's).
    async fn command(&mut self) -> Result<String, String> {
        loop {
            let line = self.line().await?;
            match (line.split_once(' '), &self.capabilities) {
                (Some((tag, verb)), Some(list))
                    if verb.eq_ignore_ascii_case("CAPABILITY") && !is_clients(tag) =>
                {
                    let answer = format!("* CAPABILITY {list}\r\n{tag} OK done\r\n");
                    self.send(answer.as_bytes()).await?;
                }
                _ => return Ok(line),
            }
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), String> {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await {
            Ok(Ok(count)) if count > 0 => Ok(()),
            Ok(ended) => Err(format!(
                "   the peer ended the connection ({ended:?}); left over: {}",
                self.left()
            )),
            Err(_) => {
                Err(format!("   nothing came within {PATIENCE:?}; left over: {}", self.left()))
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let pace = if self.bytewise { 1 } else { bytes.len().max(1) };
        for chunk in bytes.chunks(pace) {
            let sent = timeout(PATIENCE, async {
                self.stream.write_all(chunk).await?;
                self.stream.flush().await
            });
            match sent.await {
                Ok(Ok(())) => tokio::task::yield_now().await,
                Ok(Err(error)) => return Err(format!("   sending: {error}")),
                Err(_) => return Err(format!("   the peer took nothing for {PATIENCE:?}")),
            }
        }
        Ok(())
    }

    fn with_tag(&self, text: &str) -> String {
        text.replace("<tag>", &self.tag)
    }

    fn left(&self) -> String {
        self.received.escape_ascii().to_string()
    }
}

/// The test client's tags: `c` and a number.
fn is_clients(tag: &str) -> bool {
    tag.strip_prefix('c').is_some_and(|number| number.parse::<u32>().is_ok())
}

fn strip_announcement(line: &str) -> &str {
    line.rsplit_once('{').map_or(line, |(before, _)| before.trim_end_matches(['~', ' ']))
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'0') => bytes.push(0),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            other => panic!("no such escape in a dialogue: {other:?}"),
        }
    }
    bytes
}
