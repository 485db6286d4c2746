//! A certificate and its key: origin, summary, and the reasons why there is none.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::file_access;
use crate::pem_file::{PemError, quoted};

/// A certificate chain, its key, and where they are from.
#[derive(Debug)]
pub struct Identity {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key; its Debug output does not show it.
    pub key: PrivateKeyDer<'static>,
    /// Its origin and its end.
    pub summary: CertificateSummary,
}

/// Summary of a certificate for the log at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Its origin.
    pub origin: CertificateOrigin,
    /// The file that holds it.
    pub path: PathBuf,
    /// When it expires; `None` for one that is still to be made.
    pub not_after: Option<Timestamp>,
    /// True if it names the configured host.
    pub names_host: bool,
}

/// The origin of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateOrigin {
    /// The operator's own files.
    Files,
    /// From an authority, by ACME.
    Issued,
    /// Self-signed at an earlier start.
    Kept,
    /// Self-signed now, with the key of an earlier start.
    Renewed,
    /// Self-signed now, with a new key.
    Made,
}

/// Why there is no certificate to show to clients. All of these are for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is not PEM with what is wanted.
    #[error(transparent)]
    File(#[from] PemError),
    /// A file is PEM but holds nothing usable.
    #[error("{}: {problem}; {cure}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
        /// The remedy.
        cure: &'static str,
    },
    /// The operator's key is of a kind that TLS cannot use.
    #[error("{}: the private key in it cannot be used: {source}; use an ECDSA key (P-256, P-384), an RSA key of 2048 bits or more, or Ed25519", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The operator's certificate and key are two that do not belong together.
    #[error(
        "{}: the private key {} does not belong to the certificate in it; the two must belong together: \
         `openssl x509 -in {} -noout -pubkey` and `openssl pkey -in {} -pubout` must print the same",
        chain.display(), key.display(), quoted(chain), quoted(key)
    )]
    Mismatch {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The file of a self-signed certificate cannot be reached.
    #[error("{}: cannot be read: {}", path.display(), file_access::explain(path, source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The files of a self-signed certificate cannot be kept.
    #[error("{}", unwritable(path, source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Signing failed: our fault.
    #[error("cannot make a certificate: {0}; this is a bug in deltapush")]
    Sign(#[from] rcgen::Error),
}

fn unwritable(path: &Path, source: &io::Error) -> String {
    format!(
        "{}: cannot be written: {}; or name another folder as `certificate.directory`",
        path.display(),
        file_access::explain(path, source)
    )
}

pub(super) fn unusable(path: &Path, problem: String, cure: &'static str) -> CertificateError {
    CertificateError::Unusable { path: path.to_owned(), problem, cure }
}
