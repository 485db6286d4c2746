//! A notification server that notes when the first byte of each POST arrives.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The server. It ends with the runtime.
pub(crate) struct Notifications {
    pub(crate) url: String,
    posted: mpsc::UnboundedReceiver<Instant>,
}

impl Notifications {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}/notify", listener.local_addr()?);
        let (sender, posted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, sender.clone()));
            }
        });
        Ok(Self { url, posted })
    }

    /// When the next POST began.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Instant> {
        timeout(patience, self.posted.recv())
            .await
            .context("a push is missing")?
            .context("the server has ended")
    }
}

/// HTTP/1.1, as little as one client needs that sends one request at a time.
async fn serve(mut stream: TcpStream, posted: mpsc::UnboundedSender<Instant>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 16 * 1024];
    let (mut request, mut began) = (Vec::new(), None);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let first_byte = *began.get_or_insert_with(Instant::now);
        request.extend_from_slice(&buffer[..count]);
        if is_whole(&request) {
            posted.send(first_byte)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
            request.clear();
            began = None;
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let size =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= size.unwrap_or(0_usize)
}
