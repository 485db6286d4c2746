//! A connection to either peer, with TLS or without.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod records;
mod tls;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

pub use tls::{Hello, TlsStream};

/// Bytes of one read: four TLS records of full size.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Lends out the thread's read buffer: an idle connection owns none.
pub fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}

/// Bytes that cost a task one unit of the runtime's budget, of which it has 128 in a turn: 256 KiB, and others run. The runtime
/// itself counts reads, whatever they bring.
const BYTES_PER_UNIT: usize = 2048;

/// Waits for more from `stream` and appends it to `received`; 0 at the stream's end. Nothing is lost if the future is dropped
/// while it waits. The thread's buffer, which lives on, keeps no copy: it may have been a password.
///
/// # Errors
/// If the connection broke.
pub async fn receive(stream: &mut Stream, received: &mut Vec<u8>) -> io::Result<usize> {
    receive_some(stream, received, SCRATCH).await
}

/// The same, of at most so many bytes at once.
///
/// # Errors
/// If the connection broke.
pub async fn receive_some(
    stream: &mut Stream,
    received: &mut Vec<u8>,
    most: usize,
) -> io::Result<usize> {
    poll_fn(|cx| {
        with_scratch(|scratch| {
            let room = scratch.len().min(most);
            let mut buffer = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
            let polled = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            let read = buffer.filled().len();
            received.extend_from_slice(buffer.filled());
            buffer.filled_mut().fill(0);
            spend(cx, read / BYTES_PER_UNIT);
            polled.map_ok(|()| read)
        })
    })
    .await
}

/// Takes so much of the task's budget, or what is left of it: then its next read gives way to other tasks.
fn spend(cx: &mut Context<'_>, units: usize) {
    for _ in 0..units {
        let Poll::Ready(unit) = coop::poll_proceed(cx) else { return };
        unit.made_progress();
    }
}

/// A TCP connection, perhaps with TLS on it.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS. Boxed: the state of a TLS connection is large, and a stream is moved about.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Forgets what TLS has decrypted and handed over, of which there may be a copy where it was gathered: it may be a password.
    pub fn forget_what_was_read(&mut self) {
        if let Self::Tls(tls) = self {
            tls.forget_what_was_read();
        }
    }
}

/// When the first keepalive probe is sent on a silent connection, and how long after it the next.
const KEEPALIVE_TIME: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Time that sent data may stay unacknowledged before the connection counts as dead (RFC 5482).
///
/// More than the time of the first keepalive and of some after it: from this time on Linux gives up at the first probe that
/// is not answered, and one may get lost.
const USER_TIMEOUT: Duration = Duration::from_secs(240);

/// Sets on a new connection what all connections here have: small messages are sent at once, and a peer that has vanished
/// is found although nothing is said.
///
/// # Errors
/// If the operating system refuses an option.
pub fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(tcp);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

impl From<TlsStream> for Stream {
    fn from(stream: TlsStream) -> Self {
        Self::Tls(Box::new(stream))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn read_of_many_bytes_ends_a_turn_sooner_than_one_of_few() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, near) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut far, mut near) = (far.unwrap(), Stream::Plain(near.unwrap().0));
        let mut received = Vec::new();
        for (bytes, has_left) in [(1024, true), (16 * 1024, false)] {
            far.write_all(&vec![b'x'; bytes]).await.unwrap();
            let Stream::Plain(tcp) = &near else { unreachable!() };
            while tcp.peek(&mut vec![0; bytes]).await.unwrap() < bytes {}
            // The budget of a new turn.
            tokio::task::yield_now().await;
            let mut reading = Box::pin(receive(&mut near, &mut received));
            let left = poll_fn(|cx| {
                spend(cx, 123);
                let read = reading.as_mut().poll(cx);
                assert!(matches!(read, Poll::Ready(Ok(read)) if read == bytes), "{read:?}");
                Poll::Ready(coop::has_budget_remaining())
            });
            assert_eq!(left.await, has_left, "{bytes} bytes");
        }
    }
}
