//! One client connection, from the first byte to the last: handshake, login, relay.

use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::client_stream::Conversation;
use super::handshake::{self, Accepted, Guests};
use super::incoming_client::{Browser, IncomingClient, NoLogin};
use super::login::{LoginEnd, LoginSuccess};
use super::login_answer;
use super::login_attempt::WaitingClient;
use super::own_lines::{self, untagged};
use super::own_refusals::OwnRefusal;
use super::preauth::{Allowance, NotAuthenticated, PreauthEvent, PreauthInput, Protection};
use super::relay::{Bounds, Preread, Relay};
use super::session::{Session, UpstreamTraits};
use super::session_services::AccountHandle;
use super::tokenless_client;
use crate::accept::canonical;
use crate::account::AccountId;
use crate::admission::connection_slots::ConnectionSlot;
use crate::config::{ListenerTls, SessionLimits};
use crate::credentials::Credentials;
use crate::http::{HttpVersion, public, server};
use crate::push::kept::{KeptClient, KeptLogin};
use crate::push::registry::{AccountOrigin, Registry, Visit};
use crate::telemetry::{LoginResult, TelemetryEvent};
use crate::tls::stream::Stream;
use crate::trace::{Mark, Speaker};
use crate::upstream::connect::Connected;

/// A client that is logged in.
struct Authenticated {
    client: Stream,
    /// The client's bytes after its login.
    rest: Vec<u8>,
    tag: Vec<u8>,
    account: AccountId,
    /// None where sessions are kept: no copy of them is left.
    credentials: Option<Arc<Credentials>>,
    upstream: Connected,
    kept: Box<KeptLogin>,
    origin: AccountOrigin,
    /// The account's route lets deltapush watch for new mail.
    has_watch: bool,
    visit: Visit,
}

/// A session that is relayed from here on.
struct Begun {
    /// Boxed: a future is as large as the largest of its states, and has to be moved to where it runs.
    relay: Box<Relay<AccountHandle>>,
    beginning: Preread,
    account: AccountId,
    session: u64,
    /// Given up with the session.
    _place: ConnectionSlot,
    counted: CountedConnection,
}

impl IncomingClient {
    /// Serves the client until it is gone.
    // Not an async fn: its task would hold what it is given for as long as the session lasts, and the needs of the login on
    // top of those of the relay. All that is boxed and given back after the login; what is left is small.
    pub(super) fn serve(
        self,
        tcp: TcpStream,
        place: ConnectionSlot,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        let beginning = Box::pin(self.begin(tcp, place, stop.clone()));
        async move {
            let Some(begun) = beginning.await else { return };
            let Begun { relay, beginning, account, session, _place, counted } = begun;
            let end = relay.run(beginning, &stop).await;
            counted.logged_out(session, &account);
            debug!(session, %account, "session ended: {end}");
        }
    }

    /// From the handshake to the login, if there is one.
    async fn begin(
        mut self,
        tcp: TcpStream,
        mut place: ConnectionSlot,
        stop: CancellationToken,
    ) -> Option<Begun> {
        let (session, peer) = (self.session, self.peer);
        debug!(session, %peer, "client connected");
        let counted = CountedConnection::new(&self.proxy.registry);
        self.entrance.claim = Some(Arc::new(place.claim()));
        let authenticated = match self.log_in(tcp, &place, &stop).await {
            Ok(authenticated) => authenticated,
            Err(error) => {
                self.trace.note(|| format!("the connection ends without a login: {error}"));
                debug!(session, %peer, "connection ended without a login: {error}");
                if let NoLogin::Page(browser) = error {
                    let (site, address) = (Arc::clone(&self.proxy.site), peer.ip());
                    let Browser { stream, http } = *browser;
                    server::serve(stream, http, address, &mut place, site, &stop).await;
                }
                return None;
            }
        };
        place.logged_in();
        let account = authenticated.account.clone();
        let (relay, beginning) = self.relay(authenticated);
        Some(Begun { relay, beginning, account, session, _place: place, counted })
    }

    /// Until a login succeeds, or others come first.
    async fn log_in(
        &mut self,
        tcp: TcpStream,
        place: &ConnectionSlot,
        stop: &CancellationToken,
    ) -> Result<Authenticated, NoLogin> {
        let mut client = Conversation::default();
        let (error, words) = tokio::select! {
            result = self.converse(tcp, &mut client) => return result,
            () = stop.cancelled() => (NoLogin::Shutdown, own_lines::RESTART.to_owned()),
            () = place.evicted() => (NoLogin::Evicted, OwnRefusal::TooManyConnections.to_string()),
        };
        client.end(untagged(&words).as_bytes()).await;
        Err(error)
    }

