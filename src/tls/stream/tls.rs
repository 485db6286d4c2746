//! TLS over TCP that owns no buffer while it is idle.
//!
//! tokio-rustls keeps 4 KiB for each connection, and reads as little at a time. Here a thread has one buffer for all its
//! connections; a connection keeps what could not be used or sent yet, and gives that memory back with it.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::{Acceptor, ClientHello, ServerConfig};
use tokio_rustls::rustls::{self, CommonState};

use super::records::{Records, TlsState};

/// The most that is sealed at once: four records.
const MAX_PLAIN: usize = 64 * 1024;

/// A record's wire size, at most (RFC 5246 section 6.2.3, which has more than RFC 8446).
const MAX_RECORD: usize = 5 + 16 * 1024 + 2048;

/// Bytes of one read where there is room for [`MAX_PLAIN`]: four records of full size (RFC 8446 section 5.2, with the one
/// byte that is added), so that in a stream of them none comes in two pieces, and which never contain more than that.
const MAX_READ: usize = 4 * (5 + 16 * 1024 + 1 + 16);

/// Size of the thread's buffer: the bytes that are read or sealed at once, the overhead of records, and a record that was
/// begun before.
const SCRATCH: usize = MAX_PLAIN + MAX_RECORD;

/// Bytes of one read in a handshake, and for the first look at a connection.
const HANDSHAKE_READ: usize = 4 * 1024;

/// Most bytes that may wait to be sent: the output of one sealing, with rustls's additions. Its answers to the peer are few
/// and counted; this bound holds in any case.
const MAX_OUTGOING: usize = 2 * SCRATCH;

/// Number of reads in a row that may contain no data. New keys and tickets cost more time than bytes.
const MAX_SILENT_READS: usize = 4;

/// Bytes of a server's handshake that may be held: rustls takes messages of 64 KiB, and chains of certificates are long.
const MAX_HANDSHAKE: usize = 64 * 1024 + MAX_RECORD;

/// Bytes of a client's handshake that may be held. A ClientHello has less than 2 KiB, with a post-quantum key share too; rustls
/// holds a second copy of it.
const MAX_CLIENT_HANDSHAKE: usize = 8 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A TLS connection, past its handshake: over TCP, or whatever else carries bytes.
pub struct TlsStream<T = TcpStream> {
    tcp: T,
    records: Records,
    /// Received, and not used yet: the beginning of a record, or of a message that is spread over records.
    incoming: Vec<u8>,
    /// Decrypted, and not taken yet.
    received: Vec<u8>,
    /// Sealed, and not sent yet.
    outgoing: Vec<u8>,
    /// The peer says no more.
    peer_closed: bool,
    /// The peer broke the protocol: what it says counts no more. Boxed, as there seldom is one.
    fault: Option<Box<rustls::Error>>,
    /// The task that waits until something was sent. The socket stores one waker only, which may be a reader's, and
    /// readers send too.
    writer: Option<Waker>,
    /// We say no more.
    closed: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> TlsStream<T> {
    /// The client's part of a handshake.
    ///
    /// # Errors
    /// If the connection broke, or the server is not who it should be.
    pub async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        tcp: T,
    ) -> io::Result<Self> {
        Self::new(tcp, Records::client(config, name).map_err(invalid)?, Vec::new())
            .handshake(MAX_HANDSHAKE)
            .await
    }

    fn new(tcp: T, records: Records, incoming: Vec<u8>) -> Self {
        let (received, outgoing) = (Vec::new(), Vec::new());
        Self {
            tcp,
            records,
            incoming,
            received,
            outgoing,
            peer_closed: false,
            fault: None,
            writer: None,
            closed: false,
        }
    }

    /// Talks until the handshake is done, and holds at most so many bytes of the peer's.
    async fn handshake(mut self, most: usize) -> io::Result<Self> {
        loop {
            let received = &mut self.received;
            let (used, standing) = self.records.receive(
                &mut self.incoming,
                &mut |bytes| received.extend_from_slice(bytes),
                &mut self.outgoing,
            );
            self.incoming.drain(..used);
            // The alert too, if there is one: what becomes of it changes nothing.
            let sent = poll_fn(|cx| self.poll_drain(cx)).await;
            let standing = standing.map_err(invalid)?;
            sent?;
            if standing != TlsState::Handshaking {
                self.peer_closed = standing == TlsState::PeerClosed;
                if self.peer_closed {
                    // After its last word nothing counts.
                    self.incoming.clear();
                }
                self.incoming.shrink_to_fit();
                return Ok(self);
            }
            read_more(&mut self.tcp, &mut self.incoming, most).await?;
        }
    }

