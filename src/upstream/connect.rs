//! From a target to an authenticated session: TCP, TLS, and the [`dialogue`](super::dialogue) driven over them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Upstreams;
use super::dialogue::{Dialogue, LoggedIn, LoginError, Purpose, Step};
use super::discovery::DiscoveryError;
use super::originating::Origin;
use super::route::{Endpoint, Target};
use super::{dial, proxy_header};
use crate::config::Security;
use crate::parser::reader::{ResponseReader, TooLong};
use crate::secret::Credentials;
use crate::stream::{self, Stream};
use crate::trace::{Mark, Piece, Speaker, Transcript};

/// The longest response that a login reads. A capability list has some hundred bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// Servers of one domain that are tried.
const MAX_SERVERS: usize = 4;

/// How long an address has for TLS and the greeting, up to the login, if there are others to try.
const ATTEMPT: Duration = Duration::from_secs(6);

/// Responses that a login reads before it gives up.
const MAX_RESPONSES: usize = 200;

/// Why there is no session with an upstream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("cannot reach the mail server: {0}")]
    Unreachable(#[source] io::Error),
    /// The TLS handshake failed, perhaps because of the certificate.
    #[error("no TLS with the mail server: {}", in_words(.0))]
    Tls(#[source] io::Error),
    /// The connection broke.
    #[error("the connection to the mail server broke: {}", in_words(.0))]
    Broken(#[source] io::Error),
    /// It took too long.
    #[error("the mail server did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// A response was too long, or there were too many.
    #[error("the mail server says too much before the login is done")]
    TooMuch,
    /// Plaintext came after the answer to STARTTLS: somebody may have put it there.
    #[error(
        "the mail server sent plaintext after its answer to STARTTLS, which an attacker on the way could have added"
    )]
    Injected,
    /// The server refused.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Where the server is, is not known.
    #[error(transparent)]
    NotFound(#[from] DiscoveryError),
}

impl ConnectError {
    /// Whether another address may lead to where this one did not.
    fn is_about_the_way(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Tls(_) | Self::Broken(_) | Self::TimedOut(_))
    }
}

/// What an I/O error means to a person: rustls explains a connection that just ends at length.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it hung up".into(),
        _ => error.to_string(),
    }
}

impl From<TooLong> for ConnectError {
    fn from(_: TooLong) -> Self {
        Self::TooMuch
    }
}

/// An authenticated session.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// What the login brought.
    pub logged_in: LoggedIn,
    /// What was received after the login's answer.
    pub rest: Vec<u8>,
}

/// How to log in.
pub struct Attempt<'a> {
    /// Where.
    pub target: &'a Target,
    /// What is needed to get there.
    pub upstreams: &'a Upstreams,
    /// As whom.
    pub credentials: Credentials,
    /// What for.
    pub purpose: Purpose,
    /// On whose behalf; `None` for a session of deltapush's own.
    pub origin: Option<Origin>,
}

/// Why one server could not be logged in to.
struct Failed {
    error: ConnectError,
    /// Others are not to be tried.
    is_final: bool,
}

impl Failed {
    /// Before anything was said that must not be said twice.
    fn before(error: ConnectError) -> Self {
        Self { error, is_final: false }
    }
}

