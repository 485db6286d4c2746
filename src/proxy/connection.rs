//! One client connection, from the first byte to the last: handshake, login, relay.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::handle::AccountHandle;
use super::handshake::{self, Accepted};
use super::listener::{Door, Proxy};
use super::preauth::{Event, NotAuthenticated, Protection};
use super::relay::{Beginning, Bounds, End, Relay};
use super::session::{Session, Upstream};
use super::web;
use crate::account::AccountId;
use crate::config::{ListenerTls, Native};
use crate::parser::capability;
use crate::secret::Credentials;
use crate::stream::{Stream, receive};
use crate::trace::{Mark, Printer, Speaker, Transcript};
use crate::upstream::connect::{Attempt, ConnectError, Connected};
use crate::upstream::dialogue::{LoginError, Purpose};
use crate::upstream::refusal::{Refusal, classify, is_about_sessions};
use crate::upstream::route::Target;

/// How long a client may take to accept an answer before its login.
const WRITE_TIME: Duration = Duration::from_secs(20);

/// How long a server may take to count a session as gone that has just been closed.
const GIVING_WAY: Duration = Duration::from_millis(500);

/// A connection and what it needs to know.
pub(super) struct Connection {
    proxy: Arc<Proxy>,
    peer: SocketAddr,
    session: u64,
    transcript: Option<Printer>,
    /// By when the login has to be done.
    deadline: Instant,
}

/// A client that is logged in.
struct Authenticated {
    client: Stream,
    /// What the client sent after its login.
    rest: Vec<u8>,
    tag: Vec<u8>,
    account: AccountId,
    credentials: Arc<Credentials>,
    upstream: Connected,
}

/// Why there was no login.
#[derive(Debug, thiserror::Error)]
enum NoLogin {
    #[error("no TLS with the client: {0}")]
    Handshake(io::Error),
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    #[error("the client did not log in in time")]
    TimedOut,
    #[error("the client was told to go, or went")]
    Closed,
    #[error("it was a browser, and has seen the page")]
    Page,
    #[error("it was a certificate authority, which has seen that the name leads here")]
    Proof,
}

impl Connection {
    pub(super) fn new(proxy: Arc<Proxy>, peer: SocketAddr, session: u64) -> Self {
        let transcript = proxy.trace.clone().map(|sink| Printer::new(format!("#{session}"), sink));
        let now = Instant::now();
        let deadline = now.checked_add(proxy.limits.login_time).unwrap_or(now);
        Self { proxy, peer, session, transcript, deadline }
    }

    /// Serves the client until it is gone.
    pub(super) async fn serve(mut self, tcp: TcpStream, door: Door, stop: &CancellationToken) {
        let (session, peer) = (self.session, self.peer);
        debug!(session, %peer, "client connected");
        // Boxed, so that a session that is only relayed does not carry what its login needed.
        let login = Box::pin(self.log_in(tcp, door));
        let authenticated = match stop.run_until_cancelled(login).await {
            Some(Ok(authenticated)) => authenticated,
            Some(Err(error)) => return debug!(session, %peer, "no login: {error}"),
            None => return debug!(session, %peer, "deltapush shuts down"),
        };
        let account = authenticated.account.clone();
        // In a function's arguments, not in variables: those would stand in the task beside the future they are moved into.
        let end = run(self.relay(authenticated), stop).await;
        debug!(session, %account, "session ended: {end}");
    }

    async fn log_in(&mut self, tcp: TcpStream, door: Door) -> Result<Authenticated, NoLogin> {
        match door.tls {
            ListenerTls::Implicit => {
                let stream = self.handshake(tcp, door.web).await?;
                self.greet(stream, Protection::Tls).await
            }
            ListenerTls::None => self.greet(Stream::Plain(tcp), Protection::None).await,
            ListenerTls::StartTls => self.greet(Stream::Plain(tcp), Protection::StartTls).await,
        }
    }

    /// A stream for IMAP; who came for something else is served and done.
    async fn handshake(&self, tcp: TcpStream, web: bool) -> Result<Stream, NoLogin> {
        let accepted = timeout_at(self.deadline, handshake::accept(&self.proxy.tls, tcp, web)).await;
        match accepted.map_err(|_| NoLogin::TimedOut)?.map_err(NoLogin::Handshake)? {
            Accepted::Imap(stream) => Ok(stream.into()),
            Accepted::Web(stream, http) => {
                web::serve(stream, http, self.proxy.page.clone()).await;
                Err(NoLogin::Page)
            }
            Accepted::Proof => Err(NoLogin::Proof),
        }
    }

