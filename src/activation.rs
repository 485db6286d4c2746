//! Sockets that are there before deltapush is: passed on by systemd (`LISTEN_FDS`), so that a restart refuses no connection.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use tracing::warn;

/// The sockets that were passed on.
#[derive(Debug, Default)]
pub struct Sockets(Vec<(SocketAddr, TcpListener)>);

impl Sockets {
    /// Takes the sockets that the environment names, if it is meant for this process. Any that is no listening TCP socket is
    /// logged and left.
    #[must_use]
    pub fn from_env() -> Self {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let taken = passed.take_tcp_listener(index).ok().flatten();
            match taken.and_then(|socket| Some((socket.local_addr().ok()?, socket))) {
                Some(found) => sockets.push(found),
                None => warn!(
                    "socket {index} of those that systemd passed on is no TCP socket that listens"
                ),
            }
        }
        Self(sockets)
    }

    /// The one for `address`, if it is among them; each is given once.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index = self.0.iter().position(|(own, _)| *own == address)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Tells of those that no listener of the configuration has taken; they are closed.
    pub fn finish(self) {
        for (address, _) in self.0 {
            warn!(
                "systemd passed on a socket for {address}, but no listener of the configuration has that address"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_goes_to_the_listener_of_its_address() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut sockets = Sockets(vec![(address, socket)]);
        assert!(sockets.take("127.0.0.1:1".parse().unwrap()).is_none());
        assert_eq!(sockets.take(address).unwrap().local_addr().unwrap(), address);
        assert!(sockets.take(address).is_none());
    }
}
