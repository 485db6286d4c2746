//! Keyed hashes of fixed size for login names, networks and mail servers: they take little memory, and no name can be
//! read back.

use std::net::IpAddr;

use aws_lc_rs::hmac;

use super::Prefix;
use super::fair_map::EntryOrigin;
use crate::account::AccountId;

/// A keyed hash that stands for a name. Names of different kinds never have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdmissionKey(pub [u8; 16]);

/// A keyed hash that stands for credentials without giving them away ([`login_limiter`](super::login_limiter)).
pub type CredentialDigest = [u8; 32];

/// Makes [`AdmissionKey`]s. Its own key is kept in the state, because names are recognized after a restart.
#[derive(Debug, Clone)]
pub(super) struct KeyMaker(hmac::Key);

/// All keys of one login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginKeys {
    /// The login name at its mail server.
    pub account: AdmissionKey,
    /// The mail server, by its name.
    pub upstream: AdmissionKey,
    /// The login name and the prefix of the client.
    pub home: AdmissionKey,
    /// The mail server and the prefix of the client.
    pub visit: AdmissionKey,
    /// The mail server and the network of the client.
    pub neighbours: AdmissionKey,
    /// The mail server, where it is known that it makes no accounts by itself.
    pub ordinary: AdmissionKey,
}

impl KeyMaker {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The keys of a login to `account`, whose name is in lower case, from `prefix`.
    pub(super) fn login(&self, account: &AccountId, prefix: Prefix) -> LoginKeys {
        let (user, upstream) = (account.user.as_bytes(), account.upstream.as_bytes());
        let (prefix, network) = (octets(prefix.address()), prefix.network().to_be_bytes());
        LoginKeys {
            account: self.key("account", &[upstream, user]),
            upstream: self.upstream(&account.upstream),
            home: self.key("home", &[upstream, user, &prefix]),
            visit: self.key("visit", &[upstream, &prefix]),
            neighbours: self.key("neighbours", &[upstream, &network]),
            ordinary: self.key("ordinary", &[upstream]),
        }
    }

    /// The key of a mail server, by its name.
    pub(super) fn upstream(&self, name: &str) -> AdmissionKey {
        self.key("upstream", &[name.as_bytes()])
    }

    /// The key of the address of a mail server.
    pub(super) fn server(&self, address: IpAddr) -> AdmissionKey {
        self.key("server", &[&octets(address)])
    }

    /// The network and the server responsible for a login's entries.
    pub(super) fn origin(
        &self,
        prefix: Prefix,
        upstream: AdmissionKey,
        is_open: bool,
    ) -> EntryOrigin {
        let network = self.key("network", &[&prefix.network().to_be_bytes()]);
        EntryOrigin { network: short(network), upstream: short(upstream), is_open }
    }

    pub(super) fn key(&self, kind: &str, parts: &[&[u8]]) -> AdmissionKey {
        let mut context = hmac::Context::with_key(&self.0);
        for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 16];
        key.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        AdmissionKey(key)
    }
}

/// As many bits as SQLite has in a number. Two groups that collide share their room, which harms nobody.
fn short(AdmissionKey(key): AdmissionKey) -> i64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(key).for_each(|(to, from)| *to = from);
    i64::from_be_bytes(bytes)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
