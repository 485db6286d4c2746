//! A network of addresses, as in `10.0.0.0/8` or `2001:db8::/32`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The addresses that begin with the same bits. A single address is the smallest of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// How many bits count.
    bits: u32,
}

impl Network {
    /// Whether `address` belongs to it. An IPv4 address that came in through an IPv6 socket counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, prefix) = prefix(address.to_canonical(), self.bits);
        (family, Some(prefix)) == (self.first.is_ipv4(), Some(self::prefix(self.first, self.bits).1))
    }
}

/// Whether it is IPv4, and the first bits of the address.
fn prefix(address: IpAddr, bits: u32) -> (bool, u128) {
    let (is_v4, number, width) = match address {
        IpAddr::V4(address) => (true, u128::from(address.to_bits()), 32_u32),
        IpAddr::V6(address) => (false, address.to_bits(), 128),
    };
    (is_v4, number.checked_shr(width.saturating_sub(bits)).unwrap_or_default())
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network: write it as `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.1`");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &str| (1..=3).contains(&bits.len()) && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => width,
            Some(bits) => bits.parse().ok().filter(|n| is_number(bits) && *n <= width).ok_or_else(wrong)?,
        };
        let network = Self { first, bits };
        let host_bits = width.saturating_sub(bits);
        let (_, prefix) = prefix(first, bits);
        let (_, whole) = self::prefix(first, width);
        if prefix.checked_shl(host_bits).unwrap_or_default() == whole {
            return Ok(network);
        }
        Err(format!("{text:?} has bits set behind its first {bits}: write the network's first address"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn the_first_bits_decide() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.128/25", "192.0.2.129", "192.0.2.127"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
        ] {
            assert!(contains(network, inside), "{network} {inside}");
            assert!(!contains(network, outside), "{network} {outside}");
        }
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
    }

    #[test]
    fn what_is_no_network_is_told() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10.0.0/8", "localhost", "10.0.0.0/8/8"] {
            assert!(text.parse::<Network>().unwrap_err().contains("is not a network"), "{text}");
        }
        for text in ["10.0.0.1/8", "192.0.2.1/0", "2001:db8::1/64"] {
            assert!(text.parse::<Network>().unwrap_err().contains("first address"), "{text}");
        }
    }
}
