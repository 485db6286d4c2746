//! One of a relay's two connections: what waits to be sent, and how it ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::compress::{CompressedLayer, DeflateError, InflateError};
use crate::tls::stream::Stream;

/// One of the two connections.
pub(super) struct Peer {
    stream: Stream,
    /// Bytes to send that the stream has not taken.
    queue: Vec<u8>,
    /// Number of bytes at the queue's beginning that are sent.
    sent: usize,
    /// Something was written that may be held by the stream.
    unflushed: bool,
    /// Nothing more will come from it.
    pub(super) eof: bool,
    /// Its side was, or is to be, closed by us.
    pub(super) closing: Closing,
    pub(super) error: Option<io::Error>,
    /// Boxed: most connections have none.
    compression: Option<Box<CompressedLayer>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// Once the queue is empty.
    Wanted,
    Done,
}

impl Peer {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            queue: Vec::new(),
            sent: 0,
            unflushed: false,
            eof: false,
            closing: Closing::No,
            error: None,
            compression: None,
        }
    }

    /// The connection, and what it has not taken yet; none if it cannot be used any more.
    pub(super) fn into_stream(self) -> Option<(Stream, Vec<u8>)> {
        let is_usable = !self.eof && self.error.is_none() && self.closing == Closing::No;
        is_usable.then(|| (self.stream, self.queue.get(self.sent..).unwrap_or_default().to_vec()))
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Its connection broke: nothing can be sent, and nothing will come.
    pub(super) fn is_broken(&self) -> bool {
        self.error.is_some()
    }

    /// Closes our side once all is sent.
    pub(super) fn close(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::Wanted;
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.eof = true;
        self.fail_to_send(error);
    }

    /// Nothing more can be sent; its last words may still be there to be read.
    fn fail_to_send(&mut self, error: io::Error) {
        self.error.get_or_insert(error);
        self.closing = Closing::Done;
        self.queue = Vec::new();
        self.sent = 0;
        self.unflushed = false;
    }

    /// From now on what is sent and received is compressed.
    pub(super) fn compress(&mut self) {
        self.compression.get_or_insert_default();
    }

    /// Takes back what was received before it was known to be compressed.
    pub(super) fn receive_compressed(&mut self, bytes: &[u8]) {
        if let Some(compression) = &mut self.compression {
            compression.receive(bytes);
        }
    }

    /// Sends `bytes`, compressed if that was agreed on: then some may wait for [`flush_compressed`](Self::flush_compressed).
    pub(super) fn send(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let Some(mut compression) = self.compression.take() else { return self.write(bytes, cx) };
        if self.closing != Closing::Done {
            let done = compression.deflater.write(bytes, &mut |deflated| self.write(deflated, cx));
            self.fail_to_compress(done);
        }
        self.compression = Some(compression);
    }

    /// Reports if its output is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.compression.is_some()
    }

    /// Reports if [`fold`](Self::fold) may save anything.
    pub(super) fn can_fold(&self) -> bool {
        let can = |compression: &CompressedLayer| {
            compression.inflater.can_fold() || compression.deflater.can_fold()
        };
        self.compression.as_deref().is_some_and(can)
    }

    /// For when it says nothing for a while: takes less memory from now on.
    pub(super) fn fold(&mut self) {
        if let Some(compression) = &mut self.compression {
            compression.inflater.fold();
            compression.deflater.fold();
        }
    }

    /// Has the other side get all that was sent; whether anything was to be done. Each time costs a few bytes: it is for when
    /// nothing more is at hand.
    pub(super) fn flush_compressed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(mut compression) =
            self.compression.take_if(|compression| compression.deflater.is_unflushed())
        else {
            return false;
        };
        let done = compression.deflater.flush(&mut |deflated| self.write(deflated, cx));
        self.compression = Some(compression);
        self.fail_to_compress(done);
        true
    }

    fn fail_to_compress(&mut self, done: Result<(), DeflateError>) {
        if let Err(failed) = done {
            tracing::error!("{failed}: deltapush ends the session; this is a bug in deltapush");
            self.fail(io::Error::other(failed));
        }
    }

    /// Writes `bytes`, or queues what the stream does not take.
    fn write(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if self.closing == Closing::Done {
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() && self.waiting() == 0 {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return self.fail_to_send(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.unflushed = true;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Poll::Ready(Err(error)) => return self.fail_to_send(error),
                Poll::Pending => break,
            }
        }
        if self.sent >= self.waiting() {
            // It may never become empty: what is sent must not pile up.
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        self.queue.extend_from_slice(rest);
    }

    /// Sends what is queued, flushes, and closes if that is wanted; whether anything was done.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = self.closing == Closing::Wanted && self.flush_compressed(cx);
        while self.waiting() > 0 {
            let rest = self.queue.get(self.sent..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.sent += written;
                    self.unflushed = true;
                    progress = true;
                }
                Poll::Ready(Ok(_)) => self.fail_to_send(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => self.fail_to_send(error),
                Poll::Pending => return progress,
            }
        }
        if self.sent > 0 {
            self.queue = Vec::new();
            self.sent = 0;
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.fail_to_send(error),
                Poll::Pending => return progress,
            }
        }
        if self.closing == Closing::Wanted {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Ready(_) => {
                    self.closing = Closing::Done;
                    progress = true;
                }
                Poll::Pending => {}
            }
        }
        progress
    }

    /// The peer's bytes; an empty slice at the end, and where compressed input makes no byte yet. `buffer` is also the
    /// place into which input is inflated, piece by piece.
    ///
    /// # Errors
    /// If what came was to be compressed and is not.
    pub(super) fn poll_read<'b>(
        &mut self,
        buffer: &'b mut [u8],
        cx: &mut Context<'_>,
    ) -> Option<Result<&'b [u8], InflateError>> {
        let Some(mut compression) = self.compression.take() else {
            return self.poll_receive(buffer, cx).map(Ok);
        };
        let inflated = self.poll_inflate(&mut compression, buffer, cx);
        self.compression = Some(compression);
        inflated
    }

    fn poll_inflate<'b>(
        &mut self,
        compression: &mut CompressedLayer,
        buffer: &'b mut [u8],
        cx: &mut Context<'_>,
    ) -> Option<Result<&'b [u8], InflateError>> {
        if !compression.has_input() {
            compression.receive(self.poll_receive(buffer, cx)?);
        }
        // A little input may make much output, which comes without waiting: others get their turn in between.
        let Poll::Ready(turn) = coop::poll_proceed(cx) else { return None };
        turn.made_progress();
        Some(compression.inflate(buffer))
    }

    /// The bytes to read; an empty slice at the end. A peer that disconnects without the close of TLS has ended too.
    fn poll_receive<'b>(&mut self, buffer: &'b mut [u8], cx: &mut Context<'_>) -> Option<&'b [u8]> {
        let mut read = ReadBuf::new(buffer);
        let read = match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
            Poll::Pending => return None,
            Poll::Ready(Ok(())) => read.filled().len(),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Poll::Ready(Err(error)) => {
                self.fail(error);
                0
            }
        };
        self.eof |= read == 0;
        buffer.get(..read)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LIMIT: usize = 64 * 1024;

    #[tokio::test]
    async fn sent_bytes_are_released_although_the_queue_never_becomes_empty() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Buffers as on a slow way: less than what may wait here fits into them.
        socket2::SockRef::from(&listener).set_recv_buffer_size(8 * 1024).unwrap();
        let (far, near) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (near, mut far) = (far.unwrap(), near.unwrap().0);
        socket2::SockRef::from(&near).set_send_buffer_size(8 * 1024).unwrap();
        let mut peer = Peer::new(Stream::Plain(near));
        let mut sent: u32 = 0;
        let mut most = 0;
        let sending = poll_fn(|cx| {
            peer.poll_send(cx);
            while peer.waiting() < LIMIT && sent < 4_096_000 {
                let piece: Vec<u8> = (sent..sent + 16 * 1024).flat_map(u32::to_le_bytes).collect();
                sent += 16 * 1024;
                peer.send(&piece, cx);
                most = most.max(peer.queue.capacity());
            }
            if peer.waiting() == 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        let receiving = async {
            let mut bytes = vec![0; 4096];
            for first in (0..4_096_000_u32).step_by(1024) {
                far.read_exact(&mut bytes).await.unwrap();
                let expected: Vec<u8> = (first..first + 1024).flat_map(u32::to_le_bytes).collect();
                assert!(bytes == expected, "at {first}");
            }
        };
        tokio::join!(sending, receiving);
        assert!(most < 8 * LIMIT, "{most} bytes are kept");
    }
}
