//! One client connection, from the first byte to the last: handshake, login, relay.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::attempt::{Failure, Waiting};
use super::handle::AccountHandle;
use super::listener::Proxy;
use super::preauth::{Event, NotAuthenticated, Protection};
use super::relay::{Beginning, Bounds, End, Relay};
use super::session::{Session, Upstream};
use crate::account::AccountId;
use crate::config::{Listener, ListenerTls, Native};
use crate::parser::response;
use crate::secret::Credentials;
use crate::stream::{Stream, receive};
use crate::trace::{Mark, Printer, Speaker, Transcript};
use crate::upstream::connect::{ConnectError, Connected};
use crate::upstream::dialogue::LoginError;
use crate::upstream::id::Introduction;
use crate::upstream::originating::Origin;
use crate::upstream::refusal;
use crate::upstream::route::{Asked, Target};

/// How long a client may take to accept an answer before its login.
const WRITE_TIME: Duration = Duration::from_secs(20);

/// How long a server may take to count a session as gone that has just been closed.
const GIVING_WAY: Duration = Duration::from_millis(500);

/// A connection and what it needs to know.
pub(super) struct Connection {
    pub(super) proxy: Arc<Proxy>,
    peer: SocketAddr,
    /// How it came. Boxed: it is of no use after the login.
    entrance: Box<Entrance>,
    session: u64,
    pub(super) transcript: Option<Printer>,
    /// By when the login has to be done.
    deadline: Instant,
    /// Who the client says that it is.
    pub(super) introduction: Box<Introduction>,
}

/// How a client came in.
struct Entrance {
    listener: Arc<Listener>,
    /// Where it connected.
    connected: SocketAddr,
    /// The name that it asked for in TLS, in lower case.
    host: Option<String>,
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
pub(super) enum NoLogin {
    #[error("no TLS with the client: {0}")]
    Handshake(io::Error),
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    #[error("the client did not log in in time")]
    TimedOut,
    #[error("the client was told to go, or went")]
    Closed,
}

impl Connection {
    pub(super) fn new(proxy: Arc<Proxy>, listener: Arc<Listener>, peer: SocketAddr, session: u64) -> Self {
        let transcript = proxy.trace.clone().map(|sink| Printer::new(format!("#{session}"), sink));
        let now = Instant::now();
        let deadline = now.checked_add(proxy.limits.login_time).unwrap_or(now);
        let connected = *listener.address;
        let entrance = Box::new(Entrance { listener, connected, host: None });
        Self { proxy, peer, entrance, session, transcript, deadline, introduction: Box::default() }
    }

