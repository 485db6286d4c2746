//! TLS towards clients: one server configuration for all listeners, built once at the start.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs::Ticketer;
use tokio_rustls::rustls::{self, ServerConfig};

use super::certificate::{CertificateError, Identity, Summary};
use crate::config::{self, Hostname};
use crate::crypto;

/// What listeners need for TLS, and what to say about it.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For `tokio_rustls::TlsAcceptor`.
    pub config: Arc<ServerConfig>,
    /// The certificate in it.
    pub certificate: Summary,
}

/// Why clients cannot be served TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Certificate and key do not fit together, or are of a kind that TLS cannot use. For the operator to mend.
    #[error(
        "{path}: {source}; `certificate.chain` and `certificate.key` must belong together, the server's own certificate first"
    )]
    Mismatch {
        /// The chain's file.
        path: String,
        /// What does not fit.
        source: rustls::Error,
    },
    /// The provider cannot do what we ask for: our fault.
    #[error("cannot set up TLS: {0}; this is a bug in deltapush")]
    Setup(#[source] rustls::Error),
}

impl ServerTls {
    /// Loads, makes or renews the certificate. Blocks on files.
    ///
    /// # Errors
    /// [`ServerTlsError`] naming the file and the cure.
    pub fn load(hostname: &Hostname, certificate: &config::Certificate) -> Result<Self, ServerTlsError> {
        Self::new(Identity::load(hostname, certificate)?)
    }

    /// A configuration for TLS 1.2 and 1.3 that offers ALPN `imap` (RFC 8314, as Delta Chat asks for on unusual ports); a client that
    /// names no protocol is served as well, one that names others only is not (RFC 7301 section 3.2).
    ///
    /// # Errors
    /// [`ServerTlsError`] if certificate and key do not fit together.
    pub fn new(identity: Identity) -> Result<Self, ServerTlsError> {
        let Identity { chain, key, summary } = identity;
        let mismatch = |source| ServerTlsError::Mismatch { path: summary.path.display().to_string(), source };
        let mut config = ServerConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .map_err(ServerTlsError::Setup)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(mismatch)?;
        config.alpn_protocols = vec![b"imap".to_vec()];
        // The session's state lies in the ticket, with the client: phones reconnect often, and sessions cost no memory here.
        config.ticketer = Ticketer::new().map_err(ServerTlsError::Setup)?;
        // A login in early data could be replayed (RFC 8446 section 8).
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), certificate: summary })
    }

    /// What [`ServerTls::load`] would do, without writing anything.
    ///
    /// # Errors
    /// [`ServerTlsError`] if it would fail on what is there.
    pub fn check(hostname: &Hostname, certificate: &config::Certificate) -> Result<Summary, ServerTlsError> {
        if certificate.chain.is_some() && certificate.key.is_some() {
            return Ok(Self::load(hostname, certificate)?.certificate);
        }
        Ok(Summary::check(hostname, certificate)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::client::ClientConfig;
    use rustls::pki_types::ServerName;
    use rustls::{
        ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection, SupportedProtocolVersion,
        version,
    };

    use super::*;

    struct Fixture {
        tls: ServerTls,
        roots: RootCertStore,
        _folder: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let certificate = config::Certificate { directory: folder.path().into(), ..Default::default() };
        let hostname = Hostname::new("_imap.example.org").unwrap();
        let identity = Identity::load(&hostname, &certificate).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(identity.chain[0].clone()).unwrap();
        Fixture { tls: ServerTls::new(identity).unwrap(), roots, _folder: folder }
    }

    impl Fixture {
        fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> Arc<ClientConfig> {
            let mut client = ClientConfig::builder_with_provider(crypto::provider())
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(self.roots.clone())
                .with_no_client_auth();
            client.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(client)
        }

        fn handshake(&self, client: &Arc<ClientConfig>) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
            let name = ServerName::try_from("_imap.example.org").unwrap();
            let mut client = ClientConnection::new(Arc::clone(client), name)?;
            let mut server = ServerConnection::new(Arc::clone(&self.tls.config))?;
            // Once more after the handshake, for the tickets.
            for _ in 0..5 {
                let mut wire = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                server.read_tls(&mut &*wire).unwrap();
                server.process_new_packets()?;
                let mut wire = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                client.read_tls(&mut &*wire).unwrap();
                client.process_new_packets()?;
            }
            assert!(!server.is_handshaking() && !client.is_handshaking());
            Ok((server, client))
        }
    }

    #[test]
    fn both_versions_are_spoken_and_resumed() {
        let fixture = fixture();
        for (version, expected) in
            [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
        {
            let client = fixture.client(&[version], &[b"imap"]);
            let (first, _) = fixture.handshake(&client).unwrap();
            assert_eq!((first.protocol_version(), first.handshake_kind()), (Some(expected), Some(HandshakeKind::Full)));
            let (second, _) = fixture.handshake(&client).unwrap();
            assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed), "{expected:?}");
        }
    }

    #[test]
    fn alpn_is_imap_or_nothing() {
        let fixture = fixture();
        let protocol = |alpn: &[&[u8]]| {
            let handshake = fixture.handshake(&fixture.client(rustls::ALL_VERSIONS, alpn));
            handshake.map(|(server, _)| server.alpn_protocol().map(<[u8]>::to_vec))
        };
        assert_eq!(protocol(&[]).unwrap(), None);
        assert_eq!(protocol(&[b"imap"]).unwrap().as_deref(), Some(&b"imap"[..]));
        assert_eq!(protocol(&[b"h2", b"imap"]).unwrap().as_deref(), Some(&b"imap"[..]));
        assert_eq!(protocol(&[b"h2"]).unwrap_err(), rustls::Error::NoApplicationProtocol);
    }

    #[test]
    fn a_key_of_another_certificate_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let make = || rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        fs::write(file("chain.pem"), make().cert.pem()).unwrap();
        fs::write(file("key.pem"), make().signing_key.serialize_pem()).unwrap();
        let certificate = config::Certificate {
            chain: Some(file("chain.pem").into()),
            key: Some(file("key.pem").into()),
            ..Default::default()
        };
        let error = ServerTls::check(&Hostname::new("a.example").unwrap(), &certificate).unwrap_err().to_string();
        assert!(
            error.starts_with(file("chain.pem").to_str().unwrap()) && error.contains("must belong together"),
            "{error}"
        );
    }
}
