//! Host names in a configuration or a login.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::located::Located;

/// The placeholder for the login's domain in an upstream's host.
pub const DOMAIN_PLACEHOLDER: &str = "{domain}";

/// Reports if `name` has the form of a DNS name: labels of 1 to 63 letters, digits, hyphens and underscores, at most 253
/// bytes (RFC 1035 section 2.3.4; underscores as in `_imap.example.org`). An IP address is none, nor is anything else whose
/// last label is a number, since resolvers take `127.1` or `0x7f.1` for an address.
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let last_starts_as_a_number = last.starts_with(|first: char| first.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && !last_starts_as_a_number
}

/// Reports if `host` can only be this machine: an address in 127.0.0.0/8, `::1`, or `localhost`.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// A DNS name that stands there, in lower case.
pub(super) fn some_host_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Located<String>>, D::Error> {
    struct HostName(String);
    impl<'de> Deserialize<'de> for HostName {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if is_dns_name(&text) {
                return Ok(Self(text.to_ascii_lowercase()));
            }
            Err(D::Error::custom(format!(
                "{text:?} is not a host name: write it as `imap.example.org`"
            )))
        }
    }
    Ok(Some(Located::<HostName>::deserialize(deserializer)?.map(|HostName(name)| name)))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; an IPv6 address comes without its brackets.
pub(super) fn split_port(text: &str) -> Option<(String, Option<NonZeroU16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (
                address.to_string(),
                if port.is_empty() { None } else { Some(port.strip_prefix(':')?) },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_lowercase(), Some(port)),
            None => (text.to_lowercase(), None),
        },
    };
    let port = port
        .map(|port| port.parse().ok().filter(|_| !port.starts_with('+')).ok_or(()))
        .transpose()
        .ok()?;
    Some((host, port))
}

/// Reports if it is a host name, an IP address, or a name with one [`DOMAIN_PLACEHOLDER`] in it.
pub(super) fn is_host(host: &str) -> bool {
    let is_address = host.parse::<IpAddr>().is_ok();
    let example = host.replacen(DOMAIN_PLACEHOLDER, "example.org", 1);
    is_address || is_dns_name(&example)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names() {
        for name in [
            "localhost",
            "example.org",
            "_imap.example.org",
            "xn--bcher-kva.example",
            "a-b.c1",
            "1and1.com",
        ] {
            assert!(is_dns_name(name), "{name}");
        }
        let (long_label, long_name) = ("a".repeat(64), "a.".repeat(127) + "org");
        for name in [
            "",
            ".",
            "a..b",
            "a.",
            ".a",
            "127.0.0.1",
            "127.1",
            "a.1",
            "::1",
            "[::1]",
            "0x7f.0x1",
            "a b",
            "a/b",
            "a@b",
            "bücher.de",
            "-a.de",
            "a-.de",
            "a\0.de",
            &long_label,
            &long_name,
        ] {
            assert!(!is_dns_name(name), "{name}");
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for host in
            ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LocalHost", "::ffff:127.0.0.1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["0.0.0.0", "::", "192.168.1.1", "localhost.example.org", "127.0.0.1.example.org", ""]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
