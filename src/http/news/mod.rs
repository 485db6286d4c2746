//! The hook: mail servers tell of new messages by POST. `site` answers requests, [`formats`] reads their bodies.

mod answer;
mod body;
pub mod formats;
mod site;
mod tokens;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::listen;
use crate::config::NewsSettings;
use crate::push::server_news::NewsReceiver;
use crate::telemetry::Telemetry;
use crate::tls::server::ServerTls;
use site::NewsHook;

/// Time until an address that cannot be opened is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Serves the hook of `settings`, if it has one, in `tasks` until `stop` is cancelled. `passed` is the socket that systemd holds,
/// if there is one. An address that cannot be opened is tried again: mail and pushes go on without it.
pub fn start(
    settings: &NewsSettings,
    passed: Option<StdListener>,
    taker: (NewsReceiver, Telemetry),
    tls: &ServerTls,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let (Some(address), Some(url)) = (settings.listen.as_deref().copied(), settings.url()) else {
        return;
    };
    let access = match (settings.tokens.is_empty(), settings.is_on_loopback()) {
        (true, true) => "from all programs of this machine",
        (true, false) => "from everybody",
        (false, _) => "with a token",
    };
    let tls = settings.has_tls().then(|| TlsAcceptor::from(tls.for_http()));
    let (connections, stop) = (tasks.clone(), stop.clone());
    let hook = Arc::new(NewsHook::new(&settings.tokens, taker, stop.clone()));
    tasks.spawn(async move {
        let Some(socket) = stop.run_until_cancelled(open(address, passed)).await else { return };
        info!("news of mail servers: {url}, {access}");
        listen::serve(socket, hook, tls, connections, stop).await;
    });
}

async fn open(address: SocketAddr, passed: Option<StdListener>) -> TcpListener {
    let mut found = match passed {
        Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
        None => TcpListener::bind(address).await,
    };
    let mut last: Option<io::ErrorKind> = None;
    loop {
        let error = match found {
            Ok(socket) => return socket,
            Err(error) => error,
        };
        if last.replace(error.kind()) != Some(error.kind()) {
            warn!(
                "no news of mail servers yet: cannot listen on {address}: {error}; see `news` in config.yaml"
            );
        }
        sleep(AGAIN).await;
        found = TcpListener::bind(address).await;
    }
}
