//! Accepts connections on the admin listener, within their own limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::site::{AdminSite, Visitor};
use crate::accept::AcceptFailures;
use crate::admission::connection_slots::{ConnectionSlot, Door};
use crate::admission::slot_table::SlotLimits;
use crate::tls::stream;

/// Connections at once: an operator with some devices, a Prometheus or two, and strangers without the password.
const LIMITS: SlotLimits = SlotLimits {
    connections: 128,
    per_address: 64,
    before_login: 48,
    before_login_per_address: 24,
};

/// For the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Time limit for the head of a request, including the wait before it.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// The maximum duration of a connection: browsers open the next by themselves.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The most that is held of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Serves `site` on `socket`, with TLS if there is `tls`, until the site stops. Each connection is a task of `tasks`.
pub async fn serve(
    socket: TcpListener,
    site: Arc<AdminSite>,
    tls: Option<TlsAcceptor>,
    tasks: TaskTracker,
) {
    let door = Arc::new(Door::default());
    let mut failures = AcceptFailures::default();
    let mut number = 0_u64;
    while let Some(accepted) = site.stop.run_until_cancelled(socket.accept()).await {
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                failures.handle(&error, "the web page").await;
                continue;
            }
        };
        number = number.wrapping_add(1);
        match door.enter(number, peer.ip(), &LIMITS) {
            Ok(place) => {
                let (site, tls) = (Arc::clone(&site), tls.clone());
                tasks.spawn(visit(tcp, peer, place, site, tls));
            }
            Err(full) => debug!(%peer, "connection to the web page refused: {full}"),
        }
    }
}

async fn visit(
    tcp: TcpStream,
    peer: SocketAddr,
    place: ConnectionSlot,
    site: Arc<AdminSite>,
    tls: Option<TlsAcceptor>,
) {
    if let Err(error) = stream::prepare(&tcp) {
        return debug!(%peer, "connection to the web page lost at once: {error}");
    }
    let Some(tls) = tls else { return converse(tcp, peer, place, site).await };
    let handshake = timeout(HANDSHAKE_TIME, tls.accept(tcp));
    tokio::select! {
        () = place.evicted() => {}
        accepted = handshake => match accepted {
            Ok(Ok(stream)) => converse(stream, peer, place, site).await,
            Ok(Err(error)) => debug!(%peer, "TLS with a browser on the web page failed: {error}"),
            Err(_) => debug!(%peer, "TLS with a browser on the web page timed out"),
        },
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    mut place: ConnectionSlot,
    site: Arc<AdminSite>,
) {
    let visitor = Arc::new(Visitor::new(peer.ip()));
    let (stop, known) = (site.stop.clone(), Arc::clone(&visitor));
    let answer = service_fn(move |request: Request<Incoming>| {
        let (site, visitor) = (Arc::clone(&site), Arc::clone(&visitor));
        async move { Ok::<_, Infallible>(site.answer(&request, &visitor).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let end = Instant::now().checked_add(LIFETIME).unwrap_or_else(Instant::now);
    let evicted = place.evicted();
    tokio::pin!(evicted);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // Errors are the visitor's, and its end comes as one often enough.
            _ = &mut connection => return,
            () = known.became_known.notified() => place.logged_in(),
            () = &mut evicted, if !known.is_known.load(Ordering::Relaxed) => return,
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(end) => return,
        }
    }
}
