//! A client connection before the login, and the reasons why it ends there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::client_stream::Conversation;
use super::own_lines::untagged;
use super::own_refusals::OwnRefusal;
use super::preauth::{NotAuthenticated, PreauthEvent};
use super::shared::Proxy;
use crate::admission::Prefix;
use crate::admission::connection_slots::Claim;
use crate::config::Listener;
use crate::tls::stream::receive_some;
use crate::trace::{Mark, Recorder, Speaker, Transcript};
use crate::upstream::id::Introduction;
use crate::upstream::originating::ClientOrigin;

/// Bytes that are read at once before the login: what a client may have in memory then is little.
const READ_BEFORE_LOGIN: usize = 4 * 1024;

/// A connection and what it needs to know.
pub(super) struct IncomingClient {
    pub(super) proxy: Arc<Proxy>,
    pub(super) peer: SocketAddr,
    /// How it came. Boxed: it is of no use after the login.
    pub(super) entrance: Box<Entrance>,
    pub(super) session: u64,
    pub(super) trace: Recorder,
    /// By when the login has to be done.
    pub(super) deadline: Instant,
    /// Who the client says that it is.
    pub(super) introduction: Box<Introduction>,
    /// Which command has begun and not ended, and when it began.
    command: Option<(u32, Instant)>,
}

/// How a client came in.
pub(super) struct Entrance {
    pub(super) listener: Arc<Listener>,
    /// Where it connected.
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
    #[error("the client was a browser and got the public page")]
    Page,
    #[error("the client was a certificate authority and validated the host name")]
    Proof,
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
        Self {
            proxy,
            peer,
            entrance,
            session,
            trace,
            deadline,
            introduction: Box::default(),
            command: None,
        }
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
        loop {
            let mut out = Vec::new();
            let mut input = received.as_slice();
            let shown = self.trace.transcript().map(|transcript| transcript as &mut dyn Transcript);
            let event = machine.take(&mut input, &mut out, shown);
            let used = received.len().saturating_sub(input.len());
            received.drain(..used);
            if received.is_empty() {
                *received = Vec::new();
            }
            client.send(&out).await?;
            if let Some(event) = event {
                return Ok(event);
            }
            let deadline = self.command_deadline(machine.under_way());
            // Asked for first: input that is always there must not put the end off.
            let is_late = Instant::now() >= deadline;
            let read =
                timeout_at(deadline, receive_some(client.stream()?, received, READ_BEFORE_LOGIN))
                    .await;
            match read {
                _ if is_late => return self.refuse_as_late(client).await,
                Ok(Ok(0)) => return Err(NoLogin::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return self.refuse_as_late(client).await,
            }
        }
    }

    /// The command under way has its whole time from now on.
    pub(super) fn command_begins_anew(&mut self) {
        self.command = None;
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

    async fn refuse_as_late(&mut self, client: &mut Conversation) -> Result<PreauthEvent, NoLogin> {
        self.say(client, untagged(&OwnRefusal::TookTooLong.to_string()).as_bytes()).await?;
        Err(NoLogin::TimedOut)
    }

    pub(super) async fn say(
        &mut self,
        client: &mut Conversation,
        lines: &[u8],
    ) -> Result<(), NoLogin> {
        if let Some(transcript) = self.trace.transcript() {
            transcript.lines(Speaker::ToClient, Mark::Own, lines);
        }
        Ok(client.send(lines).await?)
    }
}
