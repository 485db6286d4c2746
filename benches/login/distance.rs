//! A relay that makes two programs on one machine as far apart as a network would.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Chunks under way in one direction.
const MAX_CHUNKS: usize = 1024;

/// Listens on a free port in front of the one on loopback, a round trip away from its clients. Ends with the runtime.
pub(crate) async fn relay(server: u16, round_trip: Duration) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // The end of a connection is the peers' affair.
            tokio::spawn(async move { drop(connection(client, server, round_trip).await) });
        }
    });
    Ok(port)
}

async fn connection(mut client: TcpStream, server: u16, round_trip: Duration) -> Result<()> {
    // The client believes that it is connected: nothing that it sends leaves before it would be.
    let connected = Instant::now() + round_trip;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let one_way = round_trip / 2;
    tokio::try_join!(
        pump(from_client, to_server, connected, one_way),
        pump(from_server, to_client, connected, one_way)
    )?;
    Ok(())
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    connected: Instant,
    one_way: Duration,
) -> Result<()> {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_CHUNKS);
    let reading = async {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            let count = from.read(&mut chunk).await?;
            chunk.truncate(count);
            let arrives = Instant::now().max(connected) + one_way;
            if sender.send((arrives, chunk)).await.is_err() || count == 0 {
                return anyhow::Ok(());
            }
        }
    };
    let writing = async {
        while let Some((arrives, chunk)) = chunks.recv().await {
            sleep_until(arrives).await;
            if chunk.is_empty() {
                to.shutdown().await?;
                break;
            }
            to.write_all(&chunk).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}
