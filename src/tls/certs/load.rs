//! The certificate that clients see: from the operator's own files, or from [`self_signed`](super::self_signed).

use std::path::Path;

use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::{
    CertificateError, CertificateOrigin, CertificateSummary, Identity, unusable,
};
use super::self_signed::SelfSigned;
use super::x509::Leaf;
use crate::config::{self, Hostname};
use crate::crypto;
use crate::pem_file;

const OWN_FILE_CURE: &str =
    "`certificate.chain` and `certificate.key` name PEM files that deltapush may read";
impl Identity {
    /// Reads the operator's files, or the self-signed certificate, which is made or renewed where needed. Blocks on files.
    ///
    /// # Errors
    /// [`CertificateError`] naming the file and the cure.
    pub fn load(
        hostname: &Hostname,
        certificate: &config::Certificate,
    ) -> Result<Self, CertificateError> {
        match own_files(certificate) {
            Some((chain, key)) => from_files(hostname, chain, key),
            None => SelfSigned::new(hostname, certificate).load(),
        }
    }

    /// Reads a certificate and its key from the operator's files. Blocks on them.
    ///
    /// # Errors
    /// [`CertificateError`] naming the file and the cure.
    pub fn read(hostname: &Hostname, chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        from_files(hostname, chain, key)
    }
}

impl CertificateSummary {
    /// The result that [`Identity::load`] would have, without writing anything.
    ///
    /// # Errors
    /// [`CertificateError`] if it would fail on what is there.
    pub fn check(
        hostname: &Hostname,
        certificate: &config::Certificate,
    ) -> Result<Self, CertificateError> {
        match own_files(certificate) {
            Some((chain, key)) => Ok(from_files(hostname, chain, key)?.summary),
            None => SelfSigned::new(hostname, certificate).check(),
        }
    }
}

fn own_files(certificate: &config::Certificate) -> Option<(&Path, &Path)> {
    Some((certificate.chain.as_deref()?, certificate.key.as_deref()?))
}

fn from_files(
    hostname: &Hostname,
    chain_path: &Path,
    key_path: &Path,
) -> Result<Identity, CertificateError> {
    let chain = pem_file::certificates(chain_path, OWN_FILE_CURE)?;
    let key = pem_file::private_key(key_path, OWN_FILE_CURE)?;
    let leaf = Leaf::of(&chain).map_err(|problem| unusable(chain_path, problem, OWN_FILE_CURE))?;
    check_pair(&chain, &key, chain_path, key_path)?;
    let summary = CertificateSummary {
        origin: CertificateOrigin::Files,
        path: chain_path.to_owned(),
        not_before: leaf.validity().map(|(from, _)| from),
        not_after: leaf.not_after(),
        names_host: leaf.names(hostname),
    };
    Ok(Identity { chain, key, summary })
}

/// Checks that the key is one for TLS, and the first certificate's.
fn check_pair(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    chain_path: &Path,
    key_path: &Path,
) -> Result<(), CertificateError> {
    let loaded = crypto::provider().key_provider.load_private_key(key.clone_key());
    let key =
        loaded.map_err(|source| CertificateError::Key { path: key_path.to_owned(), source })?;
    let Some(public) = key.public_key() else { return Ok(()) };
    let is_for_key = |certificate: &CertificateDer<'static>| {
        Leaf::of(std::slice::from_ref(certificate)).is_ok_and(|leaf| leaf.has_public_key(&public))
    };
    match chain.iter().position(is_for_key) {
        Some(0) => Ok(()),
        Some(index) => {
            let place = index + 1;
            let problem = format!(
                "the certificate of the private key {} is number {place} in it",
                key_path.display()
            );
            Err(unusable(
                chain_path,
                problem,
                "put the server's own certificate first, then those of the authority",
            ))
        }
        None => Err(CertificateError::Mismatch {
            chain: chain_path.to_owned(),
            key: key_path.to_owned(),
        }),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
