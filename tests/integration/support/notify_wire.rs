//! A notification server that speaks HTTP/1.1 and HTTP/2 byte by byte, over TLS, so that it can break off anywhere.
//!
//! Of HTTP/2 it knows as much as one client needs that makes small requests: frames (RFC 9113 section 4.1) without padding, and
//! header blocks whose content it does not read.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// The version of HTTP that the server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

/// The server's reaction to a request that it has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Answers with this status.
    Status(u16),
    /// Answers 429 with `Retry-After` in seconds.
    RetryAfter(u64),
    /// Answers 200 after this time; meanwhile it answers PING.
    Late(Duration),
    /// Answers 200 with a body that comes byte by byte and does not end.
    TrickledBody,
    /// Closes the connection in order.
    Close,
    /// Resets the TCP connection.
    TcpReset,
    /// Reads and says nothing more on this connection, and keeps it open.
    Silence,
    /// HTTP/2: GOAWAY that names this request as not processed (`true`) or as processed, then closes the connection.
    GoAway { refused: bool },
    /// HTTP/2: RST_STREAM with this error code.
    StreamReset(u32),
}

/// RST_STREAM's error codes (RFC 9113 section 7).
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;

/// One request, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) token: String,
    /// The number of the connection, counted from 0.
    pub(crate) connection: usize,
}

/// The running server. It ends with the test's runtime.
pub(crate) struct NotifyWire {
    /// URL for the configuration.
    pub(crate) url: String,
    shared: Arc<Shared>,
    arrived: watch::Receiver<usize>,
}

struct Shared {
    requests: Mutex<Vec<Request>>,
    /// One for each request to come; 200 when there is none left.
    deeds: Mutex<VecDeque<Deed>>,
    connections: AtomicUsize,
    arrived: watch::Sender<usize>,
}

impl Shared {
    fn take(&self, token: &[u8], connection: usize) -> Deed {
        let token = String::from_utf8_lossy(token).into_owned();
        self.requests.lock().unwrap().push(Request { at: Instant::now(), token, connection });
        let deed = self.deeds.lock().unwrap().pop_front().unwrap_or(Deed::Status(200));
        self.arrived.send_modify(|count| *count += 1);
        deed
    }
}

impl NotifyWire {
    /// Starts a server that speaks one version and answers 200.
    pub(crate) async fn start(http: Http, config: &ServerConfig) -> Self {
        let mut config = config.clone();
        config.alpn_protocols =
            vec![if http == Http::Two { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("https://127.0.0.1:{}/notify", listener.local_addr().unwrap().port());
        let (sender, arrived) = watch::channel(0);
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            deeds: Mutex::default(),
            connections: AtomicUsize::new(0),
            arrived: sender,
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&accepting));
                // The deed or the client decides how a connection ends.
                tokio::spawn(async move { drop(connection(http, tcp, acceptor, &shared).await) });
            }
        });
        Self { url, shared, arrived }
    }

    /// Sets the next requests' deeds, in order. After them it is 200 again.
    pub(crate) fn next(&self, deeds: impl IntoIterator<Item = Deed>) {
        self.shared.deeds.lock().unwrap().extend(deeds);
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until `n` requests have arrived since the start.
    pub(crate) async fn wait_for(&mut self, n: usize, patience: Duration) -> Vec<Request> {
        let arrived = timeout(patience, self.arrived.wait_for(|count| *count >= n)).await.is_ok();
        let requests = self.requests();
        assert!(arrived, "{} of {n} requests within {patience:?}: {requests:?}", requests.len());
        requests
    }
}

/// State of a connection after a deed.
enum Next {
    GoOn,
    End,
}

async fn connection(
    http: Http,
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    shared: &Shared,
) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = tcp.as_fd().try_clone_to_owned()?;
    let stream = acceptor.accept(tcp).await?;
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    match http {
        Http::One => http1(stream, &socket, number, shared).await,
        Http::Two => Http2::new(stream, socket, number).serve(shared).await,
    }
}

/// Ends the TCP connection by a reset as soon as all that holds it is dropped.
fn reset(socket: &OwnedFd) -> std::io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

