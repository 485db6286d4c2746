//! A login in progress: the driver of the [login machine](super::login_machine) over one connection, with pauses where
//! the client has to answer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Upstreams;
use super::connect_error::ConnectError;
use super::login_machine::{LoggedIn, LoginAction, LoginInput, LoginMachine, OutgoingLine};
use super::login_progress::LoginProgress;
use super::permit::Permit;
use super::route::{Endpoint, Target};
use crate::clock::now;
use crate::credentials::CredentialKind;
use crate::machine::Machine;
use crate::parser::reader::ResponseReader;
use crate::secret::Secret;
use crate::tls::stream::{self, Stream, TlsStream};
use crate::trace::{Mark, Piece, Speaker, Transcript};

/// The longest response that a login reads. A capability list has some hundred bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// Responses that a login reads before it gives up.
const MAX_RESPONSES: usize = 200;

/// Time to read the server's last words from a connection that broke.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// An authenticated session.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// The result of the login.
    pub logged_in: LoggedIn,
    /// Bytes received after the login's answer.
    pub rest: Vec<u8>,
}

/// The target of a connection, and the settings of its TLS.
pub(super) struct ConnectionTarget<'a> {
    pub(super) target: &'a Target,
    pub(super) upstreams: &'a Upstreams,
    pub(super) server: Endpoint,
}

impl ConnectionTarget<'_> {
    pub(super) async fn handshake(&self, tcp: TcpStream) -> Result<Stream, ConnectError> {
        let name = self
            .server
            .server_name()
            .map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
        let config = Arc::clone(self.upstreams.tls.get(&self.target.terms.trust));
        Ok(TlsStream::connect(config, name, tcp).await.map_err(ConnectError::Tls)?.into())
    }
}

/// The stage of a login.
pub enum LoginStage<'a> {
    /// All the way.
    LoggedIn(Box<Connected>),
    /// The server has a challenge for the client, in base64.
    Challenge {
        /// The challenge.
        challenge: Vec<u8>,
        /// Takes the client's answer.
        login: Box<UpstreamLogin<'a>>,
    },
}

/// A login under way.
pub struct UpstreamLogin<'a> {
    way: ConnectionTarget<'a>,
    stream: Stream,
    machine: LoginMachine,
    reader: ResponseReader,
    received: Vec<u8>,
    /// The number of responses read.
    responses: usize,
    kind: CredentialKind,
    progress: Arc<LoginProgress>,
}

impl<'a> UpstreamLogin<'a> {
    pub(super) fn new(
        way: ConnectionTarget<'a>,
        stream: Stream,
        machine: LoginMachine,
        kind: CredentialKind,
        progress: Arc<LoginProgress>,
    ) -> Self {
        let reader = ResponseReader::new(MAX_RESPONSE);
        Self { way, stream, machine, reader, received: Vec::new(), responses: 0, kind, progress }
    }

