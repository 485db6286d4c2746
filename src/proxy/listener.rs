//! Accepting clients, within the limits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::Connection;
use super::guard::door::Door;
use super::guard::gate::LoginGate;
use super::probes::Probes;
use super::session;
use crate::config::{Allow, Config, Limits, Listener, ListenerTls};
use crate::push::board::Board;
use crate::push::registry::Registry;
use crate::stream;
use crate::trace::Sink;
use crate::upstream::Upstreams;

/// How long to wait when no connection can be accepted, for example because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What all connections have in common.
pub struct Proxy {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) registry: Registry,
    pub(super) board: Board,
    pub(super) session: Arc<session::Settings>,
    /// SCRAM is among what is offered before the login.
    pub(super) offers_scram: bool,
    /// Pushes wait for other devices.
    pub(super) has_grace: bool,
    pub(super) limits: Limits,
    /// Who may connect and log in, wherever it is.
    pub(super) allow: Allow,
    pub(super) trace: Option<Sink>,
    pub(super) probes: Probes,
    pub(super) gate: Arc<LoginGate>,
    door: Arc<Door>,
    next_session: AtomicU64,
}

impl Proxy {
    /// A proxy as `config` wants it.
    #[must_use]
    pub fn new(
        config: &Config,
        tls: Arc<ServerConfig>,
        upstreams: Arc<Upstreams>,
        registry: Registry,
        board: Board,
        gate: Arc<LoginGate>,
        trace: Option<Sink>,
    ) -> Self {
        Self {
            tls,
            upstreams,
            registry,
            board,
            session: Arc::new(session_settings(config)),
            offers_scram: config.login.scram,
            has_grace: !config.push.grace.is_zero(),
            limits: config.limits.clone(),
            allow: config.allow.clone(),
            trace,
            probes: Probes::default(),
            gate,
            door: Arc::new(Door::default()),
            next_session: AtomicU64::new(1),
        }
    }
}

impl Proxy {
    /// Whether a client with this address may connect at all. Its real address, where a PROXY header has told it.
    pub(super) fn admits(&self, listener: &Listener, address: IpAddr) -> bool {
        self.allow.admits(address) && listener.allow.admits(address)
    }

    /// Whether this login may be used, whatever the routes say.
    pub(super) fn allows(&self, listener: &Listener, login: &str) -> bool {
        self.allow.allows(login) && listener.allow.allows(login)
    }
}

/// What a client gets to know as the number of recipients that a message may have: Delta Chat's own default, so that the
/// answer changes nothing but its opinion on push (chatmail/core).
const MAX_RECIPIENTS: (&str, &str) = ("/shared/vendor/deltachat/maxsmtprecipients", "50");

fn session_settings(config: &Config) -> session::Settings {
    let mut entries: Vec<(String, String)> =
        config.metadata.iter().map(|(entry, value)| (entry.to_owned(), value.expose().to_owned())).collect();
    if !entries.iter().any(|(entry, _)| entry.eq_ignore_ascii_case(MAX_RECIPIENTS.0)) {
        entries.push((MAX_RECIPIENTS.0.into(), MAX_RECIPIENTS.1.into()));
    }
    session::Settings {
        entries,
        native: config.push.native,
        keepalive: config.relay.keepalive,
        jmapaccess: config.relay.jmapaccess,
        max_command: config.limits.command.bytes(),
        max_response: config.limits.response.bytes(),
    }
}

/// Accepts clients on `socket` until `stop` is cancelled. Each connection is a task of `tasks`.
pub async fn serve(
    proxy: Arc<Proxy>,
    socket: TcpListener,
    listener: Arc<Listener>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut was_failing = false;
    while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
        match accepted {
            Ok((tcp, peer)) => {
                was_failing = false;
                admit(&proxy, tcp, peer, &listener, &tasks, &stop);
            }
            Err(error) => {
                // Said once: peers can cause it again and again.
                if !std::mem::replace(&mut was_failing, true) {
                    warn!("cannot accept a connection: {error}");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(
    proxy: &Arc<Proxy>,
    tcp: TcpStream,
    peer: SocketAddr,
    listener: &Arc<Listener>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    if !proxy.admits(listener, peer.ip()) {
        return debug!(%peer, "turned away: `allow` names no network that it is in");
    }
    let session = proxy.next_session.fetch_add(1, Ordering::Relaxed);
    let place = match proxy.door.enter(session, peer.ip(), &(&proxy.limits).into()) {
        Ok(place) => place,
        Err(full) => {
            debug!(%peer, "turned away: {full}");
            return refuse(&tcp, listener.tls);
        }
    };
    if let Err(error) = stream::prepare(&tcp) {
        return debug!(%peer, "connection lost at once: {error}");
    }
    let connection = Connection::new(Arc::clone(proxy), Arc::clone(listener), peer, session);
    let stop = stop.clone();
    tasks.spawn(async move { connection.serve(tcp, place, &stop).await });
}

/// Says why, where that costs nothing: a TLS handshake is what an overload must be spared.
fn refuse(tcp: &TcpStream, tls: ListenerTls) {
    if tls != ListenerTls::Implicit {
        // A new socket's buffer takes a line; if not, the client sees the end of the connection.
        let _ = tcp.try_write(b"* BYE [UNAVAILABLE] too many connections, try again later\r\n");
    }
}