    /// Gives back, to be wiped, what memory had in it that is handed over.
    pub(super) fn forget_what_was_read(&mut self) {
        for buffer in [&mut self.incoming, &mut self.received] {
            *buffer = buffer.as_slice().to_vec();
        }
    }

    /// The negotiated parameters.
    #[must_use]
    pub fn agreed(&self) -> &CommonState {
        self.records.common()
    }

    /// Bytes that it holds besides rustls: none while nothing is in progress.
    #[must_use]
    pub fn held(&self) -> usize {
        [&self.incoming, &self.received, &self.outgoing]
            .iter()
            .map(|buffer| buffer.capacity())
            .sum()
    }

    /// Waits for what the peer says next, which stays in the stream; nothing at its end.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn peek(&mut self) -> io::Result<&[u8]> {
        if self.received.is_empty() {
            let mut first = vec![0; HANDSHAKE_READ];
            let read = poll_fn(|cx| {
                let mut room = ReadBuf::new(&mut first);
                Pin::new(&mut *self).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            })
            .await?;
            first.truncate(read);
            // The bytes that did not fit came behind it.
            first.append(&mut self.received);
            self.received = first;
        }
        Ok(&self.received)
    }

    /// Sends what waits to be sent.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.drain(..written);
        }
        self.outgoing = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Sends what waits to be sent, for one that has more to say.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_drain(cx);
        self.writer = sent.is_pending().then(|| cx.waker().clone());
        sent
    }

    /// Sends what waits to be sent, for one that reads. If it fails, a write will hear of it: what was read counts all the same.
    fn send_by_the_way(&mut self, cx: &mut Context<'_>) {
        if !self.outgoing.is_empty()
            && self.poll_drain(cx).is_ready()
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    /// Hands out what was decrypted and not taken before; whether there was anything.
    fn take_received(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.received.is_empty() {
            return false;
        }
        let taken = self.received.len().min(buf.remaining());
        buf.put_slice(self.received.get(..taken).unwrap_or_default());
        self.received.drain(..taken);
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        true
    }

    /// Reads from the socket and uses what came; whether anything came.
    fn poll_receive(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let begun = self.incoming.len();
        // No more than can be taken, so that what is decrypted seldom has to be kept; but the record that was begun.
        let most = if buf.remaining() < MAX_PLAIN { buf.remaining() } else { MAX_READ };
        let end = most.max(begun.saturating_add(MAX_RECORD)).min(scratch.len());
        let Some(room) = scratch.get_mut(begun..end).filter(|room| !room.is_empty()) else {
            return Poll::Ready(Err(io::Error::other("a TLS message is too long")));
        };
        let mut read = ReadBuf::new(room);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
        let read = read.filled().len();
        if read == 0 {
            return Poll::Ready(Ok(false));
        }
        let filled = begun.saturating_add(read);
        scratch.get_mut(..begun).unwrap_or_default().copy_from_slice(&self.incoming);
        let Some(incoming) = scratch.get_mut(..filled) else { return Poll::Ready(Ok(false)) };
        let kept = &mut self.received;
        let mut take = |bytes: &[u8]| {
            let (now, later) =
                bytes.split_at(if kept.is_empty() { bytes.len().min(buf.remaining()) } else { 0 });
            buf.put_slice(now);
            kept.extend_from_slice(later);
        };
        let (used, standing) = self.records.receive(incoming, &mut take, &mut self.outgoing);
        let mut standing = standing;
        if standing.is_ok() && self.outgoing.len() > MAX_OUTGOING {
            standing = Err(rustls::Error::General("the peer takes no answer".into()));
        }
        self.peer_closed = standing == Ok(TlsState::PeerClosed);
        self.fault = standing.err().map(Box::new);
        // A new one, so that no more is kept than has to be. After the peer's last word nothing counts.
        let counts = !self.peer_closed && self.fault.is_none();
        self.incoming = incoming.get(used..).filter(|_| counts).unwrap_or_default().to_vec();
        incoming.fill(0);
        Poll::Ready(Ok(true))
    }

    /// Seals `plain`, or the beginning of it, and sends as much as the socket takes now; how much was sealed.
    fn seal(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        plain: &[u8],
    ) -> io::Result<usize> {
        let plain = plain.get(..MAX_PLAIN).unwrap_or(plain);
        let len = self
            .records
            .seal(&mut self.incoming, plain, scratch, &mut self.outgoing)
            .map_err(invalid)?;
        let mut rest = scratch.get(..len).unwrap_or_default();
        // Something of rustls's own goes first.
        let is_next = self.outgoing.is_empty();
        while is_next && !rest.is_empty() {
            match Pin::new(&mut self.tcp).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.outgoing.extend_from_slice(rest);
        Ok(plain.len())
    }
}

impl<T: fmt::Debug> fmt::Debug for TlsStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that was said, nor the keys.
        f.debug_struct("TlsStream").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

/// A client that has said who it is and what it wants, and waits for an answer.
pub struct Hello<T = TcpStream> {
    tcp: T,
    accepted: rustls::server::Accepted,
    /// All that it said.
    incoming: Vec<u8>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Hello<T> {
    /// Waits for a client's first message.
    ///
    /// # Errors
    /// If the connection broke, or it is no such message.
    pub async fn receive(mut tcp: T) -> io::Result<Self> {
        let (mut acceptor, mut incoming) = (Acceptor::default(), Vec::new());
        loop {
            let known = incoming.len();
            read_more(&mut tcp, &mut incoming, MAX_CLIENT_HANDSHAKE).await?;
            let mut more = incoming.get(known..).unwrap_or_default();
            while !more.is_empty() {
                acceptor.read_tls(&mut more)?;
                match acceptor.accept() {
                    Ok(Some(accepted)) => return Ok(Self { tcp, accepted, incoming }),
                    Ok(None) => {}
                    Err((error, mut alert)) => {
                        let mut said = Vec::new();
                        alert.write_all(&mut said)?;
                        // It is told why, if it is still there.
                        let _ = poll_fn(|cx| {
                            Poll::Ready(Pin::new(&mut tcp).poll_write(cx, &said).is_ready())
                        })
                        .await;
                        return Err(invalid(error));
                    }
                }
            }
        }
    }

    /// The client's hello.
    #[must_use]
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }

    /// The rest of the handshake.
    ///
    /// # Errors
    /// If the connection broke, or both sides have nothing in common.
    pub async fn answer(self, config: Arc<ServerConfig>) -> io::Result<TlsStream<T>> {
        let Self { tcp, accepted, incoming } = self;
        drop(accepted);
        TlsStream::new(tcp, Records::server(config).map_err(invalid)?, incoming)
            .handshake(MAX_CLIENT_HANDSHAKE)
            .await
    }
}

/// Reads on in a handshake, of which at most so many bytes are held.
async fn read_more(
    tcp: &mut (impl AsyncRead + Unpin),
    incoming: &mut Vec<u8>,
    most: usize,
) -> io::Result<()> {
    let known = incoming.len();
    if known >= most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long"));
    }
    // Exactly: while the peer says nothing, no room is held that it might never fill.
    incoming.reserve_exact(HANDSHAKE_READ);
    incoming.resize(known.saturating_add(HANDSHAKE_READ), 0);
    let read = poll_fn(|cx| {
        let mut room = ReadBuf::new(incoming.get_mut(known..).unwrap_or_default());
        let polled = Pin::new(&mut *tcp).poll_read(cx, &mut room);
        polled.map_ok(|()| room.filled().len())
    })
    .await?;
    incoming.truncate(known.saturating_add(read));
    if read == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"));
    }
    Ok(())
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Records that say nothing (tickets, new keys) end no wait.
        for _ in 0..MAX_SILENT_READS {
            // Bytes from before a fault, or before the end, come out first.
            if buf.remaining() == 0 || this.take_received(buf) {
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = &this.fault {
                return Poll::Ready(Err(invalid(rustls::Error::clone(fault))));
            }
            if this.peer_closed {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let received =
                SCRATCH_BUFFER.with_borrow_mut(|scratch| this.poll_receive(scratch, cx, buf));
            // rustls's own answers go out by the way; if not now, then with the next write.
            this.send_by_the_way(cx);
            if !ready!(received)? {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer hung up without close_notify",
                )));
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        // The thread has others to serve, too.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(fault) = &this.fault {
            return Poll::Ready(Err(invalid(rustls::Error::clone(fault))));
        }
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_sent(cx))?;
        Poll::Ready(SCRATCH_BUFFER.with_borrow_mut(|scratch| this.seal(scratch, cx, buf)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) && this.fault.is_none() {
            this.records.close(&mut this.incoming, &mut this.outgoing).map_err(invalid)?;
        }
        ready!(this.poll_sent(cx))?;
        match ready!(Pin::new(&mut this.tcp).poll_shutdown(cx)) {
            // The peer has gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
