//! One client connection, from the first byte to the last: handshake, login, relay.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::conversation::Conversation;
use super::guard::Prefix;
use super::guard::door::Place;
use super::guard::gate::{Pass, Refusal as TooMany};
use super::guard::logins::Outcome;
use super::guard::report;
use super::handle::AccountHandle;
use super::listener::Proxy;
use super::preauth::{Allowance, Event, NotAuthenticated, Protection};
use super::relay::{Beginning, Bounds, End, Relay};
use super::session::{Session, Upstream};
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
    /// Which command has begun and not ended, and when it began.
    command: Option<(u32, Instant)>,
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
    #[error("others needed its place more")]
    Evicted,
    #[error("deltapush shuts down")]
    Shutdown,
}

impl Connection {
    pub(super) fn new(proxy: Arc<Proxy>, peer: SocketAddr, session: u64) -> Self {
        let transcript = proxy.trace.clone().map(|sink| Printer::new(format!("#{session}"), sink));
        let now = Instant::now();
        let deadline = now.checked_add(proxy.limits.login_time).unwrap_or(now);
        Self { proxy, peer, session, transcript, deadline, command: None }
    }

    /// Serves the client until it is gone.
    pub(super) async fn serve(mut self, tcp: TcpStream, tls: ListenerTls, mut place: Place, stop: &CancellationToken) {
        let (session, peer) = (self.session, self.peer);
        debug!(session, %peer, "client connected");
        // Boxed, so that a session that is only relayed does not carry what its login needed.
        let authenticated = match Box::pin(self.log_in(tcp, tls, &place, stop)).await {
            Ok(authenticated) => authenticated,
            Err(error) => return debug!(session, %peer, "no login: {error}"),
        };
        place.logged_in();
        let account = authenticated.account.clone();
        // In a function's arguments, not in variables: those would stand in the task beside the future they are moved into.
        let end = run(self.relay(authenticated), stop).await;
        debug!(session, %account, "session ended: {end}");
    }

    /// Until a login succeeds, or others come first.
    async fn log_in(
        &mut self,
        tcp: TcpStream,
        tls: ListenerTls,
        place: &Place,
        stop: &CancellationToken,
    ) -> Result<Authenticated, NoLogin> {
        let mut client = Conversation::default();
        let (error, words) = tokio::select! {
            result = self.converse(tcp, tls, &mut client) => return result,
            () = stop.cancelled() => (NoLogin::Shutdown, "deltapush shuts down, try again in a moment"),
            () = place.evicted() => (NoLogin::Evicted, "[UNAVAILABLE] too many connections, try again later"),
        };
        client.end(format!("* BYE {words}\r\n").as_bytes()).await;
        Err(error)
    }