    async fn converse(
        &mut self,
        tcp: TcpStream,
        client: &mut Conversation,
    ) -> Result<Authenticated, NoLogin> {
        // The address that is listened on may stand for all of this machine's.
        self.entrance.connected = canonical(tcp.local_addr()?);
        let (stream, protection) = match self.entrance.listener.tls {
            ListenerTls::Implicit => (self.handshake(tcp, self.guests()).await?, Protection::Tls),
            ListenerTls::None => (Stream::Plain(tcp), Protection::None),
            ListenerTls::StartTls => (Stream::Plain(tcp), Protection::StartTls),
        };
        client.resume(stream);
        self.greet(client, protection).await
    }

    fn guests(&self) -> Guests {
        let listener = &self.entrance.listener;
        match self.proxy.admits(listener, self.peer.ip()) {
            // It was let in as far as here because it may be an authority.
            false => Guests::None,
            true if listener.web => Guests::Web,
            true => Guests::Imap,
        }
    }

    /// A stream for IMAP; [`NoLogin`] for clients that came for something else.
    async fn handshake(&mut self, tcp: TcpStream, guests: Guests) -> Result<Stream, NoLogin> {
        let deadline = self.within(self.proxy.limits.handshake_time, Instant::now());
        let local = self.entrance.connected.ip();
        let accepting = handshake::accept(&self.proxy.tls, tcp, local, guests);
        let accepted = timeout_at(deadline, accepting).await;
        match accepted.map_err(|_| NoLogin::TimedOut)?.map_err(NoLogin::Handshake)? {
            Accepted::Imap(mut stream, host) => {
                if guests == Guests::Web
                    && public::wants_http(&mut stream, host.as_deref(), &self.proxy.site).await
                {
                    return Err(Browser { stream, http: HttpVersion::One }.into());
                }
                self.entrance.host = host;
                Ok(stream.into())
            }
            Accepted::Web(stream, http) => Err(Browser { stream, http }.into()),
            Accepted::Proof => Err(NoLogin::Proof),
        }
    }

    /// Greets and answers until a login succeeds.
    async fn greet(
        &mut self,
        client: &mut Conversation,
        protection: Protection,
    ) -> Result<Authenticated, NoLogin> {
        let allowance = Allowance::from(&self.proxy.limits);
        let offers_scram = self.proxy.offers_scram;
        let deadline = self.deadline.into_std();
        let new = |protection| {
            NotAuthenticated::new(protection, allowance, deadline).offering_scram(offers_scram)
        };
        let mut machine = new(protection);
        self.handle(client, &mut machine, PreauthInput::Start).await?;
        let mut received = Vec::new();
        loop {
            match self.next_event(client, &mut machine, &mut received).await? {
                PreauthEvent::StartTls => {
                    // Bytes that followed in plaintext came from anybody: they are dropped (RFC 9051 section 6.2.1).
                    received = Vec::new();
                    let Stream::Plain(tcp) = client.take()? else { return Err(NoLogin::Closed) };
                    client.resume(self.handshake(tcp, Guests::Imap).await?);
                    self.trace.note(|| "TLS begins".to_owned());
                    machine = new(Protection::Tls);
                }
                PreauthEvent::Login { tag, credentials } => match self
                    .introduced(&machine)
                    .try_login(
                        credentials,
                        WaitingClient {
                            client,
                            machine: &mut machine,
                            received: &mut received,
                            was_asked: false,
                        },
                    )
                    .await
                {
                    Ok(LoginSuccess {
                        account,
                        credentials,
                        upstream,
                        kept,
                        is_open,
                        has_watch,
                        visit,
                    }) => {
                        self.record_login(Some(&account), LoginResult::Accepted);
                        self.trace.logged_in(&account);
                        let mut client = client.take()?;
                        client.forget_what_was_read();
                        // A vector of its own: the other one has had the password in it.
                        let rest = received.as_slice().to_vec();
                        let origin = AccountOrigin { prefix: self.prefix(), is_open };
                        let authenticated = Authenticated {
                            client,
                            rest,
                            tag,
                            account,
                            credentials,
                            upstream,
                            kept,
                            origin,
                            has_watch,
                            visit,
                        };
                        return Ok(authenticated);
                    }
                    Err(LoginEnd::Connection(end)) => return Err(end),
                    Err(LoginEnd::Refused(refused)) => {
                        self.record_login(None, refused.result);
                        // Nothing is held meanwhile but the client's own place.
                        tokio::time::sleep_until(self.within(refused.delay, Instant::now())).await;
                        let answer =
                            [&refused.untagged, &tag, b" ".as_slice(), &refused.answer, b"\r\n"]
                                .concat();
                        let input = PreauthInput::Refused(&answer);
                        if self.handle(client, &mut machine, input).await?.event.is_some() {
                            return Err(NoLogin::Closed);
                        }
                    }
                },
                PreauthEvent::TimedOut => return Err(NoLogin::TimedOut),
                PreauthEvent::Close | PreauthEvent::Response(_) => return Err(NoLogin::Closed),
            }
        }
    }

