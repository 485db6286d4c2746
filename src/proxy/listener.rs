//! Accepting clients, within the limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::announced::announced;
use super::connection::Connection;
use super::probes::Probes;
use super::session;
use super::tls::ServerTls;
use super::web::Page;
use crate::config::{self, Config, Limits, ListenerTls};
use crate::live::Live;
use crate::push::board::Board;
use crate::push::registry::Registry;
use crate::stream;
use crate::trace::Sink;
use crate::upstream::Upstreams;

/// How long to wait when no connection can be accepted, for example because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What all connections have in common that began under the same configuration.
pub struct Proxy {
    pub(super) tls: ServerTls,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) registry: Registry,
    pub(super) board: Board,
    pub(super) session: Arc<session::Settings>,
    /// Pushes wait for other devices.
    pub(super) has_grace: bool,
    pub(super) limits: Limits,
    pub(super) trace: Option<Sink>,
    pub(super) probes: Arc<Probes>,
    pub(super) page: Page,
    places: Arc<Semaphore>,
    next_session: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy as `config` wants it.
    #[must_use]
    pub fn new(
        config: &Config,
        tls: ServerTls,
        upstreams: Arc<Upstreams>,
        registry: Registry,
        board: Board,
        trace: Option<Sink>,
    ) -> Self {
        Self {
            tls,
            upstreams,
            registry,
            board,
            session: Arc::new(session_settings(config)),
            has_grace: !config.push.grace.is_zero(),
            limits: config.limits.clone(),
            trace,
            probes: Arc::default(),
            page: Page::new(config),
            places: Arc::new(Semaphore::new(config.limits.connections.min(Semaphore::MAX_PERMITS))),
            next_session: Arc::new(AtomicU64::new(1)),
        }
    }

    /// The same proxy under another configuration: what is counted and known goes on.
    #[must_use]
    pub fn renewed(&self, config: &Config, upstreams: Arc<Upstreams>) -> Self {
        let (tls, registry, board) = (self.tls.clone(), self.registry.clone(), self.board.clone());
        let (before, now) = (self.limits.connections, config.limits.connections);
        resize(&self.places, before.min(Semaphore::MAX_PERMITS), now.min(Semaphore::MAX_PERMITS));
        Self {
            probes: Arc::clone(&self.probes),
            places: Arc::clone(&self.places),
            next_session: Arc::clone(&self.next_session),
            ..Self::new(config, tls, upstreams, registry, board, self.trace.clone())
        }
    }
}

/// Changes the number of places. Those that are taken are given up as their connections end.
fn resize(places: &Arc<Semaphore>, before: usize, now: usize) {
    places.add_permits(now.saturating_sub(before));
    let surplus = u32::try_from(before.saturating_sub(now)).unwrap_or(u32::MAX);
    if surplus > 0 {
        let places = Arc::clone(places);
        tokio::spawn(async move {
            for _ in 0..surplus {
                // It fails only if nobody can connect any more.
                let Ok(place) = places.acquire().await else { return };
                place.forget();
            }
        });
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
        max_command: config.limits.command.bytes(),
        max_response: config.limits.response.bytes(),
    }
}

/// What clients find behind a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door {
    pub(super) tls: ListenerTls,
    pub(super) web: bool,
}

/// Accepts clients on `socket`, which `listener` describes, until `stop` is cancelled. Each connection is a task of `tasks`,
/// under the configuration that counts when it begins.
pub async fn serve(
    proxy: Live<Proxy>,
    socket: TcpListener,
    listener: config::Listener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut was_failing = false;
    while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
        match accepted {
            Ok((tcp, peer)) => {
                was_failing = false;
                admit(&proxy.get(), tcp, peer, &listener, &tasks, &stop);
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
    listener: &config::Listener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let door = Door { tls: listener.tls, web: listener.web };
    let is_announced = !listener.proxy_protocol.is_empty();
    if is_announced && !listener.proxy_protocol.iter().any(|network| network.contains(peer.ip())) {
        return debug!(%peer, "refused: not among the networks of `proxy_protocol`");
    }
    let Ok(place) = Arc::clone(&proxy.places).try_acquire_owned() else {
        debug!(%peer, "turned away: all {} connections are in use", proxy.limits.connections);
        return refuse(&tcp, door.tls);
    };
    if let Err(error) = stream::prepare(&tcp) {
        return debug!(%peer, "connection lost at once: {error}");
    }
    let session = proxy.next_session.fetch_add(1, Ordering::Relaxed);
    let (proxy, stop) = (Arc::clone(proxy), stop.clone());
    tasks.spawn(async move {
        if is_announced {
            // Boxed, and on its own: few connections need it.
            Box::pin(welcome_announced(proxy, (tcp, peer), session, door, stop)).await;
        } else {
            Connection::new(proxy, peer, session).serve(tcp, door, &stop).await;
        }
        drop(place);
    });
}

/// Serves a client whose address is to be announced first.
async fn welcome_announced(
    proxy: Arc<Proxy>,
    (mut tcp, sender): (TcpStream, SocketAddr),
    session: u64,
    door: Door,
    stop: CancellationToken,
) {
    match stop.run_until_cancelled(announced(&mut tcp, sender)).await {
        Some(Ok(peer)) => Connection::new(proxy, peer, session).serve(tcp, door, &stop).await,
        Some(Err(error)) => debug!(session, %sender, "refused: {error}"),
        None => {}
    }
}

/// Says why, where that costs nothing: a TLS handshake is what an overload must be spared.
fn refuse(tcp: &TcpStream, tls: ListenerTls) {
    if tls != ListenerTls::Implicit {
        // A new socket's buffer takes a line; if not, the client sees the end of the connection.
        let _ = tcp.try_write(b"* BYE [UNAVAILABLE] too many connections, try again later\r\n");
    }
}
