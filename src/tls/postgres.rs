//! TLS to a PostgreSQL server: rustls for tokio-postgres, with channel binding for SCRAM-SHA-256-PLUS.
//!
//! tokio-postgres brings no TLS of its own. The crates that join it with rustls bring a second reader of certificates, and one
//! of them a second crypto provider.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client::{TrustError, client_config, roots};
use crate::config::Trust;

/// TLS for connections to a database, whose certificate must be valid for its name. Clones share the configuration.
#[derive(Debug, Clone)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// Servers whose certificates come from `trust`. Blocks on files.
    ///
    /// # Errors
    /// [`TrustError`]: the operator's to mend.
    pub fn new(trust: &Trust) -> Result<Self, TrustError> {
        Ok(Self(client_config(roots(trust)?)?))
    }

    /// No server: for connections without TLS.
    ///
    /// # Errors
    /// [`TrustError::Setup`]: a bug in deltapush.
    pub fn trusting_nobody() -> Result<Self, TrustError> {
        Ok(Self(client_config(RootCertStore::empty())?))
    }
}

/// TLS with one server.
pub struct ServerConnector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A connection over TLS.
pub struct Stream<S>(TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Stream<S>;
    type TlsConnect = ServerConnector;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<ServerConnector, InvalidDnsNameError> {
        // A Unix socket has no name, and no TLS.
        let host = if host.is_empty() { "localhost" } else { host };
        let name = ServerName::try_from(host)?.to_owned();
        Ok(ServerConnector { config: Arc::clone(&self.0), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for ServerConnector {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let handshake = TlsConnector::from(self.config).connect(self.name, stream);
        Box::pin(async move { Ok(Stream(handshake.await?)) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates().unwrap_or_default();
        match certificates.first().and_then(|leaf| end_point(leaf)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

/// The channel binding `tls-server-end-point` (RFC 5929 section 4.1): the certificate's hash, by the hash function of its
/// signature, SHA-256 in place of MD5 and SHA-1. None for a signature without a hash of its own (Ed25519): PostgreSQL has no
/// such binding either.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = hash_of(&parsed.signature_algorithm.algorithm.to_id_string())?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash function for the certificates that this algorithm signed, by its object identifier (RFC 8017, RFC 5758).
fn hash_of(signature: &str) -> Option<&'static Algorithm> {
    match signature {
        // md5, sha1 and sha256WithRSAEncryption; ecdsa-with-SHA1 and -SHA256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => Some(&SHA256),
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(&SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&SHA512),
        _ => None,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn binding(algorithm: &'static SignatureAlgorithm) -> Option<usize> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names = vec!["db.example.org".to_owned()];
        let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        end_point(made.der()).map(|hash| hash.len())
    }

    #[test]
    fn channel_binding_has_the_hash_of_the_signature() {
        assert_eq!(binding(&rcgen::PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(binding(&rcgen::PKCS_ECDSA_P384_SHA384), Some(48));
        assert_eq!(binding(&rcgen::PKCS_ED25519), None);
        assert_eq!(end_point(b"no certificate"), None);
    }
}
