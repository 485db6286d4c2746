//! The accept loop of a listener for HTTP alone. Connections have limits of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::HttpVersion;
use super::server::{self, Site};
use crate::accept::{AcceptFailures, accept};
use crate::admission::connection_slots::{ConnectionSlot, Door};
use crate::tls::stream;

/// Time limit for the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Serves `site` on `socket`, with TLS if there is `tls`, until `stop` is cancelled. Each connection is a task of `tasks`.
pub(super) async fn serve<S: Site>(
    socket: TcpListener,
    site: Arc<S>,
    tls: Option<TlsAcceptor>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let door = Arc::new(Door::default());
    let mut failures = AcceptFailures::default();
    let mut number = 0_u64;
    while let Some(accepted) = stop.run_until_cancelled(accept(&socket)).await {
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                failures.handle(&error, S::NAME).await;
                continue;
            }
        };
        number = number.wrapping_add(1);
        match door.enter(number, peer.ip(), &S::LIMITS) {
            Ok(slot) => {
                let (site, tls, stop) = (Arc::clone(&site), tls.clone(), stop.clone());
                tasks.spawn(connection(tcp, peer, slot, site, tls, stop));
            }
            Err(full) => debug!(%peer, "connection to {} refused: {full}", S::NAME),
        }
    }
}

async fn connection<S: Site>(
    tcp: TcpStream,
    peer: SocketAddr,
    mut slot: ConnectionSlot,
    site: Arc<S>,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    if let Err(error) = stream::prepare(&tcp) {
        return debug!(%peer, "connection to {} lost at once: {error}", S::NAME);
    }
    let (version, address) = (HttpVersion::One, peer.ip());
    let Some(tls) = tls else {
        return server::serve(tcp, version, address, &mut slot, site, &stop).await;
    };
    let handshake = timeout(HANDSHAKE_TIME, tls.accept(tcp));
    let accepted = tokio::select! {
        () = slot.evicted() => return,
        accepted = handshake => accepted,
    };
    match accepted {
        Ok(Ok(stream)) => server::serve(stream, version, address, &mut slot, site, &stop).await,
        Ok(Err(error)) => debug!(%peer, "TLS with a client of {} failed: {error}", S::NAME),
        Err(_) => debug!(%peer, "TLS with a client of {} timed out", S::NAME),
    }
}
