//! The measure for deltapush: a process that copies bytes between two TLS connections and knows nothing of them.

use std::path::Path;

use anyhow::Result;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::server;
use super::tls::{self, Authority, Order};

/// As its first argument it makes a benchmark a bare relay.
pub(crate) const COMMAND: &str = "bare-relay";

/// As much as deltapush reads at once.
const BUFFER: usize = 64 * 1024;

/// Relays all connections to `port` on loopback to `upstream`.
#[tokio::main]
pub(crate) async fn run(folder: &str, port: &str, upstream: &str) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let authority = Authority::in_folder(Path::new(folder));
    let (acceptor, connector) =
        (authority.acceptor(true, Order::Ours)?, authority.connector(true, Order::Ours)?);
    let listener: TcpListener = server::listen(port.parse()?)?;
    loop {
        // Fails where the client is gone already.
        let Ok((client, _)) = listener.accept().await else { continue };
        let relaying = relay(client, upstream.to_owned(), acceptor.clone(), connector.clone());
        // The end of a connection does not matter.
        tokio::spawn(async move { drop(relaying.await) });
    }
}

async fn relay(
    client: TcpStream,
    upstream: String,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
) -> Result<()> {
    client.set_nodelay(true)?;
    let mut client = acceptor.accept(client).await?;
    let upstream = TcpStream::connect(upstream).await?;
    upstream.set_nodelay(true)?;
    let mut upstream = connector.connect(tls::server_name()?, upstream).await?;
    copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}
