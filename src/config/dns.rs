//! The DNS server for lookups of mail servers.

use std::net::SocketAddr;

use serde::Deserialize;

/// Name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsSettings {
    /// The DNS server, as address and port. Default: those of the system (`/etc/resolv.conf`); `/etc/hosts` goes before it in
    /// any case.
    pub server: Option<SocketAddr>,
}