    /// Greets and answers until a login succeeds.
    async fn greet(&mut self, mut stream: Stream, protection: Protection) -> Result<Authenticated, NoLogin> {
        let max_command = self.proxy.limits.command.bytes();
        let mut machine = NotAuthenticated::new(protection, max_command);
        self.say(&mut stream, &machine.greeting()).await?;
        let mut received = Vec::new();
        loop {
            match self.next_event(&mut stream, &mut machine, &mut received).await? {
                Event::StartTls => {
                    // Whatever followed in plaintext came from anybody: it is dropped (RFC 9051 section 6.2.1).
                    received = Vec::new();
                    let Stream::Plain(tcp) = stream else { return Err(NoLogin::Closed) };
                    stream = self.handshake(tcp, false).await?;
                    machine = NotAuthenticated::new(Protection::Tls, max_command);
                }
                Event::Login { tag, credentials } => match self.try_login(credentials).await {
                    Ok((account, credentials, upstream)) => {
                        return Ok(Authenticated {
                            client: stream,
                            rest: received,
                            tag,
                            account,
                            credentials,
                            upstream,
                        });
                    }
                    Err(refused) => {
                        let mut answer = [&refused.untagged, &tag, b" ".as_slice(), &refused.answer, b"\r\n"].concat();
                        let is_last = machine.login_refused(&mut answer);
                        self.say(&mut stream, &answer).await?;
                        if is_last {
                            return Err(NoLogin::Closed);
                        }
                    }
                },
                Event::Close => return Err(NoLogin::Closed),
            }
        }
    }

