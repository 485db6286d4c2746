//! A network of our own between two programs: a TCP relay on loopback that delays, throttles, cuts, and loses.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::ports::ReservedPort;

/// Treatment of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// All passes.
    Clear,
    /// All passes, so much later.
    Delayed(Duration),
    /// All passes, so many bytes in a second.
    Throttled(u32),
    /// Nothing passes, and nobody is told. Bytes sent meanwhile arrive when it is over.
    BlackHole,
    /// The server's end is closed, the other one is not told, as after a crash or behind a NAT that forgot. Never over.
    HalfOpen,
    /// Both ends are closed in good order, perhaps in the middle of a line.
    Closed,
    /// Both ends are reset.
    Reset,
}

impl Manner {
    fn passes(self) -> bool {
        matches!(self, Self::Clear | Self::Delayed(_) | Self::Throttled(_))
    }
}

/// The relay. It ends with the test's runtime.
pub(crate) struct Network {
    /// Port in place of the server's.
    pub(crate) port: u16,
    shared: Arc<Shared>,
    reachable: watch::Sender<bool>,
}

struct Shared {
    server: AtomicU16,
    /// Treatment of the next connections.
    manner: Mutex<Manner>,
    connections: Mutex<Vec<watch::Sender<Manner>>>,
}

impl Network {
    /// A network in front of what listens on `server`.
    pub(crate) async fn start(server: u16) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, Arc::new(ReservedPort::new()), server).await
    }

    /// The same at another address of loopback, on a port that is reserved: networks of several clients have one name and port in
    /// common.
    pub(crate) async fn start_at(address: Ipv4Addr, port: Arc<ReservedPort>, server: u16) -> Self {
        let shared = Arc::new(Shared {
            server: AtomicU16::new(server),
            manner: Mutex::new(Manner::Clear),
            connections: Mutex::default(),
        });
        let (reachable, receiver) = watch::channel(true);
        let number = port.number();
        let listener = TcpListener::bind((address, number)).await.unwrap();
        tokio::spawn(listen(listener, (address, port), Arc::clone(&shared), receiver));
        Self { port: number, shared, reachable }
    }

    /// The next connections lead to another server.
    pub(crate) fn lead_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::SeqCst);
    }

    /// Treats all connections like this, those to come, too.
    pub(crate) fn all(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
        self.shared.treat(manner, |_| true);
    }

    /// Treats the present connections like this.
    pub(crate) fn present(&self, manner: Manner) {
        self.shared.treat(manner, |_| true);
    }

    /// Treats about `percent` of the present connections like this.
    pub(crate) fn some(&self, percent: u32, manner: Manner, rng: &mut Rng) {
        self.shared.treat(manner, |_| rng.u32(0..100) < percent);
    }

    /// Starts or stops accepting new connections.
    pub(crate) fn reachable(&self, reachable: bool) {
        self.reachable.send_replace(reachable);
    }

    /// All is well again, except for what is half-open: nothing will ever tell of that.
    pub(crate) fn heal(&self) {
        self.reachable(true);
        *self.shared.manner.lock().unwrap() = Manner::Clear;
        self.shared.treat(Manner::Clear, |manner| manner != Manner::HalfOpen);
    }

    /// Tells the ends that are left of half-open connections, as a rebooted host does when it is talked to.
    pub(crate) fn reset_half_open(&self) {
        self.shared.treat(Manner::Reset, |manner| manner == Manner::HalfOpen);
    }
}

impl Shared {
    fn treat(&self, manner: Manner, mut which: impl FnMut(Manner) -> bool) {
        let mut connections = self.connections.lock().unwrap();
        connections.retain(|connection| !connection.is_closed());
        for connection in connections.iter() {
            if which(*connection.borrow()) {
                connection.send_replace(manner);
            }
        }
    }
}

async fn listen(
    mut listener: TcpListener,
    (address, port): (Ipv4Addr, Arc<ReservedPort>),
    shared: Arc<Shared>,
    mut reachable: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => Some(accepted),
            gone = reachable.wait_for(|reachable| !reachable) => {
                if gone.is_err() {
                    return;
                }
                None
            }
        };
        match accepted {
            Some(Ok((client, _))) => {
                let (sender, manner) = watch::channel(*shared.manner.lock().unwrap());
                shared.connections.lock().unwrap().push(sender);
                let server = shared.server.load(Ordering::SeqCst);
                tokio::spawn(connection(client, server, manner));
            }
            Some(Err(_)) => sleep(Duration::from_millis(10)).await,
            None => {
                drop(listener);
                // Fails if the network is there no more.
                if reachable.wait_for(|reachable| *reachable).await.is_err() {
                    return;
                }
                listener = TcpListener::bind((address, port.number())).await.unwrap();
            }
        }
    }
}

