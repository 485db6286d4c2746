//! The connection of a client before its login, when only deltapush talks to it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::tls::stream::Stream;

/// Time limit of a client to accept an answer.
const WRITE_TIME: Duration = Duration::from_secs(20);

/// Time limit of a client to accept the last answer.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// The connection; not there during a TLS handshake.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    stream: Option<Stream>,
    /// An answer is on its way, perhaps in part.
    is_writing: bool,
}

impl Conversation {
    /// Goes on over `stream`.
    pub(super) fn resume(&mut self, stream: Stream) {
        self.stream = Some(stream);
    }

    /// Gives the connection away, for a handshake or for good.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn take(&mut self) -> io::Result<Stream> {
        self.stream.take().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The connection.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends whole lines.
    ///
    /// # Errors
    /// If the connection broke, or the client does not take them in time.
    pub(super) async fn send(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        // Stays set if this is dropped half way.
        self.is_writing = true;
        timeout(WRITE_TIME, async {
            stream.write_all(lines).await?;
            stream.flush().await
        })
        .await??;
        self.is_writing = false;
        Ok(())
    }

    /// Says goodbye and closes, unless that would stand within another answer, or within a handshake.
    pub(super) async fn end(&mut self, line: &[u8]) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.is_writing) else { return };
        // A client that is gone, or does not listen, misses nothing.
        let _ = timeout(FAREWELL_TIME, async {
            stream.write_all(line).await?;
            stream.flush().await?;
            stream.shutdown().await
        })
        .await;
    }
}
