//! Facts about a server's own certificate: its names, its key, and its validity.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::Hostname;

/// The first certificate of a chain.
pub(crate) struct Leaf<'a>(X509Certificate<'a>);

impl<'a> Leaf<'a> {
    pub(crate) fn of(chain: &'a [CertificateDer<'static>]) -> Result<Self, String> {
        let der = chain.first().ok_or("no certificate in it")?;
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => Ok(Self(certificate)),
            Err(error) => Err(format!("not an X.509 certificate: {error}")),
        }
    }

    /// When it expires.
    pub(crate) fn not_after(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.0.validity().not_after.timestamp()).ok()
    }

    /// From when to when it is valid.
    pub(crate) fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        let not_before = Timestamp::from_second(self.0.validity().not_before.timestamp()).ok()?;
        Some((not_before, self.not_after()?))
    }

    /// Reports if it is still valid in `time` from now.
    pub(crate) fn lasts(&self, time: Duration) -> bool {
        let now = Timestamp::now();
        let not_after = self.not_after().unwrap_or(Timestamp::MIN);
        now.checked_add(time).is_ok_and(|wanted| wanted < not_after)
    }

    /// Reports if its issuer is its subject: no authority has issued it.
    pub(crate) fn is_self_signed(&self) -> bool {
        self.0.issuer() == self.0.subject()
    }

    /// Reports if it is for this key.
    pub(crate) fn has_key(&self, key: &KeyPair) -> bool {
        self.0.public_key().subject_public_key.data.as_ref() == key.der_bytes()
    }

    /// Reports if it is for the key of which this is the public part, as SubjectPublicKeyInfo.
    pub(crate) fn has_public_key(&self, public: &[u8]) -> bool {
        self.0.public_key().raw == public
    }

    /// Reports if a client that connects to `hostname` accepts the names in it: only subject alternative names count
    /// (RFC 9525 section 2).
    pub(crate) fn names(&self, hostname: &Hostname) -> bool {
        let Ok(Some(extension)) = self.0.subject_alternative_name() else { return false };
        let host = hostname.as_str();
        let address = host.parse::<IpAddr>().ok().map(octets);
        extension.value.general_names.iter().any(|name| match name {
            GeneralName::DNSName(name) => address.is_none() && is_for(name, host),
            GeneralName::IPAddress(bytes) => address.as_deref() == Some(*bytes),
            _ => false,
        })
    }
}

/// Reports if a certificate for `name` is one for `host`; a wildcard stands for one label (RFC 9525 section 6.3).
fn is_for(name: &str, host: &str) -> bool {
    let below_wildcard = name.strip_prefix("*.");
    let parent = host.split_once('.').map(|(_, parent)| parent);
    name.eq_ignore_ascii_case(host)
        || below_wildcard.zip(parent).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_stands_for_one_label() {
        for (name, host) in
            [("a.example", "a.example"), ("A.Example", "a.example"), ("*.Example", "a.example")]
        {
            assert!(is_for(name, host), "{name} {host}");
        }
        for (name, host) in [
            ("a.example", "b.example"),
            ("*.example", "b.a.example"),
            ("*.example", "example"),
            ("*", "a"),
        ] {
            assert!(!is_for(name, host), "{name} {host}");
        }
    }

    #[test]
    fn only_alternative_names_of_a_certificate_count() {
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "b.example");
        let chain = [params.self_signed(&key).unwrap().der().clone()];
        let leaf = Leaf::of(&chain).unwrap();
        assert!(leaf.names(&Hostname::new("a.example").unwrap()));
        assert!(!leaf.names(&Hostname::new("b.example").unwrap()));
        assert!(leaf.has_key(&key) && !leaf.has_key(&KeyPair::generate().unwrap()));
        assert!(Leaf::of(&[]).is_err() && Leaf::of(&[vec![1, 2, 3].into()]).is_err());
    }
}
