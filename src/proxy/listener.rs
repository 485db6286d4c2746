//! The accept loop of a listener: admits clients within the limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::incoming_client::IncomingClient;
use super::own_lines::untagged;
use super::own_refusals::OwnRefusal;
use super::proxy_header::announced;
use super::shared::Proxy;
use crate::accept::{AcceptFailures, accept};
use crate::admission::connection_slots::ConnectionSlot;
use crate::config::{Listener, ListenerTls};
use crate::reloadable::Reloadable;
use crate::telemetry::TelemetryEvent;
use crate::tls::stream;

/// Accepts clients on `socket`, which `listener` describes, until `stop` is cancelled. Each connection is a task of `tasks`,
/// under the configuration that counts when it begins.
pub async fn serve(
    proxy: Reloadable<Proxy>,
    socket: TcpListener,
    listener: Arc<Listener>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut failures = AcceptFailures::default();
    while let Some(accepted) = stop.run_until_cancelled(accept(&socket)).await {
        match accepted {
            Ok((tcp, peer)) => {
                let proxy = proxy.get();
                admit(&proxy, tcp, peer, &proxy.current(&listener), &tasks, &stop);
            }
            Err(error) => failures.handle(&error, "the IMAP listener").await,
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
    if !listener.proxy_protocol.is_empty() {
        return admit_announced(proxy, tcp, peer, listener, tasks, stop);
    }
    if let Some((place, session)) = place(proxy, &tcp, peer, listener) {
        let connection =
            IncomingClient::new(Arc::clone(proxy), Arc::clone(listener), peer, session);
        tasks.spawn(connection.serve(tcp, place, stop.clone()));
    }
}

/// A place for a client, if it may connect.
fn place(
    proxy: &Proxy,
    tcp: &TcpStream,
    peer: SocketAddr,
    listener: &Listener,
) -> Option<(ConnectionSlot, u64)> {
    if !proxy.admits(listener, peer.ip()) && !proxy.awaits_authority(listener) {
        debug!(%peer, "connection refused: no network of `allow` contains the client's address");
        proxy.registry.telemetry().record(&TelemetryEvent::TurnedAway);
        return None;
    }
    let session = proxy.next_session.fetch_add(1, Ordering::Relaxed);
    let place = match proxy.door.enter(session, peer.ip(), &(&proxy.limits).into()) {
        Ok(place) => place,
        Err(full) => {
            debug!(%peer, "connection refused: {full}");
            proxy.registry.telemetry().record(&TelemetryEvent::TurnedAway);
            refuse(tcp, listener.tls);
            return None;
        }
    };
    if let Err(error) = stream::prepare(tcp) {
        debug!(%peer, "the connection to the client broke at once: {error}");
        return None;
    }
    Some((place, session))
}

/// Serves a client whose address a load balancer is to announce first.
fn admit_announced(
    proxy: &Arc<Proxy>,
    mut tcp: TcpStream,
    sender: SocketAddr,
    listener: &Arc<Listener>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    if !listener.proxy_protocol.iter().any(|network| network.contains(sender.ip())) {
        proxy.registry.telemetry().record(&TelemetryEvent::TurnedAway);
        return debug!(
            %sender,
            "connection refused: no network of `proxy_protocol` contains the load balancer's address"
        );
    }
    let Ok(waiting) = Arc::clone(&proxy.unannounced).try_acquire_owned() else {
        proxy.registry.telemetry().record(&TelemetryEvent::TurnedAway);
        return debug!(%sender, "connection refused: too many connections wait for their PROXY protocol header");
    };
    let (proxy, listener, stop) = (Arc::clone(proxy), Arc::clone(listener), stop.clone());
    tasks.spawn(async move {
        // Boxed: a session that is only relayed does not carry it.
        let peer = match stop.run_until_cancelled(Box::pin(announced(&mut tcp, sender))).await {
            Some(Ok(peer)) => peer,
            Some(Err(error)) => return debug!(%sender, "connection refused: {error}"),
            None => return,
        };
        drop(waiting);
        if let Some((place, session)) = place(&proxy, &tcp, peer, &listener) {
            IncomingClient::new(proxy, listener, peer, session).serve(tcp, place, stop).await;
        }
    });
}

/// Says why, where that costs nothing: a TLS handshake is what an overload must be spared.
fn refuse(tcp: &TcpStream, tls: ListenerTls) {
    if tls != ListenerTls::Implicit {
        // A new socket's buffer takes a line; if not, the client sees the end of the connection.
        let _ = tcp.try_write(untagged(&OwnRefusal::TooManyConnections.to_string()).as_bytes());
    }
}
