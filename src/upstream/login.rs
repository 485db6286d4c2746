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
use super::login_machine::{Dialogue, DialogueStep, LoggedIn, OutgoingLine};
use super::login_progress::LoginProgress;
use super::permit::Permit;
use super::route::{Endpoint, Target};
use crate::credentials::CredentialKind;
use crate::parser::reader::ResponseReader;
use crate::secret::Secret;
use crate::tls::stream::{self, Stream, TlsStream};
use crate::trace::{Mark, Piece, Speaker, Transcript};

/// The longest response that a login reads. A capability list has some hundred bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// Responses that a login reads before it gives up.
const MAX_RESPONSES: usize = 200;

/// How long the rest of what the server had said is read from a connection that broke.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

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

/// Where a connection leads, and what is needed for its TLS.
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

/// How far a login has come.
pub enum LoginStage<'a> {
    /// All the way.
    LoggedIn(Box<Connected>),
    /// The server has a challenge for the client, in base64.
    Challenge {
        /// The challenge.
        challenge: Vec<u8>,
        /// What takes the client's answer.
        login: Box<UpstreamLogin<'a>>,
    },
}

/// A login under way.
pub struct UpstreamLogin<'a> {
    way: ConnectionTarget<'a>,
    stream: Stream,
    dialogue: Dialogue,
    reader: ResponseReader,
    received: Vec<u8>,
    /// How many were read.
    responses: usize,
    kind: CredentialKind,
    progress: Arc<LoginProgress>,
}

impl<'a> UpstreamLogin<'a> {
    pub(super) fn new(
        way: ConnectionTarget<'a>,
        stream: Stream,
        dialogue: Dialogue,
        kind: CredentialKind,
        progress: Arc<LoginProgress>,
    ) -> Self {
        let reader = ResponseReader::new(MAX_RESPONSE);
        Self { way, stream, dialogue, reader, received: Vec::new(), responses: 0, kind, progress }
    }

    /// Goes on with the client's answer to a challenge.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn respond(
        mut self,
        response: &Secret,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<LoginStage<'a>, ConnectError> {
        let progress = Arc::clone(&self.progress);
        let ended = within(self.way.upstreams.time, async move {
            let answer = self.dialogue.client_responds(response);
            self.say(&answer, &mut transcript, None).await?;
            self.go_on(transcript, None).await
        });
        ended.await.map_err(|error| error.after(progress.complaint()))
    }

    /// Talks until the login is done, or the client has to say something. Notes when something was said that must not be said
    /// to another server as well.
    pub(super) async fn go_on(
        mut self,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
        permit: Option<&dyn Permit>,
    ) -> Result<LoginStage<'a>, ConnectError> {
        while self.responses < MAX_RESPONSES {
            self.responses = self.responses.saturating_add(1);
            let response =
                next_response(&mut self.stream, &mut self.reader, &mut self.received).await?;
            if let Some(transcript) = transcript.as_deref_mut() {
                show_response(transcript, &self.dialogue, &response);
            }
            let step = self.dialogue.response(&response);
            self.progress.record(&self.dialogue);
            let mut step = step?;
            if let Some(DialogueStep::StartTls) = step {
                if !self.received.is_empty() {
                    return Err(ConnectError::Injected);
                }
                let Stream::Plain(tcp) = self.stream else { return Err(ConnectError::Injected) };
                self.stream = self.way.handshake(tcp).await?;
                step = Some(self.dialogue.secured());
            }
            match step {
                Some(DialogueStep::Send(line)) => {
                    if let Err(error) = self.say(&line, &mut transcript, permit).await {
                        return Err(Box::pin(self.last_words(error, transcript)).await);
                    }
                }
                Some(DialogueStep::LoggedIn(logged_in)) => {
                    if let Some(method) = self.dialogue.learned() {
                        self.way.upstreams.methods.note(
                            &self.way.server,
                            self.kind,
                            method,
                            Instant::now(),
                        );
                    }
                    let Self { stream, received: rest, .. } = self;
                    return Ok(LoginStage::LoggedIn(Box::new(Connected {
                        stream,
                        logged_in,
                        rest,
                    })));
                }
                Some(DialogueStep::Challenge(challenge)) => {
                    return Ok(LoginStage::Challenge { challenge, login: Box::new(self) });
                }
                Some(DialogueStep::StartTls) | None => {}
            }
        }
        Err(ConnectError::TooMuch)
    }

    /// The connection broke while something was sent: the server may have said why before.
    async fn last_words(
        mut self,
        broken: ConnectError,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> ConnectError {
        while self.responses < MAX_RESPONSES {
            self.responses = self.responses.saturating_add(1);
            let response = next_response(&mut self.stream, &mut self.reader, &mut self.received);
            let Ok(Ok(response)) = timeout(LAST_WORDS_TIME, response).await else { return broken };
            if let Some(transcript) = transcript.as_deref_mut() {
                show_response(transcript, &self.dialogue, &response);
            }
            let step = self.dialogue.response(&response);
            self.progress.record(&self.dialogue);
            if let Err(error) = step {
                return error.into();
            }
        }
        broken
    }

    async fn say(
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
    let challenge =
        response.strip_prefix(b"+").filter(|_| dialogue.is_in_exchange()).map(<[u8]>::trim_ascii);
    let masked = match challenge {
        Some([]) => None,
        Some(challenge) => Some((&b"+ "[..], challenge.len())),
        None => dialogue.repeats_secret(response).then_some((&b""[..], response.len())),
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
