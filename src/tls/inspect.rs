//! The certificate chain that a server shows, and its verification as a client does it.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::crypto;

/// Makes a TLS handshake on `stream` and returns the chain that the server shows, leaf first, whatever certificate it is. Nothing
/// else is sent.
///
/// # Errors
/// If the handshake fails for another reason than the certificate.
pub(crate) async fn shown_chain(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    name: ServerName<'static>,
) -> io::Result<Vec<CertificateDer<'static>>> {
    let provider = crypto::provider();
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyChain(provider)))
        .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().cloned().map(CertificateDer::into_owned).collect())
}

/// Verifies a chain for `name` as a client with these authorities does.
///
/// # Errors
/// Why a client refuses it.
pub(crate) fn verify(
    chain: &[CertificateDer<'static>],
    name: &ServerName<'static>,
    roots: RootCertStore,
) -> Result<(), Error> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto::provider()).build();
    let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
    verifier.verify_server_cert(leaf, intermediates, name, &[], UnixTime::now()).map(drop)
}

/// True if clients with more or other authorities may accept the chain.
pub(crate) fn is_unknown_issuer(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

/// Takes any chain, to look at it. That the server has the key is verified.
#[derive(Debug)]
struct AnyChain(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyChain {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;

    use super::*;
    use crate::config::Trust;
    use crate::tls::client;

    fn name() -> ServerName<'static> {
        "push.example.org".try_into().unwrap()
    }

    #[tokio::test]
    async fn chain_of_any_server_is_shown_and_judged() {
        let made = rcgen::generate_simple_self_signed(["push.example.org".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let config = ServerConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], made.signing_key.into())
            .unwrap();
        let (here, there) = tokio::io::duplex(16 * 1024);
        // The client hangs up after its handshake, which the server may notice in its own.
        let (shown, _) = tokio::join!(
            shown_chain(here, name()),
            TlsAcceptor::from(Arc::new(config)).accept(there)
        );
        let chain = shown.unwrap();
        assert_eq!(chain, std::slice::from_ref(&certificate));

        let trusting = |certificate: &CertificateDer<'static>| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).unwrap();
            roots
        };
        assert!(verify(&chain, &name(), trusting(&certificate)).is_ok());
        let public = client::roots(&Trust::WebPki).unwrap();
        let unknown = verify(&chain, &name(), public).unwrap_err();
        assert!(is_unknown_issuer(&unknown), "{unknown}");
        let other_name = "imap.example.org".try_into().unwrap();
        let error = verify(&chain, &other_name, trusting(&certificate)).unwrap_err();
        assert!(!is_unknown_issuer(&error), "{error}");
        assert!(verify(&[], &name(), trusting(&certificate)).is_err());
    }
}
