//! Accepted connections, and errors of `accept`, by cause. accept(2) reports errors of a connection that waited, which concern no other
//! connection. Without a free file descriptor every call fails at once, and the loop has to wait.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

/// The pause after an error that the next call would meet again.
const PAUSE: Duration = Duration::from_millis(200);

/// The time between two log lines about errors that last.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Errors that end one waiting connection and leave the listener as it was (accept(2), "Error handling"; EPERM is a firewall's).
const OF_ONE_CONNECTION: [Errno; 13] = [
    Errno::CONNABORTED,
    Errno::CONNRESET,
    Errno::HOSTDOWN,
    Errno::HOSTUNREACH,
    Errno::INTR,
    Errno::NETDOWN,
    Errno::NETUNREACH,
    Errno::NONET,
    Errno::NOPROTOOPT,
    Errno::OPNOTSUPP,
    Errno::PERM,
    Errno::PROTO,
    Errno::TIMEDOUT,
];

/// Accepts the next connection. The peer's address is [canonical](canonical).
///
/// # Errors
/// Those of accept(2).
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (tcp, peer) = listener.accept().await?;
    Ok((tcp, canonical(peer)))
}

/// The address that people know. A socket of both families calls an IPv4 address `::ffff:203.0.113.3` (RFC 4291 section 2.5.5.2).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(six) if six.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        _ => address,
    }
}

/// Failed calls of one listener.
#[derive(Debug, Default)]
pub(crate) struct AcceptFailures {
    logged: Option<Instant>,
}

/// The reaction to a failed call.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    /// Accept the next connection at once.
    GoOn,
    /// Wait first, with a line in the log or without.
    Pause { log: bool },
}

impl AcceptFailures {
    /// Handles an error of the listener called `listener`: returns when the next connection may be accepted.
    pub(crate) async fn handle(&mut self, error: &io::Error, listener: &str) {
        match self.react(error, Instant::now()) {
            Reaction::GoOn => {
                debug!("a connection to {listener} was lost before it was accepted: {error}")
            }
            Reaction::Pause { log } => {
                if log {
                    warn!("{listener} cannot accept connections: {error}{}", cure(error));
                }
                sleep(PAUSE).await;
            }
        }
    }

    fn react(&mut self, error: &io::Error, now: Instant) -> Reaction {
        if Errno::from_io_error(error).is_some_and(|errno| OF_ONE_CONNECTION.contains(&errno)) {
            return Reaction::GoOn;
        }
        let log =
            self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_INTERVAL);
        if log {
            self.logged = Some(now);
        }
        Reaction::Pause { log }
    }
}

fn cure(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "; raise the limit on open files (systemd: LimitNOFILE=) or lower limits.connections"
        }
        Some(Errno::NFILE) => "; raise the system's limit on open files (sysctl fs.file-max)",
        Some(Errno::NOBUFS | Errno::NOMEM) => "; this machine has too little free memory",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_one_connection_do_not_pause_the_listener() {
        let (mut failures, start) = (AcceptFailures::default(), Instant::now());
        for errno in OF_ONE_CONNECTION {
            failures.handle(&error(errno), "a listener").await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(failures.logged, None);
    }

    #[tokio::test(start_paused = true)]
    async fn lasting_errors_pause_the_listener_with_one_line_a_minute() {
        let mut failures = AcceptFailures::default();
        let (mut lines, start) = (0, Instant::now());
        for errno in
            [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].into_iter().cycle().take(900)
        {
            let before = failures.logged;
            failures.handle(&error(errno), "a listener").await;
            lines += u32::from(failures.logged != before);
        }
        assert_eq!((start.elapsed(), lines), (900 * PAUSE, 3));
    }

    #[test]
    fn limit_on_open_files_has_a_cure() {
        assert!(cure(&error(Errno::MFILE)).contains("LimitNOFILE"));
    }
}
