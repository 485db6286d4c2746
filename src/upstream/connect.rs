//! From a target to an authenticated session: TCP, TLS, and the [`dialogue`](super::dialogue) driven over them.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Upstreams;
use super::dialogue::{Dialogue, LoggedIn, LoginError, Purpose, Step};
use super::id::Introduction;
use super::route::Target;
use crate::config::Security;
use crate::parser::reader::{ResponseReader, TooLong};
use crate::secret::Credentials;
use crate::stream::{self, Stream};
use crate::trace::{Mark, Piece, Speaker, Transcript};

/// The longest response that a login reads. A capability list has some hundred bytes.
const MAX_RESPONSE: usize = 64 * 1024;

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
    /// Who asks.
    pub introduction: Introduction,
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

    async fn connect_unbounded(
        self,
        transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Connected, ConnectError> {
        let tcp =
            TcpStream::connect((&*self.target.host, self.target.port)).await.map_err(ConnectError::Unreachable)?;
        stream::prepare(&tcp).map_err(ConnectError::Unreachable)?;
        let stream = match self.target.security {
            Security::Tls => self.handshake(tcp).await?,
            Security::StartTls | Security::Plain => Stream::Plain(tcp),
        };
        self.log_in(stream, transcript).await
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<Stream, ConnectError> {
        let name = self.target.server_name().map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
        let connector = TlsConnector::from(self.upstreams.tls.get(&self.target.trust).clone());
        Ok(connector.connect(name, tcp).await.map_err(ConnectError::Tls)?.into())
    }

    async fn log_in(
        self,
        mut stream: Stream,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Connected, ConnectError> {
        let mut dialogue = Dialogue::new(self.credentials.clone(), self.target.security, self.purpose)
            .introducing(self.introduction.clone());
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
                stream = self.handshake(tcp).await?;
                step = Some(dialogue.secured());
            }
            match step {
                Some(Step::Send { bytes, secret_from }) => {
                    if let Some(transcript) = transcript.as_deref_mut() {
                        show(transcript, &bytes, secret_from);
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
