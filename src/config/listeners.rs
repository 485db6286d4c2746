//! Listeners: addresses and host name for clients.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::allow::{Allow, Network};
use super::located::Located;
use super::names::is_dns_name;

/// One address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP address and port.
    #[serde(deserialize_with = "address::<993, _>")]
    pub address: Located<SocketAddr>,
    /// Its name in routes. Default: none, routes use its address.
    #[serde(default)]
    pub name: Option<Located<String>>,
    /// Restrictions of access on this listener, in addition to `allow`. Default: none.
    #[serde(default)]
    pub allow: Allow,
    /// The TLS mode. Deliberately without a default.
    pub tls: ListenerTls,
    /// Allows `tls: none` elsewhere than on loopback. Default: false.
    #[serde(default)]
    pub insecure: bool,
    /// Serves browsers the page with the settings for Delta Chat. Default: false.
    #[serde(default)]
    pub web: bool,
    /// Networks of load balancers that send a PROXY protocol header; connections from others are refused. Empty: no
    /// header is expected.
    #[serde(default)]
    pub proxy_protocol: Vec<Network>,
}

/// A port and its TLS mode. The other keys of a [`Listener`] may change at a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSocket {
    /// IP address and port.
    pub address: SocketAddr,
    /// The TLS mode.
    pub tls: ListenerTls,
}

/// TLS mode of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTls {
    /// TLS from the first byte (RFC 8314 section 3.2, port 993).
    Implicit,
    /// STARTTLS, required before the login (RFC 9051 section 6.2.1, port 143).
    StartTls,
    /// None at all.
    None,
}

impl Listener {
    /// A listener with defaults for all other keys.
    #[must_use]
    pub fn new(address: SocketAddr, tls: ListenerTls) -> Self {
        Self {
            address: address.into(),
            name: None,
            allow: Allow::default(),
            tls,
            insecure: false,
            web: false,
            proxy_protocol: Vec::new(),
        }
    }

    /// The listeners of a file that names none.
    pub(super) fn defaults() -> Vec<Self> {
        let on_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        vec![
            Self::new(on_loopback(1993), ListenerTls::Implicit),
            Self::new(on_loopback(1143), ListenerTls::StartTls),
        ]
    }

    /// Returns true if `text` in a route refers to it: its name, or its address and port.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        self.name.as_ref().is_some_and(|name| **name == text) || text.parse() == Ok(*self.address)
    }

    /// The part of it that cannot change while it is open.
    #[must_use]
    pub fn socket(&self) -> ListenerSocket {
        ListenerSocket { address: *self.address, tls: self.tls }
    }

    /// Reports if only this machine can reach it.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

impl fmt::Display for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Implicit => "implicit",
            Self::StartTls => "starttls",
            Self::None => "none",
        })
    }
}

/// The name or IP address that people enter in Delta Chat, in lower case.
#[derive(Clone, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// The name as text: a DNS name, or an IP address without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The IP address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// Takes a DNS name (underscores allowed) or an IP address; `None` for anything else.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        match text.parse::<IpAddr>() {
            Ok(address) => Some(Self(address.to_string())),
            Err(_) => is_dns_name(text).then(|| Self(text.to_ascii_lowercase())),
        }
    }

    /// This machine, for itself.
    #[must_use]
    pub fn localhost() -> Self {
        Self("localhost".to_owned())
    }
}

impl From<IpAddr> for Hostname {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Hostname {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text).ok_or_else(|| {
            format!(
                "{text:?} is neither a host name nor an IP address: write it without port, as `imap.example.org`"
            )
        })
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// An IP address and port, for a listener that is usually on `PORT`. std's parser says only that the syntax is wrong; people
/// write `localhost:1993` or leave the port out.
pub(super) fn address<'de, const PORT: u16, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Located<SocketAddr>, D::Error> {
    struct Address<const PORT: u16>(SocketAddr);
    impl<'de, const PORT: u16> Deserialize<'de> for Address<PORT> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            let wrong = |_| {
                D::Error::custom(format!(
                    "{text:?} is not an IP address and port: \
                     write it as `127.0.0.1:1{PORT:03}`, or `[::]:{PORT}` for every address of this machine"
                ))
            };
            text.parse().map(Self).map_err(wrong)
        }
    }
    Ok(Located::<Address<PORT>>::deserialize(deserializer)?.map(|Address(address)| address))
}