impl Attempt<'_> {
    /// Connects and logs in. Cancelling it closes the connection.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn connect(self, transcript: Option<&mut (dyn Transcript + Send)>) -> Result<Connected, ConnectError> {
        let time = self.upstreams.time;
        match timeout(time, Box::pin(self.connect_unbounded(transcript))).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut(time)),
        }
    }

    /// One server after the other, one address after the other, until one can be talked to. Once the credentials were sent, its
    /// word counts.
    async fn connect_unbounded(
        self,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Connected, ConnectError> {
        let servers = self.upstreams.servers(self.target).await?;
        let mut failure = None;
        let count = servers.len().min(MAX_SERVERS);
        for (number, server) in servers.iter().take(MAX_SERVERS).enumerate() {
            let is_last = number.saturating_add(1) == count;
            match self.connect_to(server, is_last, &mut transcript).await {
                Ok(connected) => return Ok(connected),
                Err(Failed { error, is_final: true }) => return Err(error),
                Err(Failed { error, is_final: false }) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::Unreachable(io::ErrorKind::AddrNotAvailable.into())))
    }

    async fn connect_to(
        &self,
        server: &Endpoint,
        is_last: bool,
        transcript: &mut Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Connected, Failed> {
        let found = self.upstreams.dns.addresses(&server.host, self.target.reach).await;
        let addresses = found.map_err(|error| Failed::before(ConnectError::Unreachable(error.into())))?;
        let mut candidates = dial::interleaved(&addresses, server.port);
        loop {
            let tcp =
                dial::race(&mut candidates).await.map_err(|error| Failed::before(ConnectError::Unreachable(error)))?;
            let has_committed = AtomicBool::new(false);
            let shown = transcript.as_mut().map(|transcript| &mut **transcript as &mut (dyn Transcript + Send));
            let mut session = Box::pin(self.session(tcp, server, shown, &has_committed));
            let patience = if candidates.is_empty() && is_last { None } else { Some(self.upstreams.time.min(ATTEMPT)) };
            let in_time = match patience {
                None => None,
                Some(patience) => timeout(patience, &mut session).await.ok(),
            };
            let ended = match in_time {
                Some(ended) => ended,
                // The time for an attempt is over; not for a login that was begun.
                None if patience.is_some() && !has_committed.load(Ordering::Relaxed) => {
                    Err(ConnectError::TimedOut(patience.unwrap_or_default()))
                }
                None => session.await,
            };
            match ended {
                Ok(connected) => return Ok(connected),
                Err(error) if has_committed.load(Ordering::Relaxed) || !error.is_about_the_way() => {
                    return Err(Failed { error, is_final: true });
                }
                Err(error) if candidates.is_empty() => return Err(Failed::before(error)),
                Err(_) => {}
            }
        }
    }

    async fn session(
        &self,
        mut tcp: TcpStream,
        server: &Endpoint,
        transcript: Option<&mut (dyn Transcript + Send)>,
        has_committed: &AtomicBool,
    ) -> Result<Connected, ConnectError> {
        stream::prepare(&tcp).map_err(ConnectError::Unreachable)?;
        if let Some(version) = self.target.terms.proxy_protocol {
            let header = proxy_header::header(version, self.origin.as_ref());
            tcp.write_all(&header).await.map_err(ConnectError::Broken)?;
        }
        let stream = match server.security {
            Security::Tls => self.handshake(tcp, server).await?,
            Security::StartTls | Security::Plain => Stream::Plain(tcp),
        };
        self.log_in(stream, server, transcript, has_committed).await
    }

    async fn handshake(&self, tcp: TcpStream, server: &Endpoint) -> Result<Stream, ConnectError> {
        let name = server.server_name().map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
        let connector = TlsConnector::from(self.upstreams.tls.get(&self.target.terms.trust).clone());
        Ok(connector.connect(name, tcp).await.map_err(ConnectError::Tls)?.into())
    }

    async fn log_in(
        &self,
        mut stream: Stream,
        server: &Endpoint,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
        has_committed: &AtomicBool,
    ) -> Result<Connected, ConnectError> {
        let origin = self.origin.filter(|_| self.target.terms.originating_ip);
        let mut dialogue =
            Dialogue::new(self.credentials.clone(), server.security, self.purpose).on_behalf_of(origin.as_ref());
        let mut reader = ResponseReader::new(MAX_RESPONSE);
        let mut received = Vec::new();
        for _ in 0..MAX_RESPONSES {
            let response = next_response(&mut stream, &mut reader, &mut received).await?;
            if let Some(transcript) = transcript.as_deref_mut() {
                if dialogue.repeats_secret(&response) {
                    transcript.piece(Speaker::Upstream, Mark::Kept, Piece::Masked(response.len()));
                    transcript.piece(Speaker::Upstream, Mark::Kept, Piece::Text(b"\r\n"));
                } else {
                    transcript.response(Speaker::Upstream, Mark::Kept, &response);
                }
            }
            let mut step = dialogue.response(&response)?;
            if let Some(Step::StartTls) = step {
                if !received.is_empty() {
                    return Err(ConnectError::Injected);
                }
                let Stream::Plain(tcp) = stream else { return Err(ConnectError::Injected) };
                stream = self.handshake(tcp, server).await?;
                step = Some(dialogue.secured());
            }
            match step {
                Some(Step::Send { bytes, secret_from }) => {
                    if let Some(transcript) = transcript.as_deref_mut() {
                        show(transcript, &bytes, secret_from);
                    }
                    if secret_from < bytes.len() && bytes.get(secret_from..) != Some(b"\r\n") {
                        has_committed.store(true, Ordering::Relaxed);
                    }
                    stream.write_all(&bytes).await.map_err(ConnectError::Broken)?;
                    stream.flush().await.map_err(ConnectError::Broken)?;
                }
                Some(Step::LoggedIn(logged_in)) => return Ok(Connected { stream, logged_in, rest: received }),
                Some(Step::StartTls) | None => {}
            }
        }
        Err(ConnectError::TooMuch)
    }
}

/// Reads on until a response is complete; what follows it stays in `received`.
async fn next_response(
    stream: &mut Stream,
    reader: &mut ResponseReader,
    received: &mut Vec<u8>,
) -> Result<Vec<u8>, ConnectError> {
    loop {
        let mut input = received.as_slice();
        let response = reader.next(&mut input)?;
        let used = received.len().saturating_sub(input.len());
        received.drain(..used);
        if let Some(response) = response {
            return Ok(response);
        }
        if stream::receive(stream, received).await.map_err(ConnectError::Broken)? == 0 {
            return Err(ConnectError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

fn show(transcript: &mut dyn Transcript, bytes: &[u8], secret_from: usize) {
    let text = bytes.trim_ascii_end();
    let (plain, secret) = text.split_at_checked(secret_from).unwrap_or((text, &[]));
    let mut piece = |piece| transcript.piece(Speaker::ToUpstream, Mark::Own, piece);
    piece(Piece::Text(plain));
    piece(Piece::Masked(secret.len()));
    piece(Piece::Text(b"\r\n"));
}
