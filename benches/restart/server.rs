//! A mail server that knows `u0@lab.test`, `u1@lab.test` … by any password, each with an INBOX of equal messages: what a
//! watching session asks for, and nothing else.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

const CAPABILITIES: &str = "CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN IDLE";
const HEADERS: &str = "From: bob@elsewhere.test\r\n\r\n";

/// The server. It ends with the runtime.
pub(crate) struct Server {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// How many messages each account has.
    inboxes: Vec<watch::Sender<u32>>,
    /// Sessions in IDLE.
    idle: AtomicUsize,
    /// When each connection was accepted.
    accepted: Mutex<Vec<Instant>>,
    /// Changes when all connections are to be cut.
    cuts: watch::Sender<u32>,
}

impl Server {
    pub(crate) async fn start(accounts: usize, tls: Option<TlsAcceptor>) -> Result<Self> {
        let shared = Arc::new(Shared {
            inboxes: (0..accounts).map(|_| watch::Sender::new(1)).collect(),
            idle: AtomicUsize::new(0),
            accepted: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        // All may come at once: how many are let in is deltapush's decision, not the kernel's.
        socket.listen(i32::try_from(accounts)?)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        let port = listener.local_addr()?.port();
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.accepted.lock().unwrap().push(Instant::now());
                tokio::spawn(connection(stream, tls.clone(), Arc::clone(&accepting)));
            }
        });
        Ok(Self { port, shared })
    }

    /// How many mailboxes are watched.
    pub(crate) fn watched(&self) -> usize {
        self.shared.idle.load(Ordering::Relaxed)
    }

    /// A message comes for an account.
    pub(crate) fn deliver(&self, account: usize) {
        self.shared.inboxes[account].send_modify(|messages| *messages += 1);
    }

    /// Resets all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The most connections that were accepted within one second since this was last asked, and how many in all.
    pub(crate) fn take_peak(&self) -> (usize, usize) {
        let accepted = std::mem::take(&mut *self.shared.accepted.lock().unwrap());
        let within_a_second = |(index, first): (usize, &Instant)| {
            accepted[index..].partition_point(|at| *at < *first + Duration::from_secs(1))
        };
        (accepted.iter().enumerate().map(within_a_second).max().unwrap_or(0), accepted.len())
    }
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    // Fails only on a connection that is gone.
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    let session = async {
        // A peer that is gone, in whatever manner, is the end.
        match tls {
            Some(tls) => Session::new(tls.accept(tcp).await?, &shared).run().await,
            None => Session::new(tcp, &shared).run().await,
        }
    };
    tokio::select! {
        _ = session => {}
        _ = cuts.changed() => {}
    }
}

struct Session<'a, S> {
    stream: BufReader<S>,
    shared: &'a Shared,
    inbox: Option<watch::Receiver<u32>>,
}

/// Counts a session as one in IDLE for as long as it lives.
struct Idle<'a>(&'a Shared);

impl<'a> Idle<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.idle.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(stream: S, shared: &'a Shared) -> Self {
        Self { stream: BufReader::with_capacity(1024, stream), shared, inbox: None }
    }

    async fn run(mut self) -> Result<()> {
        self.say(&format!("* OK [{CAPABILITIES}] ready\r\n")).await?;
        loop {
            let line = self.line().await?;
            let (tag, command) = line.split_once(' ').context("no tag")?;
            self.command(tag, command).await?;
        }
    }

    async fn command(&mut self, tag: &str, command: &str) -> Result<()> {
        let upper = command.to_ascii_uppercase();
        if let Some(message) = command.strip_prefix("AUTHENTICATE PLAIN ") {
            self.inbox = Some(self.shared.inboxes[account(message)?].subscribe());
            return self.say(&format!("{tag} OK [{CAPABILITIES}] logged in\r\n")).await;
        }
        if upper.starts_with("EXAMINE") {
            let messages = self.messages()?;
            let next = messages + 1;
            self.say(&format!(
                "* FLAGS (\\Seen)\r\n* {messages} EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT {next}] ok\r\n"
            ))
            .await?;
        } else if let Some(set) = upper.strip_prefix("UID FETCH ").or_else(|| upper.strip_prefix("FETCH ")) {
            // Sequence numbers and UIDs are the same here. Who asks by number looks back at what is old, and seen.
            let flags = if upper.starts_with("UID") { "" } else { "\\Seen" };
            let first: u32 = set.split(':').next().unwrap_or_default().parse()?;
            for uid in first.min(self.messages()?)..=self.messages()? {
                let size = HEADERS.len();
                self.say(&format!(
                    "* {uid} FETCH (UID {uid} FLAGS ({flags}) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED)]<0> {{{size}}}\r\n{HEADERS})\r\n"
                ))
                .await?;
            }
        } else if upper == "IDLE" {
            self.idle().await?;
        } else {
            bail!("a watching session is not expected to say {command}");
        }
        self.say(&format!("{tag} OK done\r\n")).await
    }

    async fn idle(&mut self) -> Result<()> {
        let shared = self.shared;
        let _idle = Idle::new(shared);
        self.say("+ idling\r\n").await?;
        let mut inbox = self.inbox.clone().context("not logged in")?;
        loop {
            let mut line = String::new();
            let news = tokio::select! {
                read = self.stream.read_line(&mut line) => {
                    if read? == 0 {
                        bail!("the connection was closed");
                    }
                    None
                }
                changed = inbox.changed() => Some(changed),
            };
            match news {
                Some(changed) => {
                    changed?;
                    let messages = self.messages()?;
                    self.say(&format!("* {messages} EXISTS\r\n")).await?;
                }
                None => return Ok(()),
            }
        }
    }

    /// How many messages there are. What is asked here is no news any more.
    fn messages(&mut self) -> Result<u32> {
        Ok(*self.inbox.as_mut().context("not logged in")?.borrow_and_update())
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }

    async fn say(&mut self, lines: &str) -> Result<()> {
        self.stream.get_mut().write_all(lines.as_bytes()).await?;
        Ok(self.stream.get_mut().flush().await?)
    }
}

/// The number of the account that SASL PLAIN names.
fn account(message: &str) -> Result<usize> {
    let message = String::from_utf8(BASE64_STANDARD.decode(message)?)?;
    let user = message.split('\0').nth(1).context("no user")?;
    Ok(user.trim_start_matches('u').split('@').next().unwrap_or_default().parse()?)
}