    /// Serves the client until it is gone.
    pub(super) async fn serve(mut self, tcp: TcpStream, stop: &CancellationToken) {
        let (session, peer) = (self.session, self.peer);
        debug!(session, %peer, "client connected");
        // Boxed, so that a session that is only relayed does not carry what its login needed.
        let login = Box::pin(self.log_in(tcp));
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

    async fn log_in(&mut self, tcp: TcpStream) -> Result<Authenticated, NoLogin> {
        // The address that is listened on may stand for all of this machine's.
        self.entrance.connected = tcp.local_addr()?;
        match self.entrance.listener.tls {
            ListenerTls::Implicit => {
                let stream = self.handshake(tcp).await?;
                self.greet(stream, Protection::Tls).await
            }
            ListenerTls::None => self.greet(Stream::Plain(tcp), Protection::None).await,
            ListenerTls::StartTls => self.greet(Stream::Plain(tcp), Protection::StartTls).await,
        }
    }

    async fn handshake(&mut self, tcp: TcpStream) -> Result<Stream, NoLogin> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.proxy.tls));
        let accepted = timeout_at(self.deadline, acceptor.accept(tcp)).await.map_err(|_| NoLogin::TimedOut)?;
        let stream = accepted.map_err(NoLogin::Handshake)?;
        self.entrance.host = stream.get_ref().1.server_name().map(str::to_ascii_lowercase);
        Ok(stream.into())
    }

    /// Greets and answers until a login succeeds.
    async fn greet(&mut self, mut stream: Stream, protection: Protection) -> Result<Authenticated, NoLogin> {
        let max_command = self.proxy.limits.command.bytes();
        let offers_scram = self.proxy.offers_scram;
        let mut machine = NotAuthenticated::new(protection, max_command).offering_scram(offers_scram);
        self.say(&mut stream, &machine.greeting()).await?;
        let mut received = Vec::new();
        loop {
            match self.next_event(&mut stream, &mut machine, &mut received).await? {
                Event::StartTls => {
                    // Whatever followed in plaintext came from anybody: it is dropped (RFC 9051 section 6.2.1).
                    received = Vec::new();
                    let Stream::Plain(tcp) = stream else { return Err(NoLogin::Closed) };
                    stream = self.handshake(tcp).await?;
                    machine = NotAuthenticated::new(Protection::Tls, max_command).offering_scram(offers_scram);
                }
                Event::Login { tag, credentials } => match self
                    .introduced(&machine)
                    .try_login(
                        credentials,
                        Waiting {
                            stream: &mut stream,
                            machine: &mut machine,
                            received: &mut received,
                            was_asked: false,
                        },
                    )
                    .await?
                {
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
                Event::Close | Event::Response(_) => return Err(NoLogin::Closed),
            }
        }
    }

    /// Reads and answers until something has to be done.
    pub(super) async fn next_event(
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

    /// On whose behalf it talks to the upstream.
    pub(super) fn origin(&self) -> Origin {
        Origin { client: self.peer, connected: self.entrance.connected }
    }

    /// The server of a login that may be used here.
    fn target(&self, login: &str) -> Result<Target, Refused> {
        let (session, peer) = (self.session, self.peer);
        if !self.proxy.allows(&self.entrance.listener, login) {
            debug!(session, %peer, user = %login.escape_debug(), "refused: `allow` does not name this login");
            return Err(Refused::new("NO [AUTHORIZATIONFAILED] this login may not be used here"));
        }
        let asked = Asked { login, listener: Some(&self.entrance.listener), host: self.entrance.host.as_deref() };
        self.proxy.upstreams.routes.find(&asked).ok_or_else(|| {
            debug!(session, %peer, user = %login.escape_debug(), "refused: no route for this login");
            Refused::new("NO [AUTHORIZATIONFAILED] no mail server is configured here for this login")
        })
    }

    /// Asks the account's own server whether it accepts the credentials; the client may have to say more.
    async fn try_login(
        &mut self,
        credentials: Credentials,
        mut client: Waiting<'_>,
    ) -> Result<Result<(AccountId, Arc<Credentials>, Connected), Refused>, NoLogin> {
        let (session, peer) = (self.session, self.peer);
        let target = match self.target(credentials.owner()) {
            Ok(target) => target,
            Err(refused) => return Ok(Err(refused)),
        };
        let credentials = applied(&target, credentials);
        let account = AccountId::of(&credentials, &target.name());
        let probed = self.proxy.session.native == Native::Passthrough && !self.proxy.probes.is_known(&target);
        let mut attempt = self.attempt(&target, &credentials, probed, &mut client).await;
        // What the client has answered to one challenge is no answer to another.
        if !client.was_asked && attempt.as_ref().is_err_and(Failure::is_too_many) && self.proxy.board.give_way(&account)
        {
            debug!(session, %account, "too many sessions: the watching session gives way to the client");
            sleep(GIVING_WAY).await;
            attempt = self.attempt(&target, &credentials, probed, &mut client).await;
        }
        let mut upstream = match attempt {
            Ok(upstream) => upstream,
            Err(Failure::Client(end)) => return Err(end),
            Err(Failure::GaveUp(words)) => return Ok(Err(Refused::new(words))),
            Err(Failure::Upstream(error)) => {
                if probed && matches!(error, ConnectError::TimedOut(_)) {
                    // It may be the question whether it pushes that it does not answer: it is not asked again soon.
                    self.proxy.probes.remember(&target, false);
                }
                debug!(session, %peer, %account, upstream = %target, "login failed: {error}");
                return Ok(Err(Refused::from_error(error)));
            }
        };
        debug!(session, %peer, %account, upstream = %target, "logged in");
        if probed {
            self.proxy.probes.remember(&target, upstream.logged_in.pushes);
        } else {
            upstream.logged_in.pushes |= self.proxy.probes.pushes(&target);
        }
        if let Err(error) = self.proxy.registry.login_succeeded(&account, &credentials).await {
            debug!(session, %account, "the new password could not be stored for the watching session: {error}");
        }
        Ok(Ok((account, Arc::new(credentials.to_keep()), upstream)))
    }

    /// Takes over what the client has said of itself.
    fn introduced(&mut self, machine: &NotAuthenticated) -> &mut Self {
        self.introduction.client = machine.client_id().map(<[_]>::to_vec);
        self
    }

    /// From the login on: the client gets the server's answer under its own tag, and everything else as it comes.
    fn relay(mut self, authenticated: Authenticated) -> (Relay<AccountHandle>, Beginning) {
        let Authenticated { client, rest, tag, account, credentials, upstream } = authenticated;
        let Connected { stream, logged_in, rest: upstream_rest } = upstream;
        let mut known = Upstream { pushes: logged_in.pushes, ..Upstream::default() };
        known.learn(logged_in.capabilities.iter().map(str::as_bytes));
        let session = Session::new(Arc::clone(&self.proxy.session), known);
        let answer = [&logged_in.untagged, &tag, b" ".as_slice(), &logged_in.answer, b"\r\n"].concat();
        let lines = answer.split_inclusive(|byte| *byte == b'\n');
        let answer: Vec<u8> = lines.flat_map(|line| session.rewrite(line).unwrap_or_else(|| line.to_vec())).collect();
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

/// The credentials that the server gets: the route may have another name for the login. From here on that name is the
/// account's, so that a mailbox is one account whichever way its clients come.
fn applied(target: &Target, mut credentials: Credentials) -> Credentials {
    credentials.user = target.login_for(&credentials.user);
    credentials.authorization = credentials.authorization.map(|owner| target.login_for(&owner));
    credentials
}

fn run((relay, beginning): (Relay<AccountHandle>, Beginning), stop: &CancellationToken) -> impl Future<Output = End> {
    relay.run(beginning, stop)
}

pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), NoLogin> {
    if bytes.is_empty() {
        return Ok(());
    }
    let written = timeout(WRITE_TIME, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    written.await.map_err(|_| NoLogin::TimedOut)?.map_err(NoLogin::Gone)
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

    /// A refusal of the server goes on as it is if it is about the password. All else is no wrong password, and must not look
    /// like one: Delta Chat warns its user if it finds the word "authentication".
    fn from_error(error: ConnectError) -> Self {
        match error {
            ConnectError::Login(LoginError::Refused { answer, untagged }) => {
                let (answer, untagged) = refusal::for_client(answer, untagged);
                let (untagged, line) = (stay(&untagged), stay(&[b"* ", answer.as_slice(), b"\r\n"].concat()));
                let answer = line.get(2..).unwrap_or_default().trim_ascii_end().to_vec();
                Self { untagged, answer }
            }
            // The next login would fare no better (RFC 5530 section 3).
            ConnectError::Login(LoginError::NoMechanism(_)) => {
                Self::new(&format!("NO [CANNOT] {}", harmless(&error.to_string())))
            }
            error => Self::new(&format!("NO [UNAVAILABLE] {}", harmless(&error.to_string()))),
        }
    }
}

/// Lines without referrals to servers that the client would reach without deltapush.
fn stay(lines: &[u8]) -> Vec<u8> {
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| response::without_referral(line).unwrap_or_else(|| line.to_vec())).collect()
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
        let answer = b"NO [REFERRAL IMAP://u@two.example/] Try two.example".to_vec();
        let untagged = b"* OK [REFERRAL IMAP://u@two.example/] moved\r\n* NO [ALERT] x\r\n".to_vec();
        let refused = Refused::from_error(LoginError::Refused { answer, untagged }.into());
        assert_eq!(refused.answer, b"NO Try two.example");
        assert_eq!(refused.untagged, b"* OK moved\r\n* NO [ALERT] x\r\n");
    }

    #[test]
    fn no_text_of_deltapush_blames_the_password() {
        let sources = [
            include_str!("attempt.rs"),
            include_str!("connection.rs"),
            include_str!("listener.rs"),
            include_str!("preauth.rs"),
            include_str!("sasl.rs"),
            include_str!("relay.rs"),
            include_str!("session/mod.rs"),
            include_str!("session/from_client.rs"),
            include_str!("session/from_upstream.rs"),
            include_str!("session/intercept.rs"),
            include_str!("../upstream/connect.rs"),
            include_str!("../upstream/dialogue.rs"),
            include_str!("../upstream/login.rs"),
            include_str!("../upstream/mechanism.rs"),
        ];
        let code = sources.iter().flat_map(|source| source.split("#[cfg(test)]").next().unwrap().lines());
        let texts = code.filter(|line| !line.trim_start().starts_with("//"));
        let blaming: Vec<&str> = texts.filter(|line| line.to_lowercase().contains("authentication")).collect();
        // The word that is looked for.
        let allowed = [r#"contains("authentication")"#];
        assert_eq!(blaming.len(), allowed.len(), "{blaming:?}");
        assert!(blaming.iter().zip(allowed).all(|(line, known)| line.contains(known)), "{blaming:?}");
    }

    fn size_of_future<F>(_: fn(Connection, TcpStream, &'static CancellationToken) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_that_says_nothing_is_small() {
        let sizes = (size_of::<Session>(), size_of::<Relay<AccountHandle>>(), size_of_future(Connection::serve));
        // In bytes: the session's state, that and its streams, and the whole task.
        assert!(sizes.0 <= 448 && sizes.1 <= 1136, "{sizes:?}");
        assert!(sizes.2 <= 2400, "the task is much larger than the relay in it, which may be in it twice: {sizes:?}");
    }
}
