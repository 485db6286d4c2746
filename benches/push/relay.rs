//! A relay that notes what passes, and when.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// The receiving side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToDeltapush,
    ToServer,
}

/// Bytes that passed at once.
#[derive(Clone)]
pub(crate) struct Passed {
    /// When: from deltapush, right after they were read; to it, right before they are written.
    pub(crate) at: Instant,
    pub(crate) way: Way,
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {}", self.at, self.way, self.bytes.escape_ascii())
    }
}

/// The relay. It ends with the runtime.
pub(crate) struct Relay {
    pub(crate) port: u16,
    passed: Notes,
}

type Notes = Arc<Mutex<Vec<Passed>>>;

impl Relay {
    /// A relay in front of what listens on `server`.
    pub(crate) async fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let relay = Self { port: listener.local_addr()?.port(), passed: Notes::default() };
        let notes = Arc::clone(&relay.passed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, Arc::clone(&notes)));
            }
        });
        Ok(relay)
    }

    /// Chunks that passed since they were last forgotten.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap().clone()
    }

    /// Forgets what passed.
    pub(crate) fn forget(&self) {
        self.passed.lock().unwrap().clear();
    }
}

async fn connection(mut client: TcpStream, server: u16, notes: Notes) -> Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        pump(from_client, to_server, Way::ToServer, Arc::clone(&notes)),
        pump(from_server, to_client, Way::ToDeltapush, notes)
    )?;
    Ok(())
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way, notes: Notes) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(to.shutdown().await?);
        }
        let bytes = buffer[..count].to_vec();
        notes.lock().unwrap().push(Passed { at: Instant::now(), way, bytes });
        to.write_all(&buffer[..count]).await?;
    }
}