async fn http1(
    mut stream: TlsStream<TcpStream>,
    socket: &OwnedFd,
    number: usize,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(body) = http1_request(&mut stream, &mut received).await? else { return Ok(()) };
        let answer = |status: u16, more: &str| {
            format!("HTTP/1.1 {status} said\r\n{more}content-length: 2\r\n\r\nok")
        };
        let answer = match shared.take(&body, number) {
            Deed::Status(status) => answer(status, ""),
            Deed::RetryAfter(seconds) => answer(429, &format!("retry-after: {seconds}\r\n")),
            Deed::Late(time) => {
                tokio::time::sleep(time).await;
                answer(200, "")
            }
            Deed::TrickledBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
                loop {
                    stream.write_all(b".").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Deed::Close => return stream.shutdown().await,
            Deed::TcpReset => return reset(socket),
            Deed::Silence => std::future::pending().await,
            deed @ (Deed::GoAway { .. } | Deed::StreamReset(_)) => {
                panic!("{deed:?} is not HTTP/1.1")
            }
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

/// The body of the next request; none at the end of the connection.
async fn http1_request(
    stream: &mut TlsStream<TcpStream>,
    received: &mut Vec<u8>,
) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            assert!(head.starts_with("post /notify http/1.1"), "{head}");
            let size = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let (start, size) = (end + 4, size.unwrap_or(0_usize));
            if received.len() >= start + size {
                let request: Vec<u8> = received.drain(..start + size).collect();
                return Ok(Some(request[start..].to_vec()));
            }
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
const FIRST_FLAG: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: usize = 24;

type Writer = Arc<AsyncMutex<WriteHalf<TlsStream<TcpStream>>>>;

struct Http2 {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: Writer,
    socket: OwnedFd,
    number: usize,
    bodies: HashMap<u32, Vec<u8>>,
    /// Answers that take time. They end with the connection.
    slow: JoinSet<std::io::Result<()>>,
}

impl Http2 {
    fn new(stream: TlsStream<TcpStream>, socket: OwnedFd, number: usize) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let writer = Arc::new(AsyncMutex::new(writer));
        Self { reader, writer, socket, number, bodies: HashMap::new(), slow: JoinSet::new() }
    }

    async fn serve(mut self, shared: &Shared) -> std::io::Result<()> {
        self.reader.read_exact(&mut [0; PREFACE]).await?;
        write(&self.writer, SETTINGS, 0, 0, b"").await?;
        loop {
            let mut head = [0; 9];
            self.reader.read_exact(&mut head).await?;
            let [high, middle, low, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.reader.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes(stream);
            match kind {
                SETTINGS if flags & FIRST_FLAG == 0 => {
                    write(&self.writer, SETTINGS, FIRST_FLAG, 0, b"").await?
                }
                PING if flags & FIRST_FLAG == 0 => {
                    write(&self.writer, PING, FIRST_FLAG, 0, &payload).await?
                }
                DATA => {
                    self.bodies.entry(stream).or_default().extend_from_slice(&payload);
                    if !payload.is_empty() {
                        let more = u32::try_from(payload.len()).unwrap().to_be_bytes();
                        write(&self.writer, WINDOW_UPDATE, 0, 0, &more).await?;
                    }
                }
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & FIRST_FLAG != 0 {
                let body = self.bodies.remove(&stream).unwrap_or_default();
                let deed = shared.take(&body, self.number);
                if let Next::End = self.respond(stream, deed).await? {
                    return Ok(());
                }
            }
        }
    }

    async fn respond(&mut self, stream: u32, deed: Deed) -> std::io::Result<Next> {
        match deed {
            Deed::Status(status) => answer(&self.writer, stream, status, &[]).await?,
            Deed::RetryAfter(seconds) => {
                answer(&self.writer, stream, 429, &field("retry-after", &seconds.to_string()))
                    .await?;
            }
            Deed::Late(time) => {
                let writer = Arc::clone(&self.writer);
                self.slow.spawn(async move {
                    tokio::time::sleep(time).await;
                    answer(&writer, stream, 200, &[]).await
                });
            }
            Deed::TrickledBody => {
                let writer = Arc::clone(&self.writer);
                self.slow.spawn(async move {
                    write(&writer, HEADERS, END_HEADERS, stream, &status_field(200)).await?;
                    loop {
                        write(&writer, DATA, 0, stream, b".").await?;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                });
            }
            Deed::Close => {
                self.writer.lock().await.shutdown().await?;
                return Ok(Next::End);
            }
            Deed::TcpReset => {
                reset(&self.socket)?;
                return Ok(Next::End);
            }
            Deed::Silence => std::future::pending().await,
            Deed::GoAway { refused } => {
                let last = if refused { stream.saturating_sub(2) } else { stream };
                let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
                write(&self.writer, GOAWAY, 0, 0, &payload).await?;
                self.writer.lock().await.shutdown().await?;
                return Ok(Next::End);
            }
            Deed::StreamReset(code) => {
                write(&self.writer, RST_STREAM, 0, stream, &code.to_be_bytes()).await?
            }
        }
        Ok(Next::GoOn)
    }
}

async fn answer(writer: &Writer, stream: u32, status: u16, more: &[u8]) -> std::io::Result<()> {
    let fields = [status_field(status), more.to_vec()].concat();
    write(writer, HEADERS, END_HEADERS, stream, &fields).await?;
    write(writer, DATA, FIRST_FLAG, stream, b"ok").await
}

/// `:status` by its index in the static table, with a literal value (RFC 7541 section 6.2.2 and appendix A).
fn status_field(status: u16) -> Vec<u8> {
    [&[0x08, 3], status.to_string().as_bytes()].concat()
}

/// A literal field with a new name (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

async fn write(
    writer: &Writer,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let frame = [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
    let mut writer = writer.lock().await;
    writer.write_all(&frame).await?;
    writer.flush().await
}
