//! TLS clients that look closely: which certificate is shown, whether the session is resumed.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::compress::{CertDecompressor, DecompressionFailed};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CertificateCompressionAlgorithm, ClientConfig, HandshakeKind};

use super::certs::client_config;

const PATIENCE: Duration = Duration::from_secs(40);

/// Trusts what is in a PEM file, and asks for these protocols.
pub(crate) fn trusting(trusted: &Path, alpn: &[&[u8]]) -> ClientConfig {
    let mut config = (*client_config(trusted)).clone();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A handshake with a server on loopback that must show a certificate for `name`, as any client would verify it. An IP address
/// is not told to the server (RFC 6066 section 3).
pub(crate) async fn handshake(
    port: u16,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    handshake_again(port, name, &Arc::new(config)).await
}

/// The same with a configuration that remembers sessions.
pub(crate) async fn handshake_again(
    port: u16,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    TlsConnector::from(Arc::clone(config))
        .connect(ServerName::try_from(name.to_owned()).unwrap(), tcp)
        .await
}

/// Decompresses certificates (RFC 8879) as Delta Chat does, and counts them.
#[derive(Debug, Default)]
pub(crate) struct Decompressor(AtomicUsize);

impl Decompressor {
    /// One for the life of the test program: rustls takes nothing else.
    pub(crate) fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    /// The number of certificates that were compressed.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl CertDecompressor for Decompressor {
    fn decompress(&self, mut input: &[u8], output: &mut [u8]) -> Result<(), DecompressionFailed> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut read = Vec::new();
        brotli::BrotliDecompress(&mut input, &mut read).map_err(|_| DecompressionFailed)?;
        let is_whole = read.len() == output.len();
        is_whole.then(|| output.copy_from_slice(&read)).ok_or(DecompressionFailed)
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        CertificateCompressionAlgorithm::Brotli
    }
}

/// The certificate that was shown.
pub(crate) fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// Its public key, with the algorithm: what Delta Chat remembers.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    parsed.public_key().raw.to_vec()
}

/// Returns the handshake's kind. Reads the greeting first: with it come the tickets for the next time.
pub(crate) async fn kind_after_greeting(stream: &mut TlsStream<TcpStream>) -> HandshakeKind {
    let line = line(stream).await;
    assert!(line.starts_with("* OK"), "{line}");
    stream.get_ref().1.handshake_kind().unwrap()
}

/// One line.
pub(crate) async fn line(stream: &mut TlsStream<TcpStream>) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        line.push(byte.unwrap_or_else(|_| panic!("no line came, only {line:?}")).unwrap());
    }
    String::from_utf8(line).unwrap()
}

/// Says NOOP and hears the answer.
pub(crate) async fn is_alive(stream: &mut TlsStream<TcpStream>) -> bool {
    stream.write_all(b"n NOOP\r\n").await.unwrap();
    line(stream).await.starts_with("n OK")
}
