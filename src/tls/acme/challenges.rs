//! Proving to a certificate authority that a name leads here (TLS-ALPN-01, RFC 8737).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::crypto;

/// The protocol that a validating authority asks for (RFC 8737 section 6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// The names that are being proved, each with what the authority is to see.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<HashMap<String, Arc<ServerConfig>>>>);

/// Why a proof cannot be offered: our fault.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The certificate cannot be made.
    #[error("cannot make the certificate of a challenge: {0}")]
    Sign(#[from] rcgen::Error),
    /// The certificate cannot be used.
    #[error("cannot use the certificate of a challenge: {0}")]
    Use(#[from] rustls::Error),
}

impl Challenges {
    /// Offers the proof for `name` until the answer is dropped. `digest` is the SHA-256 of the key authorization.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn offer(&self, name: &str, digest: [u8; 32]) -> Result<ChallengeProof, ProofError> {
        let name = name.to_ascii_lowercase();
        self.proofs().insert(name.clone(), Arc::new(proof(&name, &digest)?));
        Ok(ChallengeProof { challenges: self.clone(), name })
    }

    /// Reports if an authority may connect.
    #[must_use]
    pub fn are_under_way(&self) -> bool {
        !self.proofs().is_empty()
    }

    /// The configuration for a client that sends `hello`, if it is an authority that verifies a name of an order in
    /// progress.
    #[must_use]
    pub fn answer(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut protocols = hello.alpn()?;
        let only = protocols.next() == Some(ACME_TLS) && protocols.next().is_none();
        let name = hello.server_name().filter(|_| only)?.to_ascii_lowercase();
        self.proofs().get(&name).cloned()
    }

    fn proofs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<ServerConfig>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proof that is on offer.
#[derive(Debug)]
pub struct ChallengeProof {
    challenges: Challenges,
    name: String,
}

impl Drop for ChallengeProof {
    fn drop(&mut self) {
        self.challenges.proofs().remove(&self.name);
    }
}

/// A certificate of its own for the name, with the digest in a critical extension (RFC 8737 section 3).
fn proof(name: &str, digest: &[u8; 32]) -> Result<ServerConfig, ProofError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let certificate = params.self_signed(&key)?;
    let provider = crypto::provider();
    let signing =
        provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    // Not by `with_single_cert`: it looks into the certificate, and gives up on a critical extension that it does not know.
    let shown = CertifiedKey::new(vec![certificate.der().clone()], signing);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(config)
}
