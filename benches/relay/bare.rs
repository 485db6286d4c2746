//! The measure for deltapush: a process that copies bytes between two TLS connections and knows nothing of them.

use std::path::Path;

use anyhow::Result;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use super::tls::{self, Authority};

/// As its first argument it makes this program a bare relay.
pub(crate) const COMMAND: &str = "bare-relay";

/// As much as deltapush reads at once.
const BUFFER: usize = 64 * 1024;

/// Relays one connection from `port` on loopback to `upstream`.
#[tokio::main]
pub(crate) async fn run(folder: &str, port: &str, upstream: &str) -> Result<()> {
    let authority = Authority::in_folder(Path::new(folder));
    let socket = TcpListener::bind((tls::HOST, port.parse()?)).await?;
    let (client, _) = socket.accept().await?;
    let upstream = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let mut client = authority.acceptor()?.accept(client).await?;
    let mut upstream = authority.connector()?.connect(tls::server_name()?, upstream).await?;
    // It is killed in the end: how the connections end does not matter.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await;
    Ok(())
}
