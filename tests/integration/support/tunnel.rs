//! An HTTP proxy of a test's own (CONNECT, RFC 9110 section 9.3.6): where names lead that no resolver knows.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The proxy. It ends with the test's runtime.
pub(crate) struct Tunnel {
    /// Its port, on loopback.
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// Starts it: each `host:port` leads to a port on loopback, all others nowhere.
    pub(crate) async fn start(ways: &[(String, u16)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ways: HashMap<String, u16> = ways.iter().cloned().collect();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, ways.clone(), Arc::clone(&noted)));
            }
        });
        Self { port, asked }
    }

    /// Lists the targets asked for so far, as `host:port`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut client: TcpStream, ways: HashMap<String, u16>, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let wanted =
        head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    asked.lock().unwrap().push(wanted.clone());
    // A client that is gone is no fault of the test.
    let Some(port) = ways.get(&wanted) else {
        let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        return;
    };
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.unwrap();
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
