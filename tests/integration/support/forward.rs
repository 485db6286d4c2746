//! Servers on loopback at other addresses of the machine, with the ports that people know them by.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

/// Forwards connections at `address` to a port on loopback, until the test's runtime ends.
pub(crate) async fn forward(address: SocketAddr, port: u16) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
                // A peer that is gone is no fault of the test.
                let Ok(mut server) = server else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
}
