//! Routes: the rules that lead a login name to a mail server.

pub use crate::policy::{NewsSource, Security};
use std::fmt;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::located::{FilePosition, Located};
use super::login::LoginTemplate;
use super::names::{DOMAIN_PLACEHOLDER, is_host, is_loopback, split_port};
use super::route_types::{AddressPattern, AutoconfigUrl, HostPattern, ProxyProtocol};
use super::submission::Submission;

/// A route: conditions on logins, and their mail server. All given conditions must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// The whole login name, without regard to case.
    pub address: Option<Located<AddressPattern>>,
    /// The login's domain. Left out, it is any.
    pub domain: Option<Located<Domain>>,
    /// The name that the client asked for in TLS (SNI, RFC 6066 section 3), in lower case.
    #[serde(deserialize_with = "super::names::some_host_name")]
    pub host: Option<Located<String>>,
    /// The client's listener: its name, or its address and port.
    pub listener: Option<Located<String>>,
    /// The server. Absent with `discover`.
    pub upstream: Option<Located<UpstreamAddress>>,
    /// Looks the mail server up at the login's domain (RFC 6186, RFC 8314, autoconfig). Default: false.
    pub discover: bool,
    /// Hosts outside of the login's domain that DNS alone may name as its server. Default: none.
    pub targets: Vec<HostPattern>,
    /// The URL of the domain's autoconfig XML, instead of the usual two; `{domain}` may stand in it.
    pub autoconfig: Option<Located<AutoconfigUrl>>,
    /// Trusted authorities for its certificate. Default: webpki.
    pub ca: Located<Trust>,
    /// The login name for the mail server. Default: the client's.
    pub login: LoginTemplate,
    /// The SMTP server, for the login code, the page and autoconfig. Default: it is looked up.
    pub smtp: Option<Located<Submission>>,
    /// The login name for the SMTP server. Default: as `login`.
    pub smtp_login: Option<LoginTemplate>,
    /// The source of news of new mail. Default: a watch in IDLE.
    #[serde(with = "NewsSourceName")]
    pub news: NewsSource,
    /// Allows a host that DNS or the login chose to be in a private network. Default: false.
    pub private: bool,
    /// Tells the server by the PROXY protocol who connects.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Tells the server by ID (x-originating-ip) who connects. Default: false.
    pub originating_ip: bool,
    /// Allows a server without encryption that is not on loopback. Default: false.
    pub insecure: bool,
    /// Allows a route that names no domain behind a listener that is not on loopback. Default: false.
    pub open: bool,
}

impl Route {
    /// The routes of a file that names none.
    pub(super) fn defaults() -> Vec<Self> {
        let upstream = UpstreamAddress {
            security: Security::Tls,
            host: format!("imap.{DOMAIN_PLACEHOLDER}"),
            port: Security::Tls.port(),
        };
        vec![Self {
            domain: Some(Domain::Any.into()),
            upstream: Some(upstream.into()),
            ..Self::default()
        }]
    }

    /// The login's domain, where it is given.
    #[must_use]
    pub fn named_domain(&self) -> Option<&str> {
        match (self.address.as_deref(), self.domain.as_deref()) {
            (Some(address), _) => Some(address.domain()),
            (None, Some(Domain::Named(domain))) => Some(domain),
            _ => None,
        }
    }

    /// Its specificity: of two matching routes, the greater one wins.
    #[must_use]
    pub fn rank(&self) -> [bool; 4] {
        let is_named = matches!(self.domain.as_deref(), Some(Domain::Named(_)));
        [self.address.is_some(), is_named, self.host.is_some(), self.listener.is_some()]
    }

    /// The position for problems of the route as a whole.
    pub(super) fn place(&self) -> FilePosition {
        let places = [
            self.address.as_ref().map(Located::place),
            self.domain.as_ref().map(Located::place),
            self.host.as_ref().map(Located::place),
            self.listener.as_ref().map(Located::place),
            self.upstream.as_ref().map(Located::place),
        ];
        places.into_iter().flatten().next().unwrap_or_default()
    }

    /// Its destination, as text.
    #[must_use]
    pub fn destination(&self) -> String {
        match &self.upstream {
            Some(upstream) => upstream.to_string(),
            None => "the server that the login's domain names".to_owned(),
        }
    }
}

/// The logins that it matches, as text.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.domain) {
            (Some(address), _) => write!(f, "{}", **address)?,
            (None, Some(domain)) => write!(f, "{}", **domain)?,
            (None, None) => f.write_str("*")?,
        }
        if let Some(host) = &self.host {
            write!(f, " at host {}", **host)?;
        }
        if let Some(listener) = &self.listener {
            write!(f, " on listener {}", **listener)?;
        }
        Ok(())
    }
}