    async fn converse(
        &mut self,
        tcp: TcpStream,
        tls: ListenerTls,
        client: &mut Conversation,
    ) -> Result<Authenticated, NoLogin> {
        let (stream, protection) = match tls {
            ListenerTls::Implicit => (self.handshake(tcp).await?, Protection::Tls),
            ListenerTls::None => (Stream::Plain(tcp), Protection::None),
            ListenerTls::StartTls => (Stream::Plain(tcp), Protection::StartTls),
        };
        client.resume(stream);
        self.greet(client, protection).await
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<Stream, NoLogin> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.proxy.tls));
        let deadline = self.within(self.proxy.limits.handshake_time, Instant::now());
        let accepted = timeout_at(deadline, acceptor.accept(tcp)).await.map_err(|_| NoLogin::TimedOut)?;
        Ok(accepted.map_err(NoLogin::Handshake)?.into())
    }

    /// The end of `time` from `start` on, or the end of the time for the login.
    fn within(&self, time: Duration, start: Instant) -> Instant {
        start.checked_add(time).map_or(self.deadline, |end| end.min(self.deadline))
    }

    /// Greets and answers until a login succeeds.
    async fn greet(&mut self, client: &mut Conversation, protection: Protection) -> Result<Authenticated, NoLogin> {
        let allowance = Allowance::from(&self.proxy.limits);
        let mut machine = NotAuthenticated::new(protection, allowance);
        self.say(client, &machine.greeting()).await?;
        let mut received = Vec::new();
        loop {
            match self.next_event(client, &mut machine, &mut received).await? {
                Event::StartTls => {
                    // Whatever followed in plaintext came from anybody: it is dropped (RFC 9051 section 6.2.1).
                    received = Vec::new();
                    let Stream::Plain(tcp) = client.take()? else { return Err(NoLogin::Closed) };
                    client.resume(self.handshake(tcp).await?);
                    machine = NotAuthenticated::new(Protection::Tls, allowance);
                }
                Event::Login { tag, credentials } => match self.try_login(credentials).await {
                    Ok((account, credentials, upstream)) => {
                        let client = client.take()?;
                        return Ok(Authenticated { client, rest: received, tag, account, credentials, upstream });
                    }
                    Err(refused) => {
                        // Nothing is held meanwhile but the client's own place.
                        tokio::time::sleep_until(self.within(refused.delay, Instant::now())).await;
                        let mut answer = [&refused.untagged, &tag, b" ".as_slice(), &refused.answer, b"\r\n"].concat();
                        let is_last = machine.login_refused(&mut answer);
                        self.say(client, &answer).await?;
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
        client: &mut Conversation,
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
            client.send(&out).await?;
            if let Some(event) = event {
                return Ok(event);
            }
            let deadline = self.command_deadline(machine.under_way());
            // Asked for first: input that is always there must not put the end off.
            let is_late = Instant::now() >= deadline;
            let read = timeout_at(deadline, receive(client.stream()?, received)).await;
            match read {
                _ if is_late => return self.too_late(client).await,
                Ok(Ok(0)) => return Err(NoLogin::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return self.too_late(client).await,
            }
        }
    }

    /// By when the next bytes have to come: a command that has begun has a time of its own.
    fn command_deadline(&mut self, under_way: Option<u32>) -> Instant {
        let Some(number) = under_way else {
            self.command = None;
            return self.deadline;
        };
        let (_, began) = match self.command {
            Some(known) if known.0 == number => known,
            _ => *self.command.insert((number, Instant::now())),
        };
        self.within(self.proxy.limits.command_time, began)
    }

    async fn too_late(&mut self, client: &mut Conversation) -> Result<Event, NoLogin> {
        self.say(client, b"* BYE the login took too long\r\n").await?;
        Err(NoLogin::TimedOut)
    }

    async fn say(&mut self, client: &mut Conversation, lines: &[u8]) -> Result<(), NoLogin> {
        if let Some(transcript) = &mut self.transcript {
            transcript.lines(Speaker::ToClient, Mark::Own, lines);
        }
        Ok(client.send(lines).await?)
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
            return Err(self.without_route(&credentials));
        };
        let account = AccountId::of(&credentials, &target.name());
        let pass = self.pass(&account, &credentials).await?;
        let probed = self.proxy.session.native == Native::Passthrough && !self.proxy.probes.is_known(&target);
        let mut attempt = self.attempt(&target, &credentials, probed).await;
        if attempt.as_ref().is_err_and(is_too_many) && self.proxy.board.give_way(&account) {
            debug!(session, %account, "too many sessions: the watching session gives way to the client");
            sleep(GIVING_WAY).await;
            attempt = self.attempt(&target, &credentials, probed).await;
        }
        let mut upstream = match attempt {
            Ok(upstream) => upstream,
            Err(error) => {
                if probed && matches!(error, ConnectError::TimedOut(_)) {
                    // It may be the question whether it pushes that it does not answer: it is not asked again soon.
                    self.proxy.probes.remember(&target, false);
                }
                debug!(session, %peer, %account, upstream = %target, "login failed: {error}");
                let failed = pass.done(outcome(&error));
                if failed.is_some() {
                    report::failed_login(peer.ip(), &credentials.user, &account.upstream, true);
                }
                return Err(Refused::from_error(error).after(failed.unwrap_or_default()));
            }
        };
        pass.done(Outcome::Accepted);
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

    /// Waits until the upstream may be asked.
    async fn pass(&self, account: &AccountId, credentials: &Credentials) -> Result<Pass, Refused> {
        let Self { proxy, session, peer, .. } = self;
        let stored = proxy.registry.credentials(account);
        let login = proxy.gate.login(Prefix::of(peer.ip()), account, credentials, stored.as_deref());
        let refusal = match timeout_at(self.deadline, proxy.gate.enter(login)).await {
            Ok(Ok(pass)) => return Ok(pass),
            Ok(Err(refusal)) => refusal,
            Err(_) => TooMany { delay: Duration::ZERO, repeated: false, counted: false },
        };
        debug!(session, %peer, %account, repeated = refusal.repeated, "refused without asking the mail server");
        if refusal.counted {
            report::failed_login(peer.ip(), &credentials.user, &account.upstream, false);
        }
        let within = humantime::format_duration(proxy.limits.failed_logins.within);
        let answer = if refusal.repeated {
            format!("NO [AUTHENTICATIONFAILED] the mail server has refused this password within the last {within}")
        } else {
            format!("NO [UNAVAILABLE] too many failed logins, try again in {within}")
        };
        Err(Refused::new(&answer).after(refusal.delay))
    }

    fn without_route(&self, credentials: &Credentials) -> Refused {
        let (delay, told) = self.proxy.gate.lost(Prefix::of(self.peer.ip()));
        if told {
            report::failed_login(self.peer.ip(), &credentials.user, "none", false);
        }
        Refused::new("NO [AUTHENTICATIONFAILED] no mail server is configured here for this login").after(delay)
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
        let bounds =
            Bounds { buffer: limits.buffer.bytes(), idle_time: limits.idle_time, command_time: limits.command_time };
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

/// What a login that did not succeed says of its credentials.
fn outcome(error: &ConnectError) -> Outcome {
    let ConnectError::Login(LoginError::Refused { answer, untagged }) = error else { return Outcome::Nothing };
    match classify(answer, untagged) {
        Refusal::Credentials => Outcome::Refused,
        Refusal::Unclear => Outcome::Unclear,
        Refusal::TooManySessions | Refusal::Temporary | Refusal::Throttled => Outcome::Nothing,
    }
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
    /// How long to wait before it is said.
    delay: Duration,
}

impl Refused {
    fn new(answer: &str) -> Self {
        Self { untagged: Vec::new(), answer: answer.into(), delay: Duration::ZERO }
    }

    fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// A refusal of the server goes on as it is; what went wrong on the way is no wrong password, and must not look like one:
    /// Delta Chat warns its user if it finds the word "authentication".
    fn from_error(error: ConnectError) -> Self {
        match error {
            ConnectError::Login(LoginError::Refused { answer, untagged }) => {
                Self { untagged, answer, delay: Duration::ZERO }
            }
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

    fn size_of_future<F>(_: fn(Connection, TcpStream, ListenerTls, Place, &'static CancellationToken) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_that_says_nothing_is_small() {
        let sizes = (size_of::<Session>(), size_of::<Relay<AccountHandle>>(), size_of_future(Connection::serve));
        // In bytes: the session's state, that and its streams, and the whole task.
        assert!(sizes.0 <= 448 && sizes.1 <= 1160, "{sizes:?}");
        assert!(sizes.2 <= 2500, "the task is much larger than the relay in it, which may be in it twice: {sizes:?}");
    }
}
