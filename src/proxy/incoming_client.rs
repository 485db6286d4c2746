//! A client connection before the login, and the reasons why it ends there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::time::{Instant, timeout_at};

use super::client_stream::Conversation;
use super::preauth::{NotAuthenticated, PreauthEvent, PreauthInput, PreauthTurn};
use super::shared::Proxy;
use crate::admission::Prefix;
use crate::admission::connection_slots::Claim;
use crate::clock::now;
use crate::config::Listener;
use crate::http::HttpVersion;
use crate::machine::Machine;
use crate::tls::stream::{TlsStream, receive_some};
use crate::trace::{Recorder, Transcript};
use crate::upstream::id::Introduction;
use crate::upstream::originating::ClientOrigin;

/// Bytes that are read at once before the login: what a client may have in memory then is little.
const READ_BEFORE_LOGIN: usize = 4 * 1024;

/// A connection and what it needs to know.
pub(super) struct IncomingClient {
    pub(super) proxy: Arc<Proxy>,
    pub(super) peer: SocketAddr,
    /// The client's way in. Boxed: it is of no use after the login.
    pub(super) entrance: Box<Entrance>,
    pub(super) session: u64,
    pub(super) trace: Recorder,
    /// By when the login has to be done.
    pub(super) deadline: Instant,
    /// The client's identification.
    pub(super) introduction: Box<Introduction>,
}

/// The way by which a client came.
pub(super) struct Entrance {
    pub(super) listener: Arc<Listener>,
    /// The address to which it connected.
    pub(super) connected: SocketAddr,
    /// The name that it asked for in TLS, in lower case.
    pub(super) host: Option<String>,
    /// To its place, while its login is tried.
    pub(super) claim: Option<Arc<Claim>>,
}

/// Why there was no login.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLogin {
    #[error("the TLS handshake with the client failed: {0}")]
    Handshake(io::Error),
    #[error("the connection to the client broke: {0}")]
    Gone(#[from] io::Error),
    #[error("the client did not log in in time")]
    TimedOut,
    #[error("the client or deltapush closed the connection")]
    Closed,
    #[error("a newer connection took its connection slot")]
    Evicted,
    #[error("deltapush shuts down")]
    Shutdown,
    #[error("the client was a browser and gets the public page")]
    Page(Box<Browser>),
    #[error("the client was a certificate authority and validated the host name")]
    Proof,
}

/// A client that came for the public page.
pub(super) struct Browser {
    pub(super) stream: TlsStream,
    pub(super) http: HttpVersion,
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("http", &self.http).finish_non_exhaustive()
    }
}

impl From<Browser> for NoLogin {
    fn from(browser: Browser) -> Self {
        Self::Page(Box::new(browser))
    }
}

impl IncomingClient {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        listener: Arc<Listener>,
        peer: SocketAddr,
        session: u64,
    ) -> Self {
        let mut trace = proxy.tracer.client(session);
        trace.note(|| format!("a client connects from {peer} to {}", listener.address));
        let now = Instant::now();
        let deadline = now.checked_add(proxy.limits.login_time).unwrap_or(now);
        let connected = *listener.address;
        let entrance = Box::new(Entrance { listener, connected, host: None, claim: None });
        Self { proxy, peer, entrance, session, trace, deadline, introduction: Box::default() }
    }

    /// The end of `time` from `start` on, or the end of the time for the login.
    pub(super) fn within(&self, time: Duration, start: Instant) -> Instant {
        start.checked_add(time).map_or(self.deadline, |end| end.min(self.deadline))
    }

    /// On whose behalf it talks to the upstream.
    pub(super) fn origin(&self) -> ClientOrigin {
        ClientOrigin { client: self.peer, connected: self.entrance.connected }
    }

    pub(super) fn prefix(&self) -> IpAddr {
        Prefix::of(self.peer.ip()).address()
    }

    /// Takes over what the client has said of itself.
    pub(super) fn introduced(&mut self, machine: &NotAuthenticated) -> &mut Self {
        self.introduction.client = machine.client_id().map(<[_]>::to_vec);
        self
    }

    /// Reads and answers until something has to be done.
    pub(super) async fn next_event(
        &mut self,
        client: &mut Conversation,
        machine: &mut NotAuthenticated,
        received: &mut Vec<u8>,
    ) -> Result<PreauthEvent, NoLogin> {
        let mut is_due = false;
        loop {
            let input = if is_due { PreauthInput::Tick } else { PreauthInput::Received(received) };
            let PreauthTurn { used, event, .. } = self.handle(client, machine, input).await?;
            received.drain(..used);
            if received.is_empty() {
                *received = Vec::new();
            }
            if let Some(event) = event {
                return Ok(event);
            }
            is_due = !self.receive(client, machine.deadline(), received).await?;
        }
    }

    /// Waits for more of the client's; false if the machine's deadline came first.
    async fn receive(
        &mut self,
        client: &mut Conversation,
        deadline: Option<std::time::Instant>,
        received: &mut Vec<u8>,
    ) -> Result<bool, NoLogin> {
        let deadline = deadline.map_or(self.deadline, Instant::from_std);
        // Asked for first: input that is always there must not put the end off.
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let read = receive_some(client.stream()?, received, READ_BEFORE_LOGIN);
        match timeout_at(deadline, read).await {
            Ok(Ok(0)) => Err(NoLogin::Closed),
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    /// Gives the machine an input, and sends what it answers.
    pub(super) async fn handle(
        &mut self,
        client: &mut Conversation,
        machine: &mut NotAuthenticated,
        input: PreauthInput<'_>,
    ) -> Result<PreauthTurn, NoLogin> {
        let transcript =
            self.trace.transcript().map(|transcript| transcript as &mut dyn Transcript);
        let turn = PreauthTurn::of(machine, input, now(), transcript);
        client.send(&turn.answer).await?;
        Ok(turn)
    }
}
