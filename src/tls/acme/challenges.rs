//! Proving to a certificate authority that a name or an IP address leads here: by TLS-ALPN-01 (RFC 8737; for addresses RFC 8738
//! section 6) or HTTP-01 (RFC 8555 section 8.3).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::crypto;

/// The protocol that a validating authority asks for (RFC 8737 section 6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// The challenges under way, each with what the authority is to see.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<Proofs>>);

#[derive(Debug, Default)]
struct Proofs {
    /// By the name that the authority asks for in TLS.
    tls: HashMap<String, Offered<Arc<ServerConfig>>>,
    /// By token.
    http: HashMap<String, Offered<String>>,
}

/// The content of a proof: what another node needs to show it, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProofContent {
    /// In TLS.
    Tls {
        /// The DNS name or IP address that is proved.
        name: String,
        /// The SHA-256 of the key authorization.
        digest: [u8; 32],
    },
    /// Over HTTP.
    Http {
        /// The token that the authority asks for.
        token: String,
        /// The key authorization.
        authorization: String,
    },
}

/// A proof, and whether it was asked for.
#[derive(Debug)]
struct Offered<T> {
    proof: T,
    seen: Arc<AtomicBool>,
}

impl<T: Clone> Offered<T> {
    fn show(&self) -> T {
        self.seen.store(true, Ordering::Relaxed);
        self.proof.clone()
    }
}

/// Why a proof cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The certificate cannot be made: our fault.
    #[error("cannot make the certificate of a challenge: {0}")]
    Sign(#[from] rcgen::Error),
    /// The certificate cannot be used: our fault.
    #[error("cannot use the certificate of a challenge: {0}")]
    Use(#[from] rustls::Error),
    /// The token is not in base64url (RFC 8555 section 8.3): the authority's fault.
    #[error("the token of a challenge is not well-formed")]
    Token,
}

impl Challenges {
    /// Offers a proof until the answer is dropped.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn offer(&self, content: &ProofContent) -> Result<ChallengeProof, ProofError> {
        match content {
            ProofContent::Tls { name, digest } => self.offer_tls(name, *digest),
            ProofContent::Http { token, authorization } => {
                self.offer_http(token, authorization.clone())
            }
        }
    }

    /// Offers the proof for `name`, a DNS name or an IP address, in TLS until the answer is dropped. `digest` is the SHA-256 of
    /// the key authorization.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn offer_tls(&self, name: &str, digest: [u8; 32]) -> Result<ChallengeProof, ProofError> {
        let name = name.to_ascii_lowercase();
        let proof = Arc::new(proof(&name, &digest)?);
        let asked_as = name.parse().map_or(name, reverse_name);
        let seen = Arc::<AtomicBool>::default();
        let offered = Offered { proof, seen: Arc::clone(&seen) };
        self.proofs().tls.insert(asked_as.clone(), offered);
        Ok(ChallengeProof { challenges: self.clone(), key: ProofKey::Name(asked_as), seen })
    }

    /// Offers the key authorization for `token` over HTTP until the answer is dropped.
    ///
    /// # Errors
    /// [`ProofError::Token`].
    pub fn offer_http(
        &self,
        token: &str,
        authorization: String,
    ) -> Result<ChallengeProof, ProofError> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if token.is_empty() || !token.bytes().all(is_fit) {
            return Err(ProofError::Token);
        }
        let seen = Arc::<AtomicBool>::default();
        let offered = Offered { proof: authorization, seen: Arc::clone(&seen) };
        self.proofs().http.insert(token.to_owned(), offered);
        Ok(ChallengeProof {
            challenges: self.clone(),
            key: ProofKey::Token(token.to_owned()),
            seen,
        })
    }

    /// Reports if an authority may connect to a listener with TLS.
    #[must_use]
    pub fn are_under_way(&self) -> bool {
        !self.proofs().tls.is_empty()
    }

    /// The configuration for a client that sends `hello`, if it is an authority that verifies a name of an order in
    /// progress.
    #[must_use]
    pub fn answer(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut protocols = hello.alpn()?;
        let only = protocols.next() == Some(ACME_TLS) && protocols.next().is_none();
        let name = hello.server_name().filter(|_| only)?.to_ascii_lowercase();
        self.proofs().tls.get(&name).map(Offered::show)
    }

    /// The key authorization for a token of an order in progress.
    #[must_use]
    pub fn answer_http(&self, token: &str) -> Option<String> {
        self.proofs().http.get(token).map(Offered::show)
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proof that is on offer.
#[derive(Debug)]
pub struct ChallengeProof {
    challenges: Challenges,
    key: ProofKey,
    seen: Arc<AtomicBool>,
}

#[derive(Debug)]
enum ProofKey {
    Name(String),
    Token(String),
}

impl ChallengeProof {
    /// Reports if somebody has asked for it.
    #[must_use]
    pub fn was_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for ChallengeProof {
    fn drop(&mut self) {
        let mut proofs = self.challenges.proofs();
        match &self.key {
            ProofKey::Name(name) => drop(proofs.tls.remove(name)),
            ProofKey::Token(token) => drop(proofs.http.remove(token)),
        }
    }
}

/// The name by which an authority asks for an IP address (RFC 8738 section 6): that of a reverse look-up.
fn reverse_name(address: IpAddr) -> String {
    let mut name = String::new();
    // Writing to a string does not fail.
    match address {
        IpAddr::V4(address) => {
            for byte in address.octets().iter().rev() {
                let _ = write!(name, "{byte}.");
            }
            name.push_str("in-addr.arpa");
        }
        IpAddr::V6(address) => {
            for byte in address.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", byte & 0xf, byte >> 4);
            }
            name.push_str("ip6.arpa");
        }
    }
    name
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_asked_for_by_the_name_of_a_reverse_look_up() {
        for (address, name) in [
            ("203.0.113.7", "7.113.0.203.in-addr.arpa"),
            // The example of RFC 8738 section 6.
            (
                "2001:db8::1",
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ] {
            assert_eq!(reverse_name(address.parse().unwrap()), name);
        }
    }

    #[test]
    fn proof_of_an_address_is_under_way_until_it_is_dropped() {
        let challenges = Challenges::default();
        let offer = challenges.offer_tls("2001:db8::1", [0; 32]).unwrap();
        assert!(challenges.are_under_way() && !offer.was_seen());
        drop(offer);
        assert!(!challenges.are_under_way());
    }

    #[test]
    fn token_that_is_no_token_is_refused_and_one_that_was_fetched_is_seen() {
        let challenges = Challenges::default();
        for token in ["", "a/b", "a?b", "../a", "a b"] {
            assert!(challenges.offer_http(token, String::new()).is_err(), "{token:?}");
        }
        let offer = challenges.offer_http("a", "a.b".to_owned()).unwrap();
        assert!(!challenges.are_under_way(), "no listener with TLS is concerned");
        assert_eq!((challenges.answer_http("b"), offer.was_seen()), (None, false));
        assert_eq!((challenges.answer_http("a").as_deref(), offer.was_seen()), (Some("a.b"), true));
        drop(offer);
        assert_eq!(challenges.answer_http("a"), None);
    }
}
