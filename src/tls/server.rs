//! TLS towards clients: one server configuration for IMAP and one for listeners that show pages too, built once. The parts
//! that may change while deltapush runs, the certificates and the proofs for an authority, lie behind them.

use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs::Ticketer;
use tokio_rustls::rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::crypto;
use crate::tls::acme::challenges::Challenges;
use crate::tls::certs::{CertificateSet, CertificateSettings, Certificates, LoadError};
use crate::tls::compression;
use crate::tls::tickets::SharedTickets;

/// ALPN of IMAP, as Delta Chat asks for it on unusual ports.
const IMAP: &[u8] = b"imap";
/// ALPN of HTTP/1.1 and HTTP/2.
pub(crate) const HTTP_1: &[u8] = b"http/1.1";
pub(crate) const HTTP_2: &[u8] = b"h2";

/// The TLS settings of listeners.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// IMAP alone.
    pub imap: Arc<ServerConfig>,
    /// IMAP, and HTTP too.
    pub web: Arc<ServerConfig>,
    /// The certificates that both show.
    pub certificates: Arc<Certificates>,
    /// The names that are being proved to an authority.
    pub challenges: Challenges,
}

/// Why clients cannot be served TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// There is no certificate, or it cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The provider cannot do what we ask for: our fault.
    #[error("cannot set up TLS: {0}; this is a bug in deltapush")]
    Setup(#[source] rustls::Error),
}

impl ServerTls {
    /// Loads, makes or renews the certificates. Blocks on files.
    ///
    /// # Errors
    /// [`ServerTlsError`] naming the file and the cure.
    pub fn load(wanted: &CertificateSettings) -> Result<Self, ServerTlsError> {
        Self::new(Certificates::new(wanted.clone(), CertificateSet::load(wanted)?))
    }

    /// TLS 1.2 and 1.3. A client that names no protocol gets IMAP; one that names only protocols that are not spoken is
    /// refused (RFC 7301 section 3.2).
    ///
    /// # Errors
    /// [`ServerTlsError::Setup`].
    pub fn new(certificates: Certificates) -> Result<Self, ServerTlsError> {
        let certificates = Arc::new(certificates);
        let mut imap = ServerConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .map_err(ServerTlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        imap.alpn_protocols = vec![IMAP.to_vec()];
        // Delta Chat's order is the one that its TLS library happens to come with, AES-256 first.
        imap.ignore_client_order = true;
        // The session's state lies in the ticket, with the client: phones reconnect often, and sessions cost no memory here.
        // Tickets outlive certificates: they are sealed with keys of their own.
        imap.ticketer = Ticketer::new().map_err(ServerTlsError::Setup)?;
        imap.cert_compressors = compression::COMPRESSORS.to_vec();
        imap.cert_compression_cache = Arc::new(compression::cache());
        // A login in early data could be replayed (RFC 8446 section 8).
        imap.max_early_data_size = 0;
        let mut web = imap.clone();
        web.alpn_protocols = [IMAP, HTTP_2, HTTP_1].map(<[u8]>::to_vec).into();
        Ok(Self {
            imap: Arc::new(imap),
            web: Arc::new(web),
            certificates,
            challenges: Challenges::default(),
        })
    }

    /// The same for one of several nodes: with tickets that all of them open, and with `challenges`, which it answers for others,
    /// too.
    #[must_use]
    pub fn of_node(mut self, tickets: SharedTickets, challenges: Challenges) -> Self {
        let tickets: Arc<dyn ProducesTickets> = Arc::new(tickets);
        for config in [&mut self.imap, &mut self.web] {
            Arc::make_mut(config).ticketer = Arc::clone(&tickets);
        }
        Self { challenges, ..self }
    }

    /// `config` for a client that named no host, as those that connect to an IP address do (RFC 6066 section 3): it shows the
    /// certificate for the address `local` to which the client connected, if one is for it.
    #[must_use]
    pub fn for_address(&self, config: &Arc<ServerConfig>, local: IpAddr) -> Arc<ServerConfig> {
        let Some(shown) = self.certificates.get().further_for(local) else {
            return Arc::clone(config);
        };
        let mut own = ServerConfig::clone(config);
        own.cert_resolver = Arc::new(OneCertificate(shown));
        Arc::new(own)
    }

    /// The same certificates for a listener that speaks HTTP/1.1 alone.
    #[must_use]
    pub fn for_http(&self) -> Arc<ServerConfig> {
        let mut http = (*self.imap).clone();
        http.alpn_protocols = vec![HTTP_1.to_vec()];
        Arc::new(http)
    }
}

/// Shows one certificate to every client.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::client::ClientConfig;
    use rustls::pki_types::ServerName;
    use rustls::{
        ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection,
        SupportedProtocolVersion, version,
    };

    use super::*;
    use crate::config::{self, Hostname};
    use crate::tls::certs::identity::Identity;

    struct Fixture {
        tls: ServerTls,
        roots: RootCertStore,
        folder: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let certificate =
            config::Certificate { directory: folder.path().into(), ..Default::default() };
        let hostname = Hostname::new("_imap.example.org").unwrap();
        let identity = Identity::load(&hostname, &certificate).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(identity.chain[0].clone()).unwrap();
        let wanted = CertificateSettings { hostname, certificate };
        Fixture { tls: ServerTls::load(&wanted).unwrap(), roots, folder }
    }

