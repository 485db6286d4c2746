//! A certificate and its key: origin, summary, and the reasons why there is none.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::file_access;
use crate::pem_file::{PemError, quoted};

/// Time before the end of a long-lived certificate at which the operator is warned.
const NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

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
    /// When it begins to be valid; `None` for one that is still to be made.
    pub not_before: Option<Timestamp>,
    /// When it expires; `None` for one that is still to be made.
    pub not_after: Option<Timestamp>,
    /// True if it names the configured host.
    pub names_host: bool,
}

impl CertificateSummary {
    /// The problem with the validity period of a certificate that deltapush does not make itself: not valid yet, expired, or
    /// near its end (two weeks, or the last fifth of a shorter life) although it should have been renewed by then.
    pub(crate) fn trouble_with_time(&self, now: Timestamp) -> Option<String> {
        let look_at = match self.origin {
            CertificateOrigin::Files => "check the program that renews it",
            CertificateOrigin::Issued => "see the log for the authority's reason",
            CertificateOrigin::Kept | CertificateOrigin::Renewed | CertificateOrigin::Made => {
                return None;
            }
        };
        let (from, until) = (self.not_before?, self.not_after?);
        let path = self.path.display();
        let of_life = until.duration_since(from).checked_div(5).unwrap_or_default();
        let notice =
            SignedDuration::try_from(NOTICE).map_or(of_life, |longest| of_life.min(longest));
        if until <= now {
            Some(format!(
                "{path}: the certificate expired at {until}: clients refuse it; {look_at}"
            ))
        } else if from > now {
            Some(format!(
                "{path}: the certificate is not valid before {from}; check this machine's clock"
            ))
        } else if until.duration_since(now) < notice {
            Some(format!(
                "{path}: the certificate expires at {until} and was not renewed yet: {look_at}"
            ))
        } else {
            None
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_certificate_is_near_by_its_life_and_who_renews_it_is_named() {
        let hours = |hours: i64| Timestamp::from_second(hours * 3600).unwrap();
        let told = |origin, life: i64, age: i64| {
            let summary = CertificateSummary {
                origin,
                path: "a.pem".into(),
                not_before: Some(hours(0)),
                not_after: Some(hours(life)),
                names_host: true,
            };
            summary.trouble_with_time(hours(age))
        };
        // Renewal is due after 80 hours.
        for age in [1, 79, 100, 127] {
            assert_eq!(told(CertificateOrigin::Issued, 160, age), None, "{age}");
        }
        let near = told(CertificateOrigin::Issued, 160, 129).unwrap();
        assert!(near.contains("was not renewed yet: see the log"), "{near}");
        let over = told(CertificateOrigin::Issued, 160, 161).unwrap();
        assert!(
            over.contains("expired at") && over.ends_with("see the log for the authority's reason")
        );
        let day = 24;
        assert_eq!(told(CertificateOrigin::Files, 90 * day, 75 * day), None);
        let near = told(CertificateOrigin::Files, 90 * day, 77 * day).unwrap();
        assert!(near.ends_with("check the program that renews it"), "{near}");
        assert_eq!(told(CertificateOrigin::Kept, 825 * day, 824 * day), None);
    }
}
