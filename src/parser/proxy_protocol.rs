//! The header that a load balancer puts before a connection to say whose it is: PROXY protocol v1 and v2
//! (HAProxy's proxy-protocol.txt). A machine that says how many bytes it wants, so that none is taken from what follows.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The beginning of every v2 header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The shortest header: `PROXY UNKNOWN` and CRLF. Both versions can be told apart by less.
const SHORTEST: usize = 15;

/// The longest v1 header, with CRLF.
const LONGEST_V1: usize = 107;

/// The fixed part of a v2 header.
const FIXED_V2: usize = 16;

/// The most that may follow it: addresses have 36 bytes at most, and nothing else in it is read.
const LONGEST_V2: usize = 2048;

/// The source of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxiedSource {
    /// A client's.
    Client(SocketAddr),
    /// The sender's own (v2 LOCAL), or unknown: the address of the connection counts.
    Sender,
}

/// The next step of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeaderStep {
    /// So many bytes, neither more nor fewer.
    Want(usize),
    /// Nothing: this is whose connection it is.
    Done(ProxiedSource),
}

/// Why it is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It does not begin like one.
    #[error("the connection does not begin with a PROXY protocol header")]
    NotOne,
    /// It begins like one and goes wrong.
    #[error("the PROXY protocol header is wrong")]
    Wrong,
    /// It is longer than any.
    #[error("the PROXY protocol header is too long")]
    TooLong,
}

/// The header so far.
#[derive(Debug, Default)]
pub struct Header {
    held: Vec<u8>,
}

impl Header {
    /// The number of bytes that the first step needs.
    pub const FIRST: usize = SHORTEST;

    /// Takes as many bytes as were wanted.
    ///
    /// # Errors
    /// [`HeaderError`] if it is none.
    pub fn take(&mut self, bytes: &[u8]) -> Result<ProxyHeaderStep, HeaderError> {
        self.held.extend_from_slice(bytes);
        if self.held.starts_with(&SIGNATURE) {
            self.binary()
        } else if self.held.starts_with(b"PROXY ") {
            self.text()
        } else {
            Err(HeaderError::NotOne)
        }
    }

    fn text(&self) -> Result<ProxyHeaderStep, HeaderError> {
        let Some(line) = self.held.strip_suffix(b"\r\n") else {
            let ended = self.held.last() == Some(&b'\n');
            return match self.held.len() {
                _ if ended => Err(HeaderError::Wrong),
                LONGEST_V1.. => Err(HeaderError::TooLong),
                // Bytes after the line's end are not the header's: no more than CRLF is certain to come, of it LF alone
                // after a CR.
                len => {
                    let certain = if self.held.ends_with(b"\r") { 1 } else { 2 };
                    Ok(ProxyHeaderStep::Want(LONGEST_V1.saturating_sub(len).min(certain)))
                }
            };
        };
        let line = str::from_utf8(line).map_err(|_| HeaderError::Wrong)?;
        source_of(line).map(ProxyHeaderStep::Done).ok_or(HeaderError::Wrong)
    }

    fn binary(&self) -> Result<ProxyHeaderStep, HeaderError> {
        let Some((fixed, rest)) = self.held.split_first_chunk::<FIXED_V2>() else {
            return Ok(ProxyHeaderStep::Want(FIXED_V2.saturating_sub(self.held.len())));
        };
        let [.., version_and_command, family, high, low] = *fixed;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > LONGEST_V2 {
            return Err(HeaderError::TooLong);
        }
        if rest.len() < length {
            return Ok(ProxyHeaderStep::Want(length.saturating_sub(rest.len())));
        }
        match version_and_command {
            0x20 => Ok(ProxyHeaderStep::Done(ProxiedSource::Sender)),
            0x21 => addresses(family, rest).map(ProxyHeaderStep::Done).ok_or(HeaderError::Wrong),
            _ => Err(HeaderError::Wrong),
        }
    }
}

fn source_of(line: &str) -> Option<ProxiedSource> {
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The rest of the line is to be ignored.
        return Some(ProxiedSource::Sender);
    }
    let mut address = || words.next()?.parse::<IpAddr>().ok();
    let (source, target) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit())
            && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| plain)
    };
    let (port, _) = (port()?, port()?);
    let fits = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    (fits && words.next().is_none())
        .then(|| ProxiedSource::Client(SocketAddr::new(source.to_canonical(), port)))
}

/// The source in the addresses of a v2 header; what follows them (TLVs) says nothing that we need.
fn addresses(family: u8, bytes: &[u8]) -> Option<ProxiedSource> {
    match family {
        0x11 => {
            let (source, rest) = bytes.split_first_chunk::<4>()?;
            let port = port(rest.get(4..)?)?;
            Some(ProxiedSource::Client(SocketAddr::new(IpAddr::from(*source), port)))
        }
        0x21 => {
            let (source, rest) = bytes.split_first_chunk::<16>()?;
            let port = port(rest.get(16..)?)?;
            Some(ProxiedSource::Client(SocketAddr::new(
                Ipv6Addr::from(*source).to_canonical(),
                port,
            )))
        }
        // Unspecified, datagrams, Unix sockets: the receiver may take the connection's own address.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Some(ProxiedSource::Sender),
        _ => None,
    }
}