    /// Goes on with the client's answer to a challenge.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn respond(
        mut self,
        response: &Secret,
        transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<LoginStage<'a>, ConnectError> {
        let progress = Arc::clone(&self.progress);
        let ended = within(self.way.upstreams.time, async move {
            let action = self.handle(LoginInput::ClientResponse(response));
            self.go_on(action, transcript, None).await
        });
        ended.await.map_err(|error| error.after(progress.complaint()))
    }

    /// Does what the machine asks for, and gives it what comes, until the login is done or the client has to say something.
    /// Notes when something was said that must not be said to another server as well.
    pub(super) async fn go_on(
        mut self,
        mut action: Option<LoginAction>,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
        permit: Option<&dyn Permit>,
    ) -> Result<LoginStage<'a>, ConnectError> {
        loop {
            action = match action {
                None => {
                    let response = self.next_response(&mut transcript).await?;
                    self.handle(LoginInput::Response(&response))
                }
                Some(LoginAction::Send(line)) => {
                    if let Err(error) = self.send(&line, &mut transcript, permit).await {
                        return Err(Box::pin(self.last_words(error, transcript)).await);
                    }
                    None
                }
                Some(LoginAction::StartTls) => {
                    let Stream::Plain(tcp) = self.stream else {
                        return Err(ConnectError::Injected);
                    };
                    if !self.received.is_empty() {
                        return Err(ConnectError::Injected);
                    }
                    self.stream = self.way.handshake(tcp).await?;
                    self.handle(LoginInput::Secured)
                }
                Some(LoginAction::Challenge(challenge)) => {
                    return Ok(LoginStage::Challenge { challenge, login: Box::new(self) });
                }
                Some(LoginAction::LoggedIn(logged_in)) => return Ok(self.logged_in(logged_in)),
                Some(LoginAction::Failed(error)) => return Err(error.into()),
            };
        }
    }

    fn handle(&mut self, input: LoginInput<'_>) -> Option<LoginAction> {
        let mut next = None;
        let mut take = |action: LoginAction| next = Some(action);
        self.machine.handle(input, now(), &mut take);
        self.progress.record(&self.machine);
        next
    }

    fn logged_in(self, logged_in: LoggedIn) -> LoginStage<'a> {
        if let Some(method) = self.machine.learned() {
            self.way.upstreams.methods.note(&self.way.server, self.kind, method, Instant::now());
        }
        let Self { stream, received: rest, .. } = self;
        LoginStage::LoggedIn(Box::new(Connected { stream, logged_in, rest }))
    }

    /// The connection broke while something was sent: the server may have said why before.
    async fn last_words(
        mut self,
        broken: ConnectError,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> ConnectError {
        loop {
            let response = self.next_response(&mut transcript);
            let Ok(Ok(response)) = timeout(LAST_WORDS_TIME, response).await else { return broken };
            if let Some(LoginAction::Failed(error)) = self.handle(LoginInput::Response(&response)) {
                return error.into();
            }
        }
    }

    /// Reads on until a response is complete; what follows it stays in `received`.
    async fn next_response(
        &mut self,
        transcript: &mut Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Vec<u8>, ConnectError> {
        if self.responses >= MAX_RESPONSES {
            return Err(ConnectError::TooMuch);
        }
        self.responses += 1;
        let Self { stream, reader, received, .. } = self;
        let response = loop {
            let mut input = received.as_slice();
            let response = reader.next(&mut input)?;
            let used = received.len() - input.len();
            received.drain(..used);
            if let Some(response) = response {
                break response;
            }
            if stream::receive(stream, received).await.map_err(ConnectError::Broken)? == 0 {
                return Err(ConnectError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        if let Some(transcript) = transcript {
            show_response(*transcript, &self.machine, &response);
        }
        Ok(response)
    }

    async fn send(
        &mut self,
        line: &OutgoingLine,
        transcript: &mut Option<&mut (dyn Transcript + Send)>,
        permit: Option<&dyn Permit>,
    ) -> Result<(), ConnectError> {
        if let Some(transcript) = transcript {
            show(*transcript, &line.bytes, line.secret_from);
        }
        if line.secret_from < line.bytes.trim_ascii_end().len() {
            self.progress.commit();
            if let Some(permit) = permit {
                permit.credentials_sent();
            }
        }
        self.stream.write_all(&line.bytes).await.map_err(ConnectError::Broken)?;
        self.stream.flush().await.map_err(ConnectError::Broken)
    }
}

pub(super) async fn within<T>(
    time: Duration,
    attempt: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    match timeout(time, Box::pin(attempt)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut(time)),
    }
}

/// Shows what the server said: of a challenge nothing but that, and nothing in which it repeats a secret.
fn show_response(transcript: &mut dyn Transcript, machine: &LoginMachine, response: &[u8]) {
    let challenge =
        response.strip_prefix(b"+").filter(|_| machine.is_in_exchange()).map(<[u8]>::trim_ascii);
    let masked = match challenge {
        Some([]) => None,
        Some(challenge) => Some((&b"+ "[..], challenge.len())),
        None => machine.repeats_secret(response).then_some((&b""[..], response.len())),
    };
    let Some((plain, masked)) = masked else {
        return transcript.response(Speaker::Upstream, Mark::Kept, response);
    };
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