    impl Fixture {
        fn client(
            &self,
            versions: &[&'static SupportedProtocolVersion],
            alpn: &[&[u8]],
        ) -> Arc<ClientConfig> {
            let mut client = ClientConfig::builder_with_provider(crypto::provider())
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(self.roots.clone())
                .with_no_client_auth();
            client.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(client)
        }

        fn handshake(
            &self,
            client: &Arc<ClientConfig>,
        ) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
            self.handshake_with(&self.tls.imap, client)
        }

        fn handshake_with(
            &self,
            server: &Arc<ServerConfig>,
            client: &Arc<ClientConfig>,
        ) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
            let name = ServerName::try_from("_imap.example.org").unwrap();
            let mut client = ClientConnection::new(Arc::clone(client), name)?;
            let mut server = ServerConnection::new(Arc::clone(server))?;
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
        for (version, expected) in [
            (&version::TLS12, ProtocolVersion::TLSv1_2),
            (&version::TLS13, ProtocolVersion::TLSv1_3),
        ] {
            let client = fixture.client(&[version], &[b"imap"]);
            let (first, _) = fixture.handshake(&client).unwrap();
            assert_eq!(
                (first.protocol_version(), first.handshake_kind()),
                (Some(expected), Some(HandshakeKind::Full))
            );
            let (second, _) = fixture.handshake(&client).unwrap();
            assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed), "{expected:?}");
        }
    }

    #[test]
    fn fast_cipher_is_chosen_whatever_the_client_prefers() {
        let fixture = fixture();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.reverse();
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(fixture.roots.clone())
            .with_no_client_auth();
        let (server, _) = fixture.handshake(&Arc::new(client)).unwrap();
        let agreed = server.negotiated_cipher_suite().map(|suite| suite.suite());
        assert_eq!(agreed, Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
    }

    #[test]
    fn no_early_data_is_taken() {
        let fixture = fixture();
        let mut client = ClientConfig::clone(&fixture.client(&[&version::TLS13], &[b"imap"]));
        client.enable_early_data = true;
        let client = Arc::new(client);
        fixture.handshake(&client).unwrap();
        let name = ServerName::try_from("_imap.example.org").unwrap();
        let mut again = ClientConnection::new(client, name).unwrap();
        assert!(again.early_data().is_none(), "the ticket must not allow it");
    }

    #[test]
    fn session_of_one_node_is_resumed_at_another() {
        use crate::reloadable::Reloadable;
        use crate::tls::tickets::TicketKeys;

        let now = 1_800_000_000;
        let keys = TicketKeys::read(&[]).rotated(now).unwrap().record();
        let fixture = fixture();
        let node = || {
            let keys = Reloadable::new(TicketKeys::read(keys.expose()));
            let tickets = SharedTickets::new(keys, || 1_800_000_000);
            fixture.tls.clone().of_node(tickets, Challenges::default())
        };
        for version in [&version::TLS12, &version::TLS13] {
            let client = fixture.client(&[version], &[b"imap"]);
            let (first, _) = fixture.handshake_with(&node().imap, &client).unwrap();
            let (second, _) = fixture.handshake_with(&node().web, &client).unwrap();
            let kinds = [first.handshake_kind(), second.handshake_kind()];
            assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
        }
    }

    #[test]
    fn tickets_outlive_the_certificate() {
        let fixture = fixture();
        for version in [&version::TLS12, &version::TLS13] {
            let client = fixture.client(&[version], &[b"imap"]);
            fixture.handshake(&client).unwrap();
            fs::remove_file(fixture.folder.path().join("_imap.example.org.cert.pem")).unwrap();
            let before = fixture.tls.certificates.get().summary().not_after;
            fixture.tls.certificates.refresh().unwrap();
            assert!(before <= fixture.tls.certificates.get().summary().not_after);
            let (resumed, _) = fixture.handshake(&client).unwrap();
            assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));
        }
    }

    #[test]
    fn alpn_is_imap_or_nothing_and_http_where_it_is_wanted() {
        let fixture = fixture();
        let protocol = |server: &Arc<ServerConfig>, alpn: &[&[u8]]| {
            let handshake =
                fixture.handshake_with(server, &fixture.client(rustls::ALL_VERSIONS, alpn));
            handshake.map(|(server, _)| server.alpn_protocol().map(<[u8]>::to_vec))
        };
        let ServerTls { imap, web, .. } = &fixture.tls;
        for server in [imap, web] {
            assert_eq!(protocol(server, &[]).unwrap(), None);
            assert_eq!(protocol(server, &[b"imap"]).unwrap().as_deref(), Some(IMAP));
            assert_eq!(protocol(server, &[b"h2", b"imap"]).unwrap().as_deref(), Some(IMAP));
            assert_eq!(
                protocol(server, &[b"acme-tls/1"]).unwrap_err(),
                rustls::Error::NoApplicationProtocol
            );
        }
        assert_eq!(protocol(imap, &[b"h2"]).unwrap_err(), rustls::Error::NoApplicationProtocol);
        assert_eq!(protocol(web, &[b"http/1.1", b"h2"]).unwrap().as_deref(), Some(HTTP_2));
        assert_eq!(protocol(web, &[b"http/1.1"]).unwrap().as_deref(), Some(HTTP_1));
    }

    #[test]
    fn key_of_another_certificate_is_noticed() {
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
        let wanted =
            CertificateSettings { hostname: Hostname::new("a.example").unwrap(), certificate };
        let error = CertificateSet::check(&wanted).unwrap_err().to_string();
        assert!(
            error.starts_with(file("chain.pem").to_str().unwrap())
                && error.contains("must belong together"),
            "{error}"
        );
    }
}