/// The first of two port numbers.
fn port(ports: &[u8]) -> Option<u16> {
    let ports = ports.first_chunk::<4>()?;
    let [high, low, ..] = *ports;
    Some(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the machine as it asks; the outcome and how many bytes it took.
    fn read(input: &[u8]) -> (Option<Result<ProxiedSource, HeaderError>>, usize) {
        let (mut header, mut taken, mut want) = (Header::default(), 0, Header::FIRST);
        loop {
            assert!(want > 0 && taken <= FIXED_V2 + LONGEST_V2);
            let Some(bytes) = input.get(taken..taken + want) else { return (None, taken) };
            taken += want;
            match header.take(bytes) {
                Ok(ProxyHeaderStep::Want(more)) => want = more,
                Ok(ProxyHeaderStep::Done(source)) => return (Some(Ok(source)), taken),
                Err(error) => return (Some(Err(error)), taken),
            }
        }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn lines_of_version_1() {
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 56324 993",
                Ok(ProxiedSource::Client("192.0.2.1:56324".parse().unwrap())),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 1 65535",
                Ok(ProxiedSource::Client("[2001:db8::1]:1".parse().unwrap())),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2",
                Ok(ProxiedSource::Client("192.0.2.1:1".parse().unwrap())),
            ),
            ("PROXY UNKNOWN", Ok(ProxiedSource::Sender)),
            ("PROXY UNKNOWN ffff::1 whatever", Ok(ProxiedSource::Sender)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 993", Err(HeaderError::Wrong)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 993", Err(HeaderError::Wrong)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 993", Err(HeaderError::Wrong)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 993 ", Err(HeaderError::Wrong)),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2", Err(HeaderError::Wrong)),
            ("PROXY TCP4 ::1 ::1 1 2", Err(HeaderError::Wrong)),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2", Err(HeaderError::Wrong)),
            ("a1 LOGIN alice sesame", Err(HeaderError::NotOne)),
        ] {
            let bytes = format!("{line}\r\nrest");
            let (outcome, taken) = read(bytes.as_bytes());
            assert_eq!(outcome, Some(expected), "{line}");
            assert!(expected.is_err() || taken == line.len() + 2, "{line}");
        }
        assert_eq!(
            read(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat()).0,
            Some(Err(HeaderError::TooLong))
        );
        assert_eq!(read(b"PROXY UNKNOWN \n").0, Some(Err(HeaderError::Wrong)));
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 3, 0xe1, 4, 0, 1, 9];
        let v6 = [
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0; 16].as_slice(),
            &[0, 7, 3, 0xe1],
        ]
        .concat();
        for (header, expected) in [
            (v2(0x21, 0x11, &v4), Ok(ProxiedSource::Client("192.0.2.1:56324".parse().unwrap()))),
            (v2(0x21, 0x21, &v6), Ok(ProxiedSource::Client("[2001:db8::1]:7".parse().unwrap()))),
            (v2(0x20, 0x00, &[]), Ok(ProxiedSource::Sender)),
            (v2(0x20, 0x11, &v4), Ok(ProxiedSource::Sender)),
            (v2(0x21, 0x00, &v4), Ok(ProxiedSource::Sender)),
            (v2(0x21, 0x11, &v4[..11]), Err(HeaderError::Wrong)),
            (v2(0x21, 0x44, &v4), Err(HeaderError::Wrong)),
            (v2(0x11, 0x11, &v4), Err(HeaderError::Wrong)),
            (v2(0x22, 0x11, &v4), Err(HeaderError::Wrong)),
            (v2(0x21, 0x11, &[0; 2049]), Err(HeaderError::TooLong)),
        ] {
            let (outcome, taken) = read(&[&header, b"rest".as_slice()].concat());
            assert_eq!(outcome, Some(expected), "{header:?}");
            assert!(expected.is_err() || taken == header.len());
        }
    }

    proptest! {
        #[test]
        fn bytes_behind_the_header_are_never_taken(ip in any::<IpAddr>(), port: u16, tlvs in prop::collection::vec(any::<u8>(), 0..300), old: bool) {
            let source = SocketAddr::new(ip, port);
            let header = match (old, ip) {
                (true, IpAddr::V4(_)) => format!("PROXY TCP4 {ip} 192.0.2.2 {port} 993\r\n").into_bytes(),
                (true, IpAddr::V6(_)) => format!("PROXY TCP6 {ip} ::1 {port} 993\r\n").into_bytes(),
                (false, IpAddr::V4(ip)) => v2(0x21, 0x11, &[&ip.octets()[..], &[1; 4], &port.to_be_bytes(), &[0; 2], &tlvs].concat()),
                (false, IpAddr::V6(ip)) => v2(0x21, 0x21, &[&ip.octets()[..], &[1; 16], &port.to_be_bytes(), &[0; 2], &tlvs].concat()),
            };
            let (outcome, taken) = read(&[&header, b"\x16\x03\x01".as_slice()].concat());
            prop_assert_eq!(outcome, Some(Ok(ProxiedSource::Client(SocketAddr::new(source.ip().to_canonical(), port)))));
            prop_assert_eq!(taken, header.len());
        }

        #[test]
        fn anything_ends_within_bounds(start in 0..3_usize, bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let start: &[u8] = [b"".as_slice(), b"PROXY ", &SIGNATURE][start];
            let (_, taken) = read(&[start, &bytes].concat());
            prop_assert!(taken <= FIXED_V2 + LONGEST_V2);
        }
    }
}
