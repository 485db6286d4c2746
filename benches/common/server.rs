//! A mail server that costs little: any login, messages of any size, thousands of sessions.
//!
//! A login as `u0@lab.test`, `u1@lab.test` … up to the number of accounts has an INBOX of equal messages that grows when
//! told to; all others share one in which nothing happens. The protocol of a session: `session.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::session::Session;

/// The server. It ends with the runtime.
pub(crate) struct LoadServer {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

/// State that all sessions share.
pub(super) struct Shared {
    pub(super) inboxes: Vec<Inbox>,
    /// Accounts with a session in IDLE.
    watched: AtomicUsize,
    /// When each connection was accepted.
    accepted: Mutex<Vec<Instant>>,
    /// Changes when all connections are to be cut.
    cuts: watch::Sender<u32>,
}

/// The INBOX of an account.
pub(super) struct Inbox {
    /// The number of messages.
    pub(super) messages: watch::Sender<u32>,
    /// The account's sessions in IDLE.
    idle: AtomicUsize,
}

impl Inbox {
    fn new() -> Self {
        Self { messages: watch::Sender::new(1), idle: AtomicUsize::new(0) }
    }
}

impl LoadServer {
    /// With so many accounts, on a port that is free.
    pub(crate) fn start(accounts: usize, tls: Option<TlsAcceptor>) -> Result<Self> {
        let shared = Arc::new(Shared {
            inboxes: (0..accounts).map(|_| Inbox::new()).collect(),
            watched: AtomicUsize::new(0),
            accepted: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let listener = listen(0)?;
        let port = listener.local_addr()?.port();
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                // Fails where the peer is gone already.
                let Ok((stream, _)) = listener.accept().await else { continue };
                // Connections count only if accounts do.
                if accounts > 0 {
                    accepting.accepted.lock().unwrap().push(Instant::now());
                }
                tokio::spawn(connection(stream, tls.clone(), Arc::clone(&accepting)));
            }
        });
        Ok(Self { port, shared })
    }

    /// The number of accounts that are watched, by one session or more.
    pub(crate) fn watched(&self) -> usize {
        self.shared.watched.load(Ordering::Relaxed)
    }

    /// A message comes for an account.
    pub(crate) fn deliver(&self, account: usize) {
        self.shared.inboxes[account].messages.send_modify(|messages| *messages += 1);
    }

    /// Resets all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The most connections that were accepted within one second since this was last asked, and how many in all.
    pub(crate) fn take_peak(&self) -> (usize, usize) {
        let accepted = std::mem::take(&mut *self.shared.accepted.lock().unwrap());
        let within_a_second = |(index, first): (usize, &Instant)| {
            accepted[index..].partition_point(|at| *at < *first + Duration::from_secs(1))
        };
        (accepted.iter().enumerate().map(within_a_second).max().unwrap_or(0), accepted.len())
    }
}

/// A listener on loopback. All may come at once: how many are let in is somebody else's decision, not the kernel's.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(i32::from(u16::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into())?)
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    // Fails only on a connection that is gone.
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    let session = async {
        // A peer that is gone, in whatever manner, is the end.
        match tls {
            Some(tls) => Session::new(tls.accept(tcp).await?, &shared).run().await,
            None => Session::new(tcp, &shared).run().await,
        }
    };
    tokio::select! {
        _ = session => {}
        _ = cuts.changed() => {}
    }
}

/// Counts an account's session as one in IDLE for as long as it lives.
pub(super) struct Idle<'a> {
    inbox: &'a Inbox,
    watched: &'a AtomicUsize,
}

impl<'a> Idle<'a> {
    pub(super) fn new(shared: &'a Shared, account: usize) -> Self {
        let (inbox, watched) = (&shared.inboxes[account], &shared.watched);
        if inbox.idle.fetch_add(1, Ordering::SeqCst) == 0 {
            watched.fetch_add(1, Ordering::SeqCst);
        }
        Self { inbox, watched }
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        if self.inbox.idle.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.watched.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
