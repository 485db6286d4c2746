//! The one crypto provider of the process: aws-lc-rs, for TLS on both sides and for the notification client.

use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite};

/// The provider that every TLS configuration is built with.
///
/// The first call also makes it the process default, which reqwest takes (it is built without a provider of its own).
/// Call it before the first `reqwest::Client` is built.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        // It fails only if a default is there already: an embedding program's choice, which is then reqwest's too.
        let _ = in_order().install_default();
        Arc::new(in_order())
    });
    Arc::clone(provider)
}

/// All that rustls takes for good, AES-128 with SHA-256 first: what it does not need to be safe, AES-256 with SHA-384 takes up a
/// tenth of a login's time (docs/performance.md).
fn in_order() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(rank);
    provider
}

fn rank(suite: &SupportedCipherSuite) -> (bool, bool) {
    let is_quick = matches!(
        suite.suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    );
    (suite.version().version != ProtocolVersion::TLSv1_3, !is_quick)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_provider_for_all_and_for_reqwest() {
        assert!(Arc::ptr_eq(&provider(), &provider()));
        assert!(CryptoProvider::get_default().is_some());
    }

    #[test]
    fn no_suite_is_lost_and_the_quick_ones_come_first() {
        let (ours, default) = (provider(), aws_lc_rs::default_provider());
        assert_eq!(ours.cipher_suites.len(), default.cipher_suites.len());
        assert!(default.cipher_suites.iter().all(|suite| ours.cipher_suites.contains(suite)));
        let names: Vec<CipherSuite> =
            ours.cipher_suites.iter().map(SupportedCipherSuite::suite).collect();
        assert_eq!(names[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(names[3], CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    }
}
