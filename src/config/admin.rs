//! The admin listener: the operator's web page, metrics and health.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::error::ConfigProblem;
use super::located::Located;
use super::{Config, Hostname};

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// IP address and port; `None` (`off` in the file) for no such listener.
    #[serde(deserialize_with = "address")]
    pub address: Option<Located<SocketAddr>>,
    /// True for TLS, with the certificate that clients see. Default: everywhere but on loopback.
    pub tls: Option<bool>,
    /// Permits operation without TLS on other addresses than loopback.
    pub insecure: bool,
    /// The file with the password. Default: see [`Admin::password_path`].
    pub password_file: Option<PathBuf>,
    /// Host names for browsers in addition to the hostname and localhost.
    pub hosts: Vec<Hostname>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 1980)).into()),
            tls: None,
            insecure: false,
            password_file: None,
            hosts: Vec::new(),
        }
    }
}

impl Admin {
    /// Reports if only this machine can reach it.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.address.as_ref().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Reports if it uses TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.unwrap_or(!self.is_on_loopback())
    }

    /// The path of the password, if systemd provides none: `password_file`, or `admin.password` in the state's folder.
    #[must_use]
    pub fn password_path(&self, state: &Path) -> PathBuf {
        self.password_file.clone().unwrap_or_else(|| state.join("admin.password"))
    }
}

/// Its conflicts with other keys.
pub(super) fn problems(config: &Config) -> impl Iterator<Item = ConfigProblem> {
    let admin = &config.startup.admin;
    let problem = admin.address.as_ref().and_then(|address| {
        let message = if config.live.listeners.iter().any(|listener| *listener.address == **address) {
            format!("a listener has the address {address}: give `admin` another port, or set `address: off`")
        } else if !admin.has_tls() && !admin.is_on_loopback() && !admin.insecure {
            format!(
                "without TLS the password would cross the network in clear at {address}: remove `tls: false`, use an \
                 address on loopback, or add `insecure: true`"
            )
        } else {
            return None;
        };
        Some(ConfigProblem::new(address.place(), message))
    });
    problem.into_iter()
}

fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Located<SocketAddr>>, D::Error> {
    struct Address(Option<SocketAddr>);
    impl<'de> Deserialize<'de> for Address {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if text == "off" {
                return Ok(Self(None));
            }
            let wrong = |_| {
                D::Error::custom(format!(
                    "{text:?} is not an IP address and port: write it as `127.0.0.1:1980`, or `off` for no such listener"
                ))
            };
            text.parse().map(|address| Self(Some(address))).map_err(wrong)
        }
    }
    let read = Located::<Address>::deserialize(deserializer)?;
    let address = read.0;
    Ok(address.map(|address| read.map(|_| address)))
}
