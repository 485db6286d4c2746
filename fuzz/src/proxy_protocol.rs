//! `parser::proxy_protocol`: it never wants more than the header, and an address written by the rules is read as the same.

use std::net::{IpAddr, SocketAddr};

use deltapush::parser::proxy_protocol::{Header, HeaderError, ProxiedSource, ProxyHeaderStep};

use super::events;

/// A v2 header with all that may follow it.
const LONGEST: usize = 16 + 2048;

/// The beginning of every v2 header.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub(crate) fn check(data: &[u8]) {
    let (settings, stream) = events::settings(data);
    let read = read(stream);
    if let Ok((source, header)) = &read {
        if header.starts_with(b"PROXY ") {
            let line = header.strip_suffix(b"\r\n").expect("a line");
            assert!(
                header.len() <= 107 && !events::contains(line, b"\r\n"),
                "nothing behind the line is taken"
            );
        } else {
            let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
            assert!(header.starts_with(SIGNATURE) && header.len() == 16 + length);
        }
        // Bytes after the header make no difference.
        let longer = [header.as_slice(), b"a1 NOOP\r\n"].concat();
        assert_eq!(self::read(&longer), Ok((*source, header.clone())));
    }
    what_is_written_is_read(settings, stream);
}

/// The source in a connection's beginning, and the bytes of its header. A beginning that ends too soon is taken for no
/// header.
fn read(mut stream: &[u8]) -> Result<(ProxiedSource, Vec<u8>), HeaderError> {
    let mut header = Header::default();
    let mut taken = vec![];
    let mut wanted = Header::FIRST;
    loop {
        assert!(wanted > 0 && taken.len() + wanted <= LONGEST, "it gets on, and comes to an end");
        let Some((bytes, rest)) = stream.split_at_checked(wanted) else {
            return Err(HeaderError::NotOne);
        };
        taken.extend_from_slice(bytes);
        stream = rest;
        match header.take(bytes)? {
            ProxyHeaderStep::Want(more) => wanted = more,
            ProxyHeaderStep::Done(source) => return Ok((source, taken)),
        }
    }
}

/// Both versions, for an address made of the input.
fn what_is_written_is_read(settings: u8, bytes: &[u8]) {
    let Some((octets, rest)) = bytes.split_first_chunk::<16>() else { return };
    let is_v6 = settings & 1 == 1;
    let ip = if is_v6 {
        IpAddr::from(*octets)
    } else {
        IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
    };
    let port = u16::from_be_bytes([octets[0], settings]);
    let source = Ok(ProxiedSource::Client(SocketAddr::new(ip.to_canonical(), port)));
    let family = if is_v6 { "TCP6" } else { "TCP4" };
    let text = format!("PROXY {family} {ip} {ip} {port} 993\r\n");
    assert_eq!(read(text.as_bytes()).map(|(source, _)| source), source, "{text:?}");
    let address: &[u8] = if is_v6 { octets } else { &octets[..4] };
    let tail = &rest[..rest.len().min(64)];
    let body = [address, address, &port.to_be_bytes(), b"\x03\xe1", tail].concat();
    let length = u16::try_from(body.len()).expect("it is short").to_be_bytes();
    let binary =
        [SIGNATURE, b"\x21", if is_v6 { b"\x21" } else { b"\x11" }, &length, &body].concat();
    assert_eq!(read(&binary).map(|(source, _)| source), source);
}