    /// Reads and answers until something has to be done.
    async fn next_event(
        &mut self,
        stream: &mut Stream,
        machine: &mut NotAuthenticated,
        received: &mut Vec<u8>,
    ) -> Result<Event, NoLogin> {
        loop {
            let mut out = Vec::new();
            let mut input = received.as_slice();
            let shown = self.transcript.as_mut().map(|printer| printer as &mut dyn Transcript);
            let event = machine.take(&mut input, &mut out, shown);
            let used = received.len().saturating_sub(input.len());
            received.drain(..used);
            send(stream, &out).await?;
            if let Some(event) = event {
                return Ok(event);
            }
            // Asked for first: input that is always there must not put the end off.
            let is_late = Instant::now() >= self.deadline;
            let read = timeout_at(self.deadline, receive(stream, received)).await;
            match read {
                _ if is_late => return self.too_late(stream).await,
                Ok(Ok(0)) => return Err(NoLogin::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return self.too_late(stream).await,
            }
        }
    }

    async fn too_late(&mut self, stream: &mut Stream) -> Result<Event, NoLogin> {
        self.say(stream, b"* BYE the login took too long\r\n").await?;
        Err(NoLogin::TimedOut)
    }

    async fn say(&mut self, stream: &mut Stream, lines: &[u8]) -> Result<(), NoLogin> {
        if let Some(transcript) = &mut self.transcript {
            transcript.lines(Speaker::ToClient, Mark::Own, lines);
        }
        send(stream, lines).await
    }

    /// Asks the account's own server whether it accepts the credentials.
    async fn try_login(
        &mut self,
        credentials: Credentials,
    ) -> Result<(AccountId, Arc<Credentials>, Connected), Refused> {
        let (session, peer) = (self.session, self.peer);
        let owner = credentials.owner();
        let Some(target) = self.proxy.upstreams.routes.resolve(owner) else {
            debug!(session, %peer, user = %owner.escape_debug(), "refused: no route for this login");
            return Err(Refused::new("NO [AUTHENTICATIONFAILED] no mail server is configured here for this login"));
        };
        let account = AccountId::of(&credentials, &target.name());
        let probed = self.proxy.session.native == Native::Passthrough && !self.proxy.probes.is_known(&target);
        let mut attempt = self.attempt(&target, &credentials, probed).await;
        if attempt.as_ref().is_err_and(is_too_many) && self.proxy.board.give_way(&account) {
            debug!(session, %account, "too many sessions: the watching session gives way to the client");
            sleep(GIVING_WAY).await;
            attempt = self.attempt(&target, &credentials, probed).await;
        }
        let mut upstream = attempt.map_err(|error| {
            if probed && matches!(error, ConnectError::TimedOut(_)) {
                // It may be the question whether it pushes that it does not answer: it is not asked again soon.
                self.proxy.probes.remember(&target, false);
            }
            debug!(session, %peer, %account, upstream = %target, "login failed: {error}");
            Refused::from_error(error)
        })?;
        debug!(session, %peer, %account, upstream = %target, "logged in");
        if probed {
            self.proxy.probes.remember(&target, upstream.logged_in.pushes);
        } else {
            upstream.logged_in.pushes |= self.proxy.probes.pushes(&target);
        }
        if let Err(error) = self.proxy.registry.login_succeeded(&account, &credentials).await {
            debug!(session, %account, "the new password could not be stored for the watching session: {error}");
        }
        Ok((account, Arc::new(credentials), upstream))
    }

    async fn attempt(
        &mut self,
        target: &Target,
        credentials: &Credentials,
        probe: bool,
    ) -> Result<Connected, ConnectError> {
        let upstreams = &self.proxy.upstreams;
        let purpose = Purpose::Client { probe };
        let attempt = Attempt { target, upstreams, credentials: credentials.clone(), purpose };
        attempt.connect(self.transcript.as_mut().map(|printer| printer as &mut (dyn Transcript + Send))).await
    }

    /// From the login on: the client gets the server's answer under its own tag, and everything else as it comes.
    fn relay(mut self, authenticated: Authenticated) -> (Relay<AccountHandle>, Beginning) {
        let Authenticated { client, rest, tag, account, credentials, upstream } = authenticated;
        let Connected { stream, logged_in, rest: upstream_rest } = upstream;
        let mut known = Upstream { metadata: false, pushes: logged_in.pushes };
        known.learn(logged_in.capabilities.iter().map(str::as_bytes));
        let session = Session::new(Arc::clone(&self.proxy.session), known);
        let answer = [&logged_in.untagged, &tag, b" ".as_slice(), &logged_in.answer, b"\r\n"].concat();
        let lines = answer.split_inclusive(|byte| *byte == b'\n');
        let answer: Vec<u8> = lines
            .flat_map(|line| capability::rewrite(line, session.added()).unwrap_or_else(|| line.to_vec()))
            .collect();
        if let Some(transcript) = &mut self.transcript {
            transcript.lines(Speaker::ToClient, Mark::Changed, &answer);
        }
        let beginning = Beginning { client: rest, answer, upstream: upstream_rest };
        let limits = &self.proxy.limits;
        let bounds = Bounds { buffer: limits.buffer.bytes(), idle_time: limits.idle_time };
        let noted_on = self.proxy.has_grace.then(|| self.proxy.board.clone());
        let account = AccountHandle {
            registry: self.proxy.registry.clone(),
            account,
            credentials,
            session: self.session,
            noted_on,
            device: OnceLock::new(),
        };
        (Relay::new(session, (client, stream), account, self.transcript, bounds), beginning)
    }
}

fn run((relay, beginning): (Relay<AccountHandle>, Beginning), stop: &CancellationToken) -> impl Future<Output = End> {
    relay.run(beginning, stop)
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), NoLogin> {
    if bytes.is_empty() {
        return Ok(());
    }
    let written = timeout(WRITE_TIME, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    written.await.map_err(|_| NoLogin::TimedOut)?.map_err(NoLogin::Gone)
}

/// Whether the server has no session left for this account.
fn is_too_many(error: &ConnectError) -> bool {
    match error {
        ConnectError::Login(LoginError::Refused { answer, untagged }) => {
            classify(answer, untagged) == Refusal::TooManySessions
        }
        // Some say it in a BYE.
        ConnectError::Login(LoginError::Bye(words)) => is_about_sessions(words),
        _ => false,
    }
}

/// What the client hears when its login does not succeed: untagged lines, and the tagged answer without its tag.
struct Refused {
    untagged: Vec<u8>,
    answer: Vec<u8>,
}

impl Refused {
    fn new(answer: &str) -> Self {
        Self { untagged: Vec::new(), answer: answer.into() }
    }

    /// A refusal of the server goes on as it is; what went wrong on the way is no wrong password, and must not look like one:
    /// Delta Chat warns its user if it finds the word "authentication".
    fn from_error(error: ConnectError) -> Self {
        match error {
            ConnectError::Login(LoginError::Refused { answer, untagged }) => Self { untagged, answer },
            error => Self::new(&format!("NO [UNAVAILABLE] {}", harmless(&error.to_string()))),
        }
    }
}

/// Words that fit on a line, and in which Delta Chat does not find the one that makes it blame the password.
fn harmless(words: &str) -> String {
    if words.to_lowercase().contains("authentication") {
        return "the mail server cannot log anybody in at the moment".into();
    }
    words.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_never_looks_like_a_wrong_password() {
        let bye = LoginError::Bye("Authentication service is down".into());
        let refused = Refused::from_error(bye.into());
        assert_eq!(refused.answer, b"NO [UNAVAILABLE] the mail server cannot log anybody in at the moment");
        let bye = LoginError::Bye("too many\r\nsessions".into());
        let refused = Refused::from_error(bye.into());
        assert_eq!(refused.answer, b"NO [UNAVAILABLE] the mail server closed the connection: too many  sessions");
        let answer = b"NO [AUTHENTICATIONFAILED] wrong".to_vec();
        let refused = Refused::from_error(LoginError::Refused { answer: answer.clone(), untagged: vec![] }.into());
        assert_eq!(refused.answer, answer);
    }

    fn size_of_future<F>(_: fn(Connection, TcpStream, Door, &'static CancellationToken) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_that_says_nothing_is_small() {
        let sizes = (size_of::<Session>(), size_of::<Relay<AccountHandle>>(), size_of_future(Connection::serve));
        // In bytes: the session's state, that and its streams, and the whole task.
        assert!(sizes.0 <= 448 && sizes.1 <= 1120, "{sizes:?}");
        assert!(sizes.2 <= 2400, "the task is much larger than the relay in it, which may be in it twice: {sizes:?}");
    }
}
