//! Loopback ports for programs that are told their port before they start.
//!
//! A listener of this process is opened on port 0. Programs that are started cannot be: deltapush and Dovecot are started
//! again on the same port, and Cyrus, Courier, Pebble and the proxies do not tell which port they got.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// A port that the kernel keeps for this process until it is dropped.
///
/// The kernel chooses it and gives it to nobody else: neither to an outgoing connection nor to another listener on port 0,
/// of this process or of another. A server that sets `SO_REUSEADDR`, as all of them do, can open it by its number, as long
/// as this socket does not listen itself (Linux: `inet_csk_bind_conflict`). While no server runs, connections are refused.
pub(crate) struct ReservedPort {
    number: u16,
    _held: Socket,
}

impl ReservedPort {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        // Only now: set before, it would let the kernel choose a port that another test holds like this.
        socket.set_reuse_address(true).unwrap();
        let number = socket.local_addr().unwrap().as_socket().unwrap().port();
        Self { number, _held: socket }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// Waits until something accepts connections on a loopback port.
pub(crate) fn wait_for_port(port: u16, timeout: Duration) -> bool {
    wait_for_address((Ipv4Addr::LOCALHOST, port).into(), timeout)
}

/// Waits until something accepts connections at an address.
pub(crate) fn wait_for_address(address: SocketAddr, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