    fn record_login(&self, account: Option<&AccountId>, result: LoginResult) {
        let known = account.and_then(|account| self.proxy.registry.get(account));
        let account = known.as_ref().map(|known| &known.telemetry);
        let event = TelemetryEvent::Login { session: self.session, account, result };
        self.proxy.registry.telemetry().record(&event);
    }

    /// From the login on: the client gets the server's answer under its own tag, and everything else as it comes.
    fn relay(mut self, authenticated: Authenticated) -> (Box<Relay<AccountHandle>>, Preread) {
        let Authenticated {
            client,
            rest,
            tag,
            account,
            credentials,
            upstream,
            kept,
            origin,
            has_watch,
            visit,
        } = authenticated;
        let Connected { stream, logged_in, rest: upstream_rest } = upstream;
        let mut known = UpstreamTraits { pushes: logged_in.pushes, ..UpstreamTraits::default() };
        known.learn(logged_in.capabilities.iter().map(str::as_bytes));
        let session = Session::new(Arc::clone(&self.proxy.session), known);
        let (kept, news) = if has_watch {
            (self.proxy.kept.client(&account, &logged_in.capabilities, *kept), None)
        } else {
            (KeptClient::default(), self.proxy.news.clone())
        };
        let session = if kept.may_be_kept() { session.kept() } else { session };
        let session = if news.is_some() { session.reading_positions() } else { session };
        if session.has_tokens() {
            tokenless_client::note(&self.proxy.registry, &account, self.session);
        }
        let answer = login_answer::lines(&tag, &logged_in, |line| session.rewrite(line));
        if let Some(transcript) = self.trace.transcript() {
            transcript.lines(Speaker::ToClient, Mark::Changed, &answer);
        }
        let beginning = Preread { client: rest, answer, upstream: upstream_rest };
        let limits = &self.proxy.limits;
        let bounds = Bounds { buffer: limits.buffer.bytes(), idle_time: limits.idle_time };
        let account = AccountHandle {
            registry: self.proxy.registry.clone(),
            account,
            credentials,
            session: self.session,
            origin,
            grace: self.proxy.grace,
            device: OnceLock::new(),
            kept,
            news,
            _visit: visit,
        };
        (Box::new(Relay::new(session, (client, stream), account, self.trace, bounds)), beginning)
    }
}

/// A connection that is counted, until it is dropped.
struct CountedConnection(Registry);

impl CountedConnection {
    fn new(registry: &Registry) -> Self {
        registry.telemetry().record(&TelemetryEvent::Connected);
        Self(registry.clone())
    }

    fn logged_out(&self, session: u64, account: &AccountId) {
        self.0.client_gone(account, session);
        let known = self.0.get(account);
        let account = known.as_ref().map(|known| &known.telemetry);
        self.0.telemetry().record(&TelemetryEvent::LoggedOut { session, account });
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.telemetry().record(&TelemetryEvent::Disconnected);
    }
}

impl From<&SessionLimits> for Allowance {
    fn from(limits: &SessionLimits) -> Self {
        Self {
            command: limits.command.bytes(),
            commands: limits.commands_before_login,
            wrong: limits.wrong_commands,
            logins: limits.logins,
            login_name: limits.login_name.bytes(),
            command_time: limits.command_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F>(
        _: fn(IncomingClient, TcpStream, ConnectionSlot, CancellationToken) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn session_that_says_nothing_is_small() {
        let sizes = (
            size_of::<Session>(),
            size_of::<Relay<AccountHandle>>(),
            size_of_future(IncomingClient::serve),
        );
        // In bytes: the session's state; that and what is known of its streams; the task, which has that in a box. A quarter
        // above what rustc 1.95 makes of them: layouts are the compiler's.
        assert!(sizes.0 <= 600 && sizes.1 <= 1440 && sizes.2 <= 640, "{sizes:?}");
    }
}
