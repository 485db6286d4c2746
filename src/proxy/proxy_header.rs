//! The address of a client behind a load balancer, as the PROXY protocol announces it:
//! [`proxy_protocol`](crate::parser::proxy_protocol) with its I/O.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::parser::proxy_protocol::{Header, HeaderError, ProxiedSource, ProxyHeaderStep};

/// Time limit of the header: a load balancer sends it at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nobody was announced.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAnnounced {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("no PROXY protocol header came in time")]
    TimedOut,
}

/// Reads the header that comes before anything else. The address of the client, or `sender`'s if it speaks for itself.
pub(super) async fn announced(
    tcp: &mut TcpStream,
    sender: SocketAddr,
) -> Result<SocketAddr, NotAnnounced> {
    timeout(PATIENCE, read(tcp, sender)).await.map_err(|_| NotAnnounced::TimedOut)?
}

async fn read(tcp: &mut TcpStream, sender: SocketAddr) -> Result<SocketAddr, NotAnnounced> {
    let mut header = Header::default();
    let mut want = Header::FIRST;
    loop {
        let mut bytes = vec![0; want];
        tcp.read_exact(&mut bytes).await?;
        match header.take(&bytes)? {
            ProxyHeaderStep::Want(more) => want = more,
            ProxyHeaderStep::Done(ProxiedSource::Client(address)) => return Ok(address),
            ProxyHeaderStep::Done(ProxiedSource::Sender) => return Ok(sender),
        }
    }
}
