//! Value types of routes: exact addresses, host patterns, the autoconfig URL, the PROXY header.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::names::{DOMAIN_PLACEHOLDER, is_dns_name};

/// A whole login name with a domain, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressPattern(String);

impl AddressPattern {
    /// The whole, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl FromStr for AddressPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('@') {
            Some((local, domain))
                if !local.is_empty()
                    && !domain.is_empty()
                    && !text.contains(char::is_whitespace) =>
            {
                Ok(Self(text.to_lowercase()))
            }
            _ => Err(format!(
                "{text:?} is not an address: write it as `alice@example.org`, or use `domain`"
            )),
        }
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host, or `*.example.org` for all below it; in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(String);

impl HostPattern {
    /// Reports if it matches `host` (in lower case).
    #[must_use]
    pub fn fits(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()),
            None => self.0 == host,
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_dns_name(text.strip_prefix("*.").unwrap_or(text)) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!("{text:?} is not a host: write it as `imap.example.org` or \"*.example.org\""))
    }
}

/// The URL of autoconfig XML: an `https://` address, in which `{domain}` stands for the login's domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AutoconfigUrl(String);

impl AutoconfigUrl {
    /// The two usual places (the first is the provider's own host, the second the domain's web server).
    #[must_use]
    pub fn usual() -> [Self; 2] {
        [
            Self(format!("https://autoconfig.{DOMAIN_PLACEHOLDER}/mail/config-v1.1.xml")),
            Self(format!(
                "https://{DOMAIN_PLACEHOLDER}/.well-known/autoconfig/mail/config-v1.1.xml"
            )),
        ]
    }

    /// The address for `domain`, which must be a DNS name.
    #[must_use]
    pub fn of(&self, domain: &str) -> String {
        self.0.replace(DOMAIN_PLACEHOLDER, domain)
    }
}

impl FromStr for AutoconfigUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = text.replace(DOMAIN_PLACEHOLDER, "example.org");
        let url = reqwest::Url::parse(&example)
            .ok()
            .filter(|url| url.scheme() == "https" && url.username().is_empty());
        match url {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(format!(
                "{text:?} is not an https:// address: write it as `https://autoconfig.{{domain}}/mail/config-v1.1.xml`"
            )),
        }
    }
}

/// The version of the PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// The line of text.
    V1,
    /// The binary one.
    V2,
}

impl<'de> Deserialize<'de> for AddressPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for AutoconfigUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_means_all_below_it_and_not_itself() {
        let pattern: HostPattern = "*.Example.org".parse().unwrap();
        assert!(
            pattern.fits("imap.example.org")
                && !pattern.fits("example.org")
                && !pattern.fits("evilexample.org")
        );
        assert!(!pattern.fits(".example.org"));
        assert!("imap.example.org".parse::<HostPattern>().unwrap().fits("imap.example.org"));
        assert!(
            "*".parse::<HostPattern>().is_err() && "*.127.0.0.1".parse::<HostPattern>().is_err()
        );
    }

    #[test]
    fn autoconfig_is_fetched_over_https_only() {
        let url: AutoconfigUrl = "https://config.example/v1.1/{domain}".parse().unwrap();
        assert_eq!(url.of("example.org"), "https://config.example/v1.1/example.org");
        for text in ["http://a.example/", "https://bob@a.example/", "a.example", "https://"] {
            assert!(text.parse::<AutoconfigUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn address_has_both_parts() {
        assert_eq!("Alice@Example.org".parse::<AddressPattern>().unwrap().domain(), "example.org");
        for text in ["alice", "@example.org", "alice@", "a b@example.org"] {
            assert!(text.parse::<AddressPattern>().is_err(), "{text}");
        }
    }
}
