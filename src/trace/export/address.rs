//! Addresses of the network in the notations in which servers and deltapush write them.

use std::net::IpAddr;

/// The address that `word` is: bare, in brackets, as `IPv6:…` (RFC 5321 section 4.1.3), with a zone, or of a network. An IPv4
/// address that was mapped into IPv6 is itself.
pub(super) fn parse(word: &str) -> Option<IpAddr> {
    let inner = word.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(word);
    let inner = match inner.split_at_checked(5) {
        Some((head, rest)) if head.eq_ignore_ascii_case("ipv6:") => rest,
        _ => inner,
    };
    let end = inner.find(['%', '/']).unwrap_or(inner.len());
    Some(inner.get(..end)?.parse::<IpAddr>().ok()?.to_canonical())
}

/// The host and the port of `word`, if it ends with a port.
pub(super) fn with_port(word: &str) -> Option<(&str, &str)> {
    let (host, port) = word.rsplit_once(':')?;
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    is_port.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_of_an_address_is_the_address() {
        for (notations, address) in [
            (
                &[
                    "203.0.113.3",
                    "[203.0.113.3]",
                    "::ffff:203.0.113.3",
                    "[::FFFF:cb00:7103]",
                    "203.0.113.3/24",
                ][..],
                "203.0.113.3",
            ),
            (
                &[
                    "2001:db8::7",
                    "2001:0DB8:0:0:0:0:0:7",
                    "[IPv6:2001:db8::7]",
                    "2001:db8::7%eth0",
                    "2001:db8::7/64",
                ],
                "2001:db8::7",
            ),
        ] {
            for notation in notations {
                assert_eq!(parse(notation), address.parse().ok(), "{notation}");
            }
        }
        for other in ["", "[", "203.0.113", "host.example", "1:2", "ipv6:", "é::"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
