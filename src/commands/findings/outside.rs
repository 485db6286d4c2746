//! Connections to the own listeners as a client makes them: to the addresses of the host name, with TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use super::name::NameFacts;
use crate::config::{Listener, ListenerTls, LiveConfig};
use crate::tls::inspect;

/// Time limit of one connection with its handshake.
const TIME: Duration = Duration::from_secs(8);

/// The longest line before STARTTLS.
const MAX_LINE: u64 = 8 * 1024;

/// A connection to a listener.
#[derive(Debug)]
pub(in super::super) struct Visit {
    /// The address of the listener in the configuration.
    pub(in super::super) listener: SocketAddr,
    pub(in super::super) tls: ListenerTls,
    /// `allow.networks` may refuse this machine.
    pub(in super::super) is_restricted: bool,
    /// The address that was tried.
    pub(in super::super) target: SocketAddr,
    pub(in super::super) result: VisitResult,
}

/// The result of a connection.
#[derive(Debug)]
pub(in super::super) enum VisitResult {
    /// It answers, with this certificate chain; without TLS, and behind a PROXY header, with an empty one.
    Answers(Vec<CertificateDer<'static>>),
    /// Nothing answers.
    Unreachable(io::Error),
    /// Something answers, without TLS.
    NoTls(io::Error),
}

impl Visit {
    /// The chain, if the listener has TLS and showed it.
    pub(in super::super) fn chain(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.result {
            VisitResult::Answers(chain) if !chain.is_empty() => Some(chain),
            _ => None,
        }
    }
}

/// Connects to all listeners, each at all addresses by which clients reach it, at once.
pub(in super::super) async fn visit(config: &LiveConfig, name: &NameFacts) -> Vec<Visit> {
    let host = ServerName::try_from(config.hostname.as_str().to_owned());
    // An address instead of a name is shown no certificate by name.
    let host =
        host.unwrap_or_else(|_| ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into()));
    let visits = config.listeners.iter().flat_map(|listener| {
        let host = host.clone();
        targets(*listener.address, name)
            .into_iter()
            .map(move |target| visit_one(config, listener, target, host.clone()))
    });
    join_all(visits).await
}

/// The addresses at which clients reach a listener: those of the host name, or the only one that it has.
fn targets(listener: SocketAddr, name: &NameFacts) -> Vec<SocketAddr> {
    let ip = listener.ip().to_canonical();
    let addresses = match ip {
        // A listener on `0.0.0.0` has no IPv6.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            name.addresses().iter().copied().filter(IpAddr::is_ipv4).collect()
        }
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => name.addresses().to_vec(),
        one => vec![one],
    };
    let here: IpAddr =
        if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let addresses: Vec<IpAddr> = if addresses.is_empty() { vec![here] } else { addresses };
    addresses.into_iter().map(|address| SocketAddr::new(address, listener.port())).collect()
}

async fn visit_one(
    config: &LiveConfig,
    listener: &Listener,
    target: SocketAddr,
    host: ServerName<'static>,
) -> Visit {
    let is_announced = !listener.proxy_protocol.is_empty();
    let tls = if is_announced { ListenerTls::None } else { listener.tls };
    let result = match timeout(TIME, Box::pin(connect(target, tls, host))).await {
        Ok(result) => result,
        Err(_) => VisitResult::Unreachable(io::ErrorKind::TimedOut.into()),
    };
    let is_restricted =
        [&config.allow, &listener.allow].iter().any(|allow| allow.networks.is_some());
    Visit { listener: *listener.address, tls: listener.tls, is_restricted, target, result }
}

async fn connect(target: SocketAddr, tls: ListenerTls, host: ServerName<'static>) -> VisitResult {
    let mut stream = match TcpStream::connect(target).await {
        Ok(stream) => stream,
        Err(error) => return VisitResult::Unreachable(error),
    };
    match tls {
        ListenerTls::None => return VisitResult::Answers(vec![]),
        ListenerTls::StartTls => {
            if let Err(error) = start_tls(&mut stream).await {
                return VisitResult::NoTls(error);
            }
        }
        ListenerTls::Implicit => {}
    }
    match inspect::shown_chain(stream, host).await {
        Ok(chain) => VisitResult::Answers(chain),
        Err(error) => VisitResult::NoTls(error),
    }
}

/// The greeting, and STARTTLS (RFC 9051 section 6.2.1).
async fn start_tls(stream: &mut TcpStream) -> io::Result<()> {
    read_line(stream).await?;
    stream.write_all(b"d1 STARTTLS\r\n").await?;
    let answer = read_line(stream).await?;
    if answer.starts_with(b"d1 OK") { Ok(()) } else { Err(io::Error::other("it refuses STARTTLS")) }
}

/// A line, byte by byte: nothing behind it is taken.
async fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut limited = stream.take(MAX_LINE);
    while !line.ends_with(b"\n") {
        line.push(limited.read_u8().await?);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Hostname;

    #[test]
    fn clients_come_by_the_addresses_of_the_name() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let facts = |addresses: &[&str]| NameFacts {
            hostname: Hostname::new("push.example.org").unwrap(),
            addresses: Ok(addresses.iter().map(|text| parse(text)).collect()),
            own: vec![],
            machine: vec![],
        };
        let both = facts(&["9.9.9.9", "2620:fe::fe"]);
        let shown = |listener: &str, facts: &NameFacts| {
            let targets = targets(listener.parse().unwrap(), facts);
            targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("[::]:993", &both), "9.9.9.9:993 [2620:fe::fe]:993");
        assert_eq!(shown("0.0.0.0:993", &both), "9.9.9.9:993");
        assert_eq!(shown("127.0.0.1:143", &both), "127.0.0.1:143");
        assert_eq!(shown("[::]:993", &facts(&[])), "[::1]:993");
    }
}
