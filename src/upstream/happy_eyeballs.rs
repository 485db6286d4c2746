//! TCP to a host with several addresses: happy eyeballs (RFC 8305).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;
/// Time of one attempt before the next begins in parallel (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Time limit of one attempt.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// The order in which addresses are tried: the families take turns, IPv6 first (RFC 8305 section 4).
pub(super) fn interleaved(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().copied().partition(IpAddr::is_ipv6);
    let longer = six.len().max(four.len());
    let mut order: Vec<SocketAddr> = Vec::new();
    for index in 0..longer {
        for address in [six.get(index), four.get(index)].into_iter().flatten() {
            let address = SocketAddr::new(*address, port);
            if !order.contains(&address) {
                order.push(address);
            }
        }
    }
    order.truncate(MAX_ADDRESSES);
    order
}

/// Connects to the first of `candidates` that lets itself be connected to; the other attempts are given up. Addresses left
/// in `candidates` have not failed, and may be tried if this connection is of no use.
pub(super) async fn race(candidates: &mut Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = std::mem::take(candidates).into_iter();
    let mut under_way = Vec::new();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.next() {
            under_way.push(address);
            attempts.push(async move { (address, connect(address).await) });
        }
        let ended = tokio::select! {
            ended = attempts.next() => ended,
            () = sleep(ATTEMPT_DELAY), if !waiting.as_slice().is_empty() => continue,
        };
        match ended {
            None => return Err(last_error),
            Some((address, Ok(tcp))) => {
                under_way.retain(|other| *other != address);
                *candidates = under_way.into_iter().chain(waiting).collect();
                return Ok(tcp);
            }
            Some((address, Err(error))) => {
                under_way.retain(|other| *other != address);
                last_error = error;
            }
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(CONNECT_TIME, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn families_take_turns_and_their_number_is_bounded() {
        let addresses: Vec<IpAddr> =
            ["1.0.0.1", "1.0.0.2", "1.0.0.1", "2600::1", "2600::2", "2600::3"]
                .map(|text| text.parse().unwrap())
                .into();
        let order: Vec<_> =
            interleaved(&addresses, 993).iter().map(|address| address.ip().to_string()).collect();
        assert_eq!(order, ["2600::1", "1.0.0.1", "2600::2", "1.0.0.2", "2600::3"]);
        let many: Vec<_> = (0..100).map(|last| Ipv4Addr::new(1, 0, 0, last).into()).collect();
        assert_eq!(interleaved(&many, 1).len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn refused_address_costs_no_time_and_is_not_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let on = |last| SocketAddr::from(([127, 0, 0, last], open.port()));
        let mut candidates: Vec<_> = (2..122).map(on).chain([open, on(200)]).collect();
        let began = std::time::Instant::now();
        let tcp = race(&mut candidates).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), open);
        // 120 of them would cost half a minute.
        assert!(began.elapsed() < 40 * ATTEMPT_DELAY, "{:?}", began.elapsed());
        assert_eq!(candidates, [on(200)]);
        assert!(race(&mut candidates).await.is_err() && candidates.is_empty());
        assert!(race(&mut Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn silent_address_delays_by_a_quarter_of_a_second() {
        // A full backlog drops what comes: Linux answers no further SYN.
        let silent =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let silent = std::net::TcpListener::from(silent);
        let blackhole = silent.local_addr().unwrap();
        let mut full = Vec::new();
        for _ in 0..4 {
            let filling = tokio::spawn(TcpStream::connect(blackhole));
            sleep(Duration::from_millis(20)).await;
            full.push(filling);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let began = std::time::Instant::now();
        let mut candidates = vec![blackhole, listener.local_addr().unwrap()];
        let tcp = race(&mut candidates).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(began.elapsed() >= ATTEMPT_DELAY, "{:?}", began.elapsed());
        assert_eq!(candidates, [blackhole]);
        full.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
