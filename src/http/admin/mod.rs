//! The admin listener: a page for the operator, metrics for Prometheus, health checks.
//! `router` dispatches requests, [`site`] authorizes them, `page` renders the page and `live` refreshes it; `health`
//! describes faults. [`password`] and `hosts` protect access.

mod health;
mod hosts;
mod live;
mod page;
pub mod password;
mod plot;
mod router;
pub mod site;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::{Admin, Hostname};
use crate::http::listen;
use crate::tls::server::ServerTls;
use password::Password;
use site::{AdminSite, Sources};

/// Serves the admin site of `admin` until `stop` is cancelled; `hostname` is one of its names. If its address cannot be opened, logs that and
/// returns: mail and pushes go on without it.
pub async fn start(
    admin: &Admin,
    hostname: &Hostname,
    password: Password,
    sources: Sources,
    tls: &ServerTls,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let Some(address) = admin.address.as_deref() else { return };
    let socket = match TcpListener::bind(address).await {
        Ok(socket) => socket,
        Err(error) => {
            return warn!(
                "no web page and no metrics: cannot listen on {address}: {error}; see `admin` in config.yaml"
            );
        }
    };
    let has_tls = admin.has_tls();
    let scheme = if has_tls { "https" } else { "http" };
    info!(
        "web page: {scheme}://{address}/ (any user name, the password in {})",
        password.path.display()
    );
    let tls = has_tls.then(|| TlsAcceptor::from(tls.for_http()));
    let site = AdminSite::new(admin, hostname, password, sources, stop.clone());
    tasks.spawn(listen::serve(socket, Arc::new(site), tls, tasks.clone(), stop.clone()));
}
