//! From a target to an authenticated session: TCP, TLS, and the [`dialogue`](super::dialogue) driven over them.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Upstreams;
use super::dialogue::{Dialogue, LoggedIn, LoginError, Purpose, Said, Step};
use super::route::Target;
use crate::config::Security;
use crate::parser::reader::{ResponseReader, TooLong};
use crate::secret::{Credentials, Secret};
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
}

impl<'a> Attempt<'a> {
    /// Connects and logs in. Cancelling it closes the connection.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn connect(self, transcript: Option<&mut (dyn Transcript + Send)>) -> Result<Connected, ConnectError> {
        match self.begin(transcript).await? {
            Progress::LoggedIn(connected) => Ok(*connected),
            // The dialogue hands a challenge on only where there is a client.
            Progress::Challenge { .. } => Err(ConnectError::TooMuch),
        }
    }

    /// Connects and logs in, as far as it goes without the client. Cancelling it closes the connection.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn begin(self, transcript: Option<&mut (dyn Transcript + Send)>) -> Result<Progress<'a>, ConnectError> {
        let time = self.upstreams.time;
        within(time, self.connect_unbounded(transcript)).await
    }

    async fn connect_unbounded(
        self,
        transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Progress<'a>, ConnectError> {
        let tcp =
            TcpStream::connect((&*self.target.host, self.target.port)).await.map_err(ConnectError::Unreachable)?;
        stream::prepare(&tcp).map_err(ConnectError::Unreachable)?;
        let stream = match self.target.security {
            Security::Tls => self.handshake(tcp).await?,
            Security::StartTls | Security::Plain => Stream::Plain(tcp),
        };
        Login {
            dialogue: Dialogue::new(self.credentials.clone(), self.target.security, self.purpose),
            attempt: self,
            stream,
            reader: ResponseReader::new(MAX_RESPONSE),
            received: Vec::new(),
            responses: 0,
        }
        .go_on(transcript)
        .await
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<Stream, ConnectError> {
        let name = self.target.server_name().map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
        let connector = TlsConnector::from(self.upstreams.tls.get(&self.target.trust).clone());
        Ok(connector.connect(name, tcp).await.map_err(ConnectError::Tls)?.into())
    }
}

/// How far a login has come.
pub enum Progress<'a> {
    /// All the way.
    LoggedIn(Box<Connected>),
    /// The server has a challenge for the client, in base64.
    Challenge {
        /// The challenge.
        challenge: Vec<u8>,
        /// What takes the client's answer.
        login: Box<Login<'a>>,
    },
}

/// A login under way.
pub struct Login<'a> {
    attempt: Attempt<'a>,
    stream: Stream,
    dialogue: Dialogue,
    reader: ResponseReader,
    received: Vec<u8>,
    /// How many were read.
    responses: usize,
}

impl<'a> Login<'a> {
    /// Goes on with the client's answer to a challenge.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn respond(
        mut self,
        response: &Secret,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Progress<'a>, ConnectError> {
        within(self.attempt.upstreams.time, async move {
            let answer = self.dialogue.client_responds(response);
            self.say(&answer, &mut transcript).await?;
            self.go_on(transcript).await
        })
        .await
    }

    /// Talks until the login is done, or the client has to say something.
    async fn go_on(
        mut self,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Progress<'a>, ConnectError> {
        while self.responses < MAX_RESPONSES {
            self.responses = self.responses.saturating_add(1);
            let response = next_response(&mut self.stream, &mut self.reader, &mut self.received).await?;
            if let Some(transcript) = transcript.as_deref_mut() {
                show_response(transcript, &self.dialogue, &response);
            }
            let mut step = self.dialogue.response(&response)?;
            if let Some(Step::StartTls) = step {
                if !self.received.is_empty() {
                    return Err(ConnectError::Injected);
                }
                let Stream::Plain(tcp) = self.stream else { return Err(ConnectError::Injected) };
                self.stream = self.attempt.handshake(tcp).await?;
                step = Some(self.dialogue.secured());
            }
            match step {
                Some(Step::Send(line)) => self.say(&line, &mut transcript).await?,
                Some(Step::LoggedIn(logged_in)) => {
                    let Self { stream, received: rest, .. } = self;
                    return Ok(Progress::LoggedIn(Box::new(Connected { stream, logged_in, rest })));
                }
                Some(Step::Challenge(challenge)) => {
                    return Ok(Progress::Challenge { challenge, login: Box::new(self) });
                }
                Some(Step::StartTls) | None => {}
            }
        }
        Err(ConnectError::TooMuch)
    }

    async fn say(
        &mut self,
        line: &Said,
        transcript: &mut Option<&mut (dyn Transcript + Send)>,
    ) -> Result<(), ConnectError> {
        if let Some(transcript) = transcript {
            show(*transcript, &line.bytes, line.secret_from);
        }
        self.stream.write_all(&line.bytes).await.map_err(ConnectError::Broken)?;
        self.stream.flush().await.map_err(ConnectError::Broken)
    }
}

async fn within<T>(time: Duration, attempt: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
    match timeout(time, Box::pin(attempt)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut(time)),
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

/// Shows what the server said: of a challenge nothing but that, and nothing in which it repeats a secret.
fn show_response(transcript: &mut dyn Transcript, dialogue: &Dialogue, response: &[u8]) {
    let challenge = response.strip_prefix(b"+").filter(|_| dialogue.is_in_exchange()).map(<[u8]>::trim_ascii);
    let masked = match challenge {
        Some([]) => None,
        Some(challenge) => Some((&b"+ "[..], challenge.len())),
        None => dialogue.repeats_secret(response).then_some((&b""[..], response.len())),
    };
    let Some((plain, masked)) = masked else { return transcript.response(Speaker::Upstream, Mark::Kept, response) };
    let mut piece = |piece| transcript.piece(Speaker::Upstream, Mark::Kept, piece);
    piece(Piece::Text(plain));
    piece(Piece::Masked(masked));
    piece(Piece::Text(b"\r\n"));
}

fn show(transcript: &mut dyn Transcript, bytes: &[u8], secret_from: usize) {
    let text = bytes.trim_ascii_end();
    let (plain, secret) = text.split_at_checked(secret_from).unwrap_or((text, &[]));
    let mut piece = |piece| transcript.piece(Speaker::ToUpstream, Mark::Own, piece);
    piece(Piece::Text(plain));
    piece(Piece::Masked(secret.len()));
    piece(Piece::Text(b"\r\n"));
}