/// The part of a login name behind its last `@`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    /// Every one that no other route names, and none at all.
    Any,
    /// This one, in lower case.
    Named(String),
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        match text {
            "*" => Ok(Self::Any),
            _ if !text.is_empty() && text.chars().all(is_plain) => {
                Ok(Self::Named(text.to_lowercase()))
            }
            _ => Err(format!(
                "{text:?} is not a domain: write it as `example.org`, without `@`, or \"*\" for all others"
            )),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A server's address as the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// The kind of encryption.
    pub security: Security,
    /// A DNS name or an IP address without brackets; `{domain}` may stand in it for the login's domain.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl UpstreamAddress {
    /// Reports if the host depends on the login's domain.
    #[must_use]
    pub fn has_placeholder(&self) -> bool {
        self.host.contains(DOMAIN_PLACEHOLDER)
    }

    /// Reports if it can only be on this machine.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl FromStr for UpstreamAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            format!("{text:?} has no scheme: write it as `imaps://imap.example.org`")
        })?;
        let security = [Security::Tls, Security::StartTls, Security::Plain]
            .into_iter()
            .find(|security| security.scheme() == scheme)
            .ok_or_else(|| {
                format!(
                    "{scheme:?} is not a scheme for an IMAP server: \
                     `imaps` (TLS), `imap` (STARTTLS) or `imap+plain` (no encryption)"
                )
            })?;
        if rest.contains('@') {
            return Err(
                "a login name is not allowed here, since the client sends it: write `imaps://host:port`".to_owned()
            );
        }
        if let Some(path) = rest.find(['/', '?', '#']).and_then(|start| rest.get(start..)) {
            return Err(format!("nothing may follow host and port: remove {path:?}"));
        }
        let (host, port) = split_port(rest).ok_or_else(|| {
            format!("{rest:?} is not a host with an optional port: write it as `host:993` or `[::1]:993`")
        })?;
        if !is_host(&host) {
            return Err(format!(
                "{host:?} is not a host name, nor an IP address, nor a name with one `{DOMAIN_PLACEHOLDER}` in it"
            ));
        }
        Ok(Self { security, host, port: port.map_or(security.port(), NonZeroU16::get) })
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{}{close}:{}", self.security.scheme(), self.host, self.port)
    }
}

/// Trusted certificate authorities for an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trust {
    /// Mozilla's list, built in.
    #[default]
    WebPki,
    /// This machine's list.
    System,
    /// The certificate authorities in a PEM file.
    File(Arc<Path>),
}

impl Trust {
    /// A relative path starts from `base_dir`.
    pub(super) fn resolve(&mut self, base_dir: &Path) {
        if let Self::File(path) = self {
            *path = base_dir.join(&path).into();
        }
    }
}

impl Default for Located<Trust> {
    fn default() -> Self {
        Trust::default().into()
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebPki => f.write_str("webpki"),
            Self::System => f.write_str("system"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Trust {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "webpki" => Ok(Self::WebPki),
            "system" => Ok(Self::System),
            "" => Err("must be `webpki`, `system` or the path of a PEM file".to_owned()),
            path => Ok(Self::File(PathBuf::from(path).into())),
        }
    }
}

/// The names of [`NewsSource`] in the file.
#[derive(Deserialize)]
#[serde(remote = "NewsSource", rename_all = "lowercase")]
enum NewsSourceName {
    Idle,
    Server,
    Both,
}

impl<'de> Deserialize<'de> for Trust {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for UpstreamAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_print_as_what_they_mean() {
        for (text, meaning) in [
            ("imaps://imap.example.org", "imaps://imap.example.org:993"),
            ("imap://MAIL.example.org", "imap://mail.example.org:143"),
            ("imap+plain://127.0.0.1", "imap+plain://127.0.0.1:143"),
            ("imaps://[::1]:1993", "imaps://[::1]:1993"),
            ("imaps://[0:0::1]", "imaps://[::1]:993"),
            ("imaps://imap.{domain}:994", "imaps://imap.{domain}:994"),
        ] {
            assert_eq!(text.parse::<UpstreamAddress>().unwrap().to_string(), meaning);
        }
    }

    #[test]
    fn malformed_upstreams_are_refused_with_a_cure() {
        for (text, complaint) in [
            ("imap.example.org", "has no scheme"),
            ("http://imap.example.org", "\"http\" is not a scheme"),
            ("imaps://bob@example.org", "a login name is not allowed here"),
            ("imaps://example.org/INBOX", "remove \"/INBOX\""),
            ("imaps://example.org:0", "not a host with an optional port"),
            ("imaps://example.org:99999", "not a host with an optional port"),
            ("imaps://example.org:+9", "not a host with an optional port"),
            ("imaps://example.org:{domain}", "not a host with an optional port"),
            ("imaps://::1", "not a host with an optional port"),
            ("imaps://[::1", "not a host with an optional port"),
            ("imaps://[::1]993", "not a host with an optional port"),
            ("imaps://", "is not a host name"),
            ("imaps://imap..org", "is not a host name"),
            ("imaps://{domain}.{domain}", "is not a host name"),
            ("imaps://{user}.example.org", "is not a host name"),
        ] {
            let error = text.parse::<UpstreamAddress>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
