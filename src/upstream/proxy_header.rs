//! The PROXY protocol toward an upstream: the header that says, before anything else, who is behind the connection
//! (HAProxy, The PROXY protocol, versions 1 and 2).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::originating::ClientOrigin;
use crate::config::ProxyProtocol;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 with the commands LOCAL and PROXY.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// TCP over IPv4 and IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection on behalf of `origin`, or of deltapush itself.
pub(super) fn header(version: ProxyProtocol, origin: Option<&ClientOrigin>) -> Vec<u8> {
    let ends = origin.map(|origin| same_family(origin.client, origin.connected));
    match version {
        ProxyProtocol::V1 => match ends {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((client, connected)) => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (client.ip(), connected.ip());
                format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), connected.port())
                    .into_bytes()
            }
        },
        ProxyProtocol::V2 => binary(ends),
    }
}

fn binary(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((client, connected)) = ends else {
        header.extend_from_slice(&[LOCAL, 0, 0, 0]);
        return header;
    };
    match (client.ip(), connected.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[PROXY, TCP4, 0, 12]);
            header.extend([from.octets(), to.octets()].concat());
        }
        (from, to) => {
            header.extend_from_slice(&[PROXY, TCP6, 0, 36]);
            header.extend([six(from).octets(), six(to).octets()].concat());
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&connected.port().to_be_bytes());
    header
}

/// Both as IPv4 if both are, otherwise both as IPv6.
fn same_family(client: SocketAddr, connected: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (client, connected) = (canonical(client), canonical(connected));
    if client.is_ipv4() && connected.is_ipv4() {
        return (client, connected);
    }
    let as_six = |end: SocketAddr| SocketAddr::new(six(end.ip()).into(), end.port());
    (as_six(client), as_six(connected))
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(client: &str, connected: &str) -> ClientOrigin {
        ClientOrigin { client: client.parse().unwrap(), connected: connected.parse().unwrap() }
    }

    #[test]
    fn version_1_is_a_line() {
        let said = |client, connected| {
            String::from_utf8(header(ProxyProtocol::V1, Some(&origin(client, connected)))).unwrap()
        };
        assert_eq!(
            said("192.0.2.1:5000", "198.51.100.1:993"),
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 993\r\n"
        );
        assert_eq!(
            said("[::ffff:192.0.2.1]:5000", "198.51.100.1:993"),
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 993\r\n"
        );
        assert_eq!(
            said("[2001:db8::1]:5000", "[2001:db8::2]:993"),
            "PROXY TCP6 2001:db8::1 2001:db8::2 5000 993\r\n"
        );
        assert_eq!(
            said("[2001:db8::1]:5000", "192.0.2.1:993"),
            "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 5000 993\r\n"
        );
        assert_eq!(header(ProxyProtocol::V1, None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_binary() {
        let said = |client, connected| header(ProxyProtocol::V2, Some(&origin(client, connected)));
        let rest = b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\x13\x88\x03\xe1";
        assert_eq!(
            said("192.0.2.1:5000", "198.51.100.1:993"),
            [SIGNATURE.as_slice(), rest].concat()
        );
        let six = said("[2001:db8::1]:5000", "[2001:db8::2]:993");
        assert_eq!((six.len(), &six[12..16]), (16 + 36, b"\x21\x21\x00\x24".as_slice()));
        assert_eq!(header(ProxyProtocol::V2, None), [SIGNATURE.as_slice(), b"\x20\0\0\0"].concat());
    }
}