async fn connection(mut client: TcpStream, server: u16, mut manner: watch::Receiver<Manner>) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return reset(client);
    };
    // A failure here means a lost peer: the relay fails too.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let broken = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let (up, down) = (manner.clone(), manner.clone());
        let relayed = async {
            tokio::try_join!(
                pump(&mut from_client, &mut to_server, up),
                pump(&mut from_server, &mut to_client, down)
            )
        };
        tokio::select! {
            _ = relayed => None,
            broken = manner.wait_for(|manner| !manner.passes() && *manner != Manner::BlackHole) => broken.ok().map(|broken| *broken),
        }
    };
    match broken {
        Some(Manner::Reset) => {
            reset(client);
            reset(server);
        }
        Some(Manner::HalfOpen) => {
            reset(server);
            // Nothing is read, so that not even the end of the other side is noticed.
            if manner.wait_for(|manner| *manner == Manner::Reset).await.is_ok() {
                reset(client);
            }
        }
        _ => {
            let _ = client.shutdown().await;
            let _ = server.shutdown().await;
        }
    }
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut manner: watch::Receiver<Manner>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let gone = |_| io::Error::from(io::ErrorKind::NotConnected);
        manner.wait_for(|manner| manner.passes()).await.map_err(gone)?;
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            _ = manner.changed() => continue,
        };
        let current = *manner.borrow();
        match current {
            Manner::Delayed(delay) => sleep(delay).await,
            Manner::Throttled(rate) => {
                sleep(Duration::from_secs(1) * u32::try_from(count).unwrap() / rate).await
            }
            _ => {}
        }
        manner.wait_for(|manner| manner.passes()).await.map_err(gone)?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

fn reset(stream: TcpStream) {
    // Fails only if the connection is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

mod tests {
    use super::super::client::Client;
    use super::*;

    /// A server that says back every line, and its network.
    async fn echo() -> (Network, Client) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let network = Network::start(listener.local_addr().unwrap().port()).await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let mut client = Client::plain(network.port).await;
        client.send("one").await;
        client.expect("one").await;
        (network, client)
    }

    #[tokio::test]
    async fn black_hole_holds_everything_back_until_it_is_over() {
        let (network, mut client) = echo().await;
        network.all(Manner::BlackHole);
        client.send("two").await;
        client.expect_silence(Duration::from_millis(300)).await;
        let mut later = Client::plain(network.port).await;
        later.send("three").await;
        later.expect_silence(Duration::from_millis(300)).await;
        network.heal();
        client.expect("two").await;
        later.expect("three").await;
    }

    #[tokio::test]
    async fn half_open_connection_stays_silent_for_good() {
        let (network, mut client) = echo().await;
        network.present(Manner::HalfOpen);
        network.heal();
        client.send("two").await;
        client.expect_silence(Duration::from_millis(300)).await;
        network.reset_half_open();
        assert_eq!(client.expect_eof().await, "");
    }

    #[tokio::test]
    async fn cuts_end_connections_and_refusals_prevent_them() {
        for manner in [Manner::Closed, Manner::Reset] {
            let (network, mut client) = echo().await;
            network.present(manner);
            assert_eq!(client.expect_eof().await, "");
            network.reachable(false);
            let refused = async {
                while TcpStream::connect((Ipv4Addr::LOCALHOST, network.port)).await.is_ok() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(40), refused)
                .await
                .expect("nobody listens any more");
            network.heal();
            let reached = async {
                while TcpStream::connect((Ipv4Addr::LOCALHOST, network.port)).await.is_err() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(40), reached).await.expect("it listens again");
        }
    }

    #[tokio::test]
    async fn delays_and_throttles_take_their_time() {
        for manner in [Manner::Delayed(Duration::from_millis(200)), Manner::Throttled(20)] {
            let (network, mut client) = echo().await;
            network.all(manner);
            let sent = tokio::time::Instant::now();
            client.send("two").await;
            client.expect("two").await;
            assert!(
                sent.elapsed() >= Duration::from_millis(200),
                "{manner:?}: {:?}",
                sent.elapsed()
            );
        }
    }
}
