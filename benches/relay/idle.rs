//! Sessions that have said a little and then say nothing: what one costs in memory, compressed and not.

use anyhow::{Context, Result, anyhow};
use deltapush::proxy::compress::{Deflater, Inflater, MIN_WORK};
use deltapush::proxy::relay::FOLD_TIME;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::client::Client;
use super::memory::Memory;
use super::proxy::Proxy;
use super::tls::Authority;

/// How many sessions are opened before anything is measured, so that what is made once is there.
const WARM_UP: usize = 8;

/// What a client says before it idles: 2 KiB in commands of 64 bytes.
const COMMANDS: usize = 32;

/// What one further session takes, with what its two TLS connections need, in bytes.
pub(crate) struct Costs {
    pub(crate) plain: u64,
    pub(crate) compressed: u64,
}

impl Costs {
    /// Opens so many sessions of each kind beside each other.
    pub(crate) async fn measure(proxy: &Proxy, authority: &Authority, sessions: usize) -> Result<Self> {
        let memory = Memory::of(proxy.pid());
        let mut clients = Vec::new();
        for compressed in [false, true] {
            open(proxy, authority, WARM_UP, compressed, &mut clients).await?;
        }
        let before = memory.resident()?;
        open(proxy, authority, sessions, false, &mut clients).await?;
        let between = memory.resident()?;
        open(proxy, authority, sessions, true, &mut clients).await?;
        // What is kept of those that compress is made smaller once they say nothing.
        tokio::time::sleep(FOLD_TIME * 2).await;
        let after = memory.resident()?;
        let each = |growth: u64| growth / sessions as u64;
        Ok(Self { plain: each(between.saturating_sub(before)), compressed: each(after.saturating_sub(between)) })
    }

    /// Whether a compressed session takes at most a quarter more.
    pub(crate) fn are_close(&self) -> bool {
        self.compressed <= self.plain + self.plain / 4
    }
}

async fn open(
    proxy: &Proxy,
    authority: &Authority,
    sessions: usize,
    compressed: bool,
    clients: &mut Vec<Client>,
) -> Result<()> {
    for _ in 0..sessions {
        let session = async {
            let mut client = Client::connect(proxy.port, authority).await?;
            client.chat(compressed).await?;
            anyhow::Ok(client)
        };
        clients.push(tokio::time::timeout(super::PATIENCE, session).await??);
    }
    Ok(())
}

/// Says small commands and hears their answers.
pub(crate) async fn chat<S>(stream: &mut BufReader<S>, compressed: bool) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut layer = compressed.then(|| (Deflater::new(), Inflater::new()));
    for number in 0..COMMANDS {
        let command = format!("a SEARCH HEADER MESSAGE-ID <{:012x}.{number:04}@mail.example.org>\r\n", number * 7919);
        let mut said = command.clone().into_bytes();
        if let Some((deflater, _)) = &mut layer {
            let mut deflated = Vec::new();
            let mut out = |bytes: &[u8]| deflated.extend_from_slice(bytes);
            deflater.write(&said, &mut out).and_then(|()| deflater.flush(&mut out))?;
            said = deflated;
        }
        stream.write_all(&said).await?;
        stream.flush().await?;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\n") {
            let mut bytes = stream.fill_buf().await?;
            let len = bytes.len();
            anyhow::ensure!(len > 0, "the connection was closed");
            match &mut layer {
                None => heard.extend_from_slice(bytes),
                Some((_, inflater)) => {
                    let mut work = vec![0; MIN_WORK];
                    while !bytes.is_empty() || inflater.has_more() {
                        heard.extend_from_slice(inflater.inflate(&mut bytes, &mut work).context("from deltapush")?);
                    }
                }
            }
            stream.consume(len);
        }
        if heard != b"a OK done\r\n" {
            return Err(anyhow!("the answer is {:?}", String::from_utf8_lossy(&heard)));
        }
    }
    Ok(())
}
