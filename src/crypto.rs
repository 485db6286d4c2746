//! The one crypto provider of the process: aws-lc-rs, for TLS on both sides and for the notification client.

use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The provider that every TLS configuration is built with.
///
/// The first call also makes it the process default, which reqwest takes (it is built without a provider of its own).
/// Call it before the first `reqwest::Client` is built.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        // It fails only if a default is there already: an embedding program's choice, which is then reqwest's too.
        let _ = aws_lc_rs::default_provider().install_default();
        Arc::new(aws_lc_rs::default_provider())
    });
    Arc::clone(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_provider_for_all_and_for_reqwest() {
        assert!(Arc::ptr_eq(&provider(), &provider()));
        assert!(CryptoProvider::get_default().is_some());
    }
}
