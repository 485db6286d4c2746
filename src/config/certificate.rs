//! The certificates that clients see: self-signed, from files, or from an authority that speaks ACME.

use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::Url;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::error::ConfigProblem;
use super::listeners::Hostname;
use super::located::Located;
use super::{Config, ListenerTls, Trust};

/// The certificates that clients see.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificate {
    /// Folder of the self-signed certificate, certificates from ACME, and their keys.
    pub directory: PathBuf,
    /// A certificate of the operator's own in PEM, leaf first.
    pub chain: Option<Located<PathBuf>>,
    /// Its private key in PEM.
    pub key: Option<Located<PathBuf>>,
    /// An authority that issues certificates automatically.
    pub acme: Option<Located<Acme>>,
    /// Certificates for further names, by which the client's server name indication chooses.
    pub more: Vec<CertificateFiles>,
}

impl Default for Certificate {
    fn default() -> Self {
        Self { directory: "certs".into(), chain: None, key: None, acme: None, more: Vec::new() }
    }
}

/// A certificate in two files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate in PEM, leaf first.
    pub chain: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// A certificate authority that speaks ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// The operator's agreement to the authority's terms of service. Required.
    pub terms_agreed: bool,
    /// Contact address for the authority.
    #[serde(deserialize_with = "email")]
    pub email: Option<String>,
    /// The URL of the authority's directory.
    #[serde(deserialize_with = "directory_url")]
    pub directory: Url,
    /// Address of the listener that answers HTTP-01 challenges (RFC 8555 section 8.3). Default: none, listeners with `tls:
    /// implicit` answer TLS-ALPN-01 (RFC 8737).
    #[serde(deserialize_with = "http_address")]
    pub http: Option<Located<SocketAddr>>,
    /// The names and IP addresses on the certificate; none for `hostname` alone.
    pub names: Vec<Located<Hostname>>,
    /// Trusted authorities for the ACME server's own certificate. Default: Mozilla's list and this machine's.
    pub ca: Option<Trust>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            terms_agreed: false,
            email: None,
            directory: lets_encrypt(),
            http: None,
            names: Vec::new(),
            ca: None,
        }
    }
}

impl Acme {
    /// The names and IP addresses for the certificate; at least one.
    #[must_use]
    pub fn names_or(&self, hostname: &Hostname) -> Vec<Hostname> {
        if self.names.is_empty() {
            return vec![hostname.clone()];
        }
        self.names.iter().map(|name| Hostname::clone(name)).collect()
    }
}

#[expect(clippy::expect_used, reason = "a constant that every test run parses")]
fn lets_encrypt() -> Url {
    Url::parse("https://acme-v02.api.letsencrypt.org/directory").expect("a valid URL")
}

fn directory_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = Url::parse(&text).ok().filter(|url| url.scheme() == "https" && url.has_host());
    url.ok_or_else(|| {
        D::Error::custom(format!(
            "{text:?} is not the URL of an ACME directory: write it as `https://host/path`"
        ))
    })
}

fn http_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Located<SocketAddr>>, D::Error> {
    super::listeners::address::<80, _>(deserializer).map(Some)
}

fn email<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_address =
        text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
            && text.chars().all(|c| c.is_ascii_graphic());
    if is_address {
        return Ok(Some(text));
    }
    Err(D::Error::custom(format!("{text:?} is not a mail address: write it as `you@example.org`")))
}

/// Conflicts between the keys of `certificate` and the others.
pub(super) fn problems(config: &Config) -> impl Iterator<Item = ConfigProblem> {
    files(&config.live.certificate).into_iter().chain(acme(config))
}

fn files(certificate: &Certificate) -> Option<ConfigProblem> {
    match (&certificate.chain, &certificate.key) {
        (Some(chain), None) => Some(ConfigProblem::new(
            chain.place(),
            "`chain` without `key`: name the private key's file too, or remove both to have a self-signed certificate",
        )),
        (None, Some(key)) => Some(ConfigProblem::new(
            key.place(),
            "`key` without `chain`: name the certificate's file too, or remove both to have a self-signed certificate",
        )),
        _ => None,
    }
}

fn acme(config: &Config) -> Option<ConfigProblem> {
    let acme = config.live.certificate.acme.as_ref()?;
    let place = acme.place();
    if !acme.terms_agreed {
        return Some(ConfigProblem::new(
            place,
            format!(
                "`acme` needs `terms_agreed: true`: read the terms of service of {} and agree to them",
                acme.directory.host_str().unwrap_or_default()
            ),
        ));
    }
    if let Some(chain) = &config.live.certificate.chain {
        return Some(ConfigProblem::new(
            chain.place(),
            "`chain` and `acme` exclude each other: remove one of them, or list the files under `more`",
        ));
    }
    unreachable(config, acme).or_else(|| unfit_name(config, acme))
}

/// An authority that cannot connect.
fn unreachable(config: &Config, acme: &Located<Acme>) -> Option<ConfigProblem> {
    let Some(http) = &acme.http else {
        let is_implicit =
            config.live.listeners.iter().any(|listener| listener.tls == ListenerTls::Implicit);
        return (!is_implicit).then(|| {
            ConfigProblem::new(
                acme.place(),
                "`acme` needs a listener with `tls: implicit`, to which the authority connects, or `http` with an address for \
                 port 80",
            )
        });
    };
    let admin = config.startup.admin.address.iter().map(|address| **address);
    let mut taken = config.live.listeners.iter().map(|listener| *listener.address).chain(admin);
    taken.any(|address| address == **http).then(|| {
        let message =
            format!("a listener, or `admin`, has the address {http}: give `http` one of its own");
        ConfigProblem::new(http.place(), message)
    })
}

fn unfit_name(config: &Config, acme: &Located<Acme>) -> Option<ConfigProblem> {
    let own = (acme.place(), &config.live.hostname);
    let named = acme.names.iter().map(|name| (name.place(), &**name));
    let names = named.chain(acme.names.is_empty().then_some(own));
    let unfit = |name: &Hostname| name.address().is_none() && name.as_str().contains('_');
    names.into_iter().find(|(_, name)| unfit(name)).map(|(place, name)| {
        ConfigProblem::new(
            place,
            format!(
                "no authority issues a certificate for {name}: use a host name of letters, digits and hyphens, or an IP \
                 address, or remove `acme` to have a self-signed certificate"
            ),
        )
    })
}
