//! Reasons why an authority issued no certificate, and what the operator can do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{ChallengeType, Error as ProtocolError};

use super::challenges::ProofError;
use crate::causes::with_causes;
use crate::config::Acme;
use crate::file_access::listen_remedy;
use crate::tls::certs::LoadError;
use crate::tls::certs::identity::CertificateError;
use crate::tls::client::TrustError;

/// The kind of challenge by which names are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// RFC 8555 section 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
}

impl Way {
    /// The configured one.
    pub(super) fn of(acme: &Acme) -> Self {
        if acme.http.is_some() { Self::Http01 } else { Self::TlsAlpn01 }
    }
}

impl From<Way> for ChallengeType {
    fn from(way: Way) -> Self {
        match way {
            Way::Http01 => Self::Http01,
            Way::TlsAlpn01 => Self::TlsAlpn01,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http01 => "HTTP-01",
            Self::TlsAlpn01 => "TLS-ALPN-01",
        })
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcmeError {
    #[error("{}", in_words(.0))]
    Protocol(#[from] ProtocolError),
    #[error("it could not validate the names: {reason}{}", if *.was_seen { "" } else { " (nothing asked for the proof here)" })]
    NotProved {
        reason: String,
        /// True if the proof was asked for here.
        was_seen: bool,
        way: Way,
    },
    #[error("it does not offer {way} for {name}")]
    NoChallenge { name: String, way: Way },
    #[error("cannot listen on {address} for its challenge: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("it issued a certificate that cannot be used: {0}")]
    Unusable(String),
    #[error("{}: {problem}", path.display())]
    Account { path: PathBuf, problem: String },
    #[error(transparent)]
    Files(#[from] CertificateError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error("cannot ask for a certificate: {0}")]
    Request(#[from] rcgen::Error),
    #[error("the order took longer than {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("a part of deltapush panicked")]
    Panicked,
}

impl AcmeError {
    /// The operator's remedy.
    pub(super) fn cure(&self) -> &'static str {
        match self {
            Self::Protocol(ProtocolError::Api(_)) => "see docs/certificates.md",
            Self::Protocol(_) | Self::TimedOut(_) => {
                "check the network, and that `certificate.acme.directory` and `ca` fit the authority"
            }
            Self::NotProved { way: Way::TlsAlpn01, .. } => {
                "the names must lead to this machine (also by their AAAA records), and its port 443 to a listener of deltapush \
                 with `tls: implicit`"
            }
            Self::NotProved { way: Way::Http01, .. } => {
                "the names must lead to this machine (also by their AAAA records), and its port 80 to \
                 `certificate.acme.http`, directly or by a web server that hands on /.well-known/acme-challenge/"
            }
            Self::Listen { source, .. } => listen_remedy(source),
            Self::NoChallenge { .. } => {
                "use another authority, or another program for the certificate (`certificate.chain`)"
            }
            Self::Account { .. } => {
                "make it readable, or remove it so that deltapush creates a new account"
            }
            Self::Files(_) | Self::Load(_) | Self::Trust(_) => {
                "deltapush requests no certificate before this is corrected"
            }
            Self::Unusable(_) => "use another authority",
            Self::Proof(_) | Self::Request(_) | Self::Panicked => "this is a bug in deltapush",
        }
    }
}

/// The library's own words, with the reasons behind them.
pub(super) fn in_words(error: &ProtocolError) -> String {
    match error {
        ProtocolError::Api(problem) => {
            let mut words =
                problem.detail.clone().or_else(|| problem.r#type.clone()).unwrap_or_default();
            for part in &problem.subproblems {
                words.push_str("; ");
                words.push_str(part.detail.as_deref().unwrap_or_default());
            }
            printable(&words)
        }
        error => printable(&with_causes(error)),
    }
}

/// An authority's words, fit for a line of the log.
pub(super) fn printable(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
