//! Access to the proxy: allowed networks and logins.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::located::Located;

/// Restrictions of access. A missing list restricts nothing; a login needs a route in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Allow {
    /// Networks of clients. Default: all.
    pub networks: Option<Located<Vec<Network>>>,
    /// Accepted logins. Default: all with a route.
    pub logins: Option<Located<Vec<AllowedLogin>>>,
}

/// An address or a network of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A whole address, or a domain; in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedLogin(String);

impl Allow {
    /// Reports if a client may connect from `address`. IPv4 in IPv6 counts as IPv4.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.networks
            .as_ref()
            .is_none_or(|networks| networks.iter().any(|network| network.contains(address)))
    }

    /// Reports if `login` may be used, without regard to case.
    #[must_use]
    pub fn allows(&self, login: &str) -> bool {
        let Some(logins) = &self.logins else { return true };
        logins.iter().any(|allowed| allowed.is_for(login))
    }

    /// Reports if some login of `domain` (in lower case) may be used.
    #[must_use]
    pub fn allows_some_of(&self, domain: &str) -> bool {
        let is_of = |AllowedLogin(allowed): &AllowedLogin| {
            allowed == domain || allowed.rsplit_once('@').is_some_and(|(_, its)| its == domain)
        };
        self.logins.as_ref().is_none_or(|logins| logins.iter().any(is_of))
    }

    /// Reports if it excludes strangers: it names logins, or networks that are not everything.
    #[must_use]
    pub fn is_restrictive(&self) -> bool {
        let is_everything = |network: &Network| network.0.prefix_len() == 0;
        self.logins.is_some()
            || self.networks.as_ref().is_some_and(|networks| !networks.iter().any(is_everything))
    }
}

impl AllowedLogin {
    /// Reports if `login` is it, or is of this domain, without regard to case.
    #[must_use]
    pub fn is_for(&self, login: &str) -> bool {
        let login = login.to_lowercase();
        let domain = login.rsplit_once('@').map(|(_, domain)| domain);
        self.0 == login || domain == Some(&self.0)
    }
}

impl Network {
    /// Reports if `address` belongs to it. IPv4 in IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet = text.parse().map_err(|_| {
            format!("{text:?} is neither an address nor a network: write it as `192.0.2.1`, `192.0.2.0/24` or `2001:db8::/32`")
        })?;
        if network.trunc() != network {
            return Err(format!("{text:?} has bits beyond its prefix: write {}", network.trunc()));
        }
        Ok(Self(network))
    }
}

impl FromStr for AllowedLogin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, domain) = text.rsplit_once('@').unwrap_or(("-", text));
        if text == "*"
            || local.is_empty()
            || domain.is_empty()
            || text.contains(char::is_whitespace)
        {
            return Err(format!(
                "{text:?} is neither a login nor a domain: write `alice@example.org` or `example.org`"
            ));
        }
        Ok(Self(text.to_lowercase()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for AllowedLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for AllowedLogin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_is_of_use_if_somebody_of_it_may_log_in() {
        let some = allow(&[], &["a.example", "bob@b.example"]);
        assert!(some.allows_some_of("a.example") && some.allows_some_of("b.example"));
        assert!(!some.allows_some_of("example") && !some.allows_some_of("c.example"));
        assert!(allow(&[], &[]).allows_some_of("c.example"));
    }

    fn allow(networks: &[&str], logins: &[&str]) -> Allow {
        fn list<T: FromStr<Err = String>>(texts: &[&str]) -> Option<Located<Vec<T>>> {
            let all: Vec<T> = texts.iter().map(|text| text.parse().unwrap()).collect();
            (!all.is_empty()).then(|| all.into())
        }
        Allow { networks: list(networks), logins: list(logins) }
    }

    #[test]
    fn networks_are_told_by_prefix_and_mapped_addresses_count_as_ipv4() {
        let allow = allow(&["192.0.2.0/24", "2001:db8::/32", "10.1.2.3"], &[]);
        for (address, expected) in [
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("::ffff:192.0.2.1", true),
            ("::ffff:192.0.3.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
        ] {
            assert_eq!(allow.admits(address.parse().unwrap()), expected, "{address}");
        }
        assert!(Allow::default().admits("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn logins_are_told_by_address_or_domain() {
        let allow = allow(&[], &["Example.org", "bob@example.net"]);
        for (login, expected) in [
            ("alice@EXAMPLE.org", true),
            ("example.org", true),
            ("alice@sub.example.org", false),
            ("Bob@example.net", true),
            ("eve@example.net", false),
            ("eve@example.net@example.org", true),
            ("example.net", false),
            ("bob", false),
        ] {
            assert_eq!(allow.allows(login), expected, "{login}");
        }
    }

    #[test]
    fn everything_is_no_restriction() {
        assert!(
            !Allow::default().is_restrictive()
                && !allow(&["10.0.0.0/8", "::/0"], &[]).is_restrictive()
        );
        assert!(
            allow(&["10.0.0.0/8"], &[]).is_restrictive()
                && allow(&["0.0.0.0/0"], &["a.example"]).is_restrictive()
        );
    }

    #[test]
    fn value_that_is_neither_is_refused_with_a_cure() {
        assert!("10.0.0.1/8".parse::<Network>().unwrap_err().contains("write 10.0.0.0/8"));
        for text in ["10.0.0.0/33", "example.org", "", "10.0.0"] {
            assert!(text.parse::<Network>().unwrap_err().contains("192.0.2.0/24"), "{text}");
        }
        for text in ["", "*", "@example.org", "bob@", "a b"] {
            assert!(text.parse::<AllowedLogin>().is_err(), "{text}");
        }
    }
}
