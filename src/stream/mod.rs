//! A connection to either peer, with TLS or without.

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

pub use tls::{Hello, TlsStream};

/// How much is read at once: four TLS records of full size.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Lends out the thread's read buffer: an idle connection owns none.
pub fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}

/// Waits for more from `stream` and appends it to `received`; 0 at the stream's end. Nothing is lost if the future is dropped
/// while it waits. The thread's buffer, which lives on, keeps no copy: it may have been a password.
///
/// # Errors
/// If the connection broke.
pub async fn receive(stream: &mut Stream, received: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let polled = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            let read = buffer.filled().len();
            received.extend_from_slice(buffer.filled());
            buffer.filled_mut().fill(0);
            polled.map_ok(|()| read)
        })
    })
    .await
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

/// How long sent data may stay unacknowledged before the connection counts as dead (RFC 5482).
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
    socket
        .set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL))?;
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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
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
