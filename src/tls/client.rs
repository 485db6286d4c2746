//! TLS as a client: one client configuration per kind of trust, built once at the start, and the certificate authorities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_native_certs::CertificateResult;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::config::{Route, Trust};
use crate::crypto;
use crate::pem_file::{self, PemError};

/// Number of servers whose sessions are stored for resumption, per kind of trust. Watches return to the same few servers.
const REMEMBERED_SERVERS: usize = 256;

const FILE_CURE: &str = "`ca` is webpki, system, or the path of a certificate authority's file in PEM (`-----BEGIN CERTIFICATE-----`)";

/// The client configurations of all routes.
#[derive(Debug, Clone)]
pub struct ClientConfigs {
    /// The strictest one, there in any case.
    webpki: Arc<ClientConfig>,
    /// The others that some route names.
    others: HashMap<Trust, Arc<ClientConfig>>,
}

/// Why upstream certificates could not be verified. All of these are for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of certificate authorities cannot be read, or is not PEM with certificates.
    #[error(transparent)]
    File(#[from] PemError),
    /// A certificate in a route's PEM file cannot be a trust anchor.
    #[error("{}: a certificate in it cannot be used: {source}; export it again from your certificate authority", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The system has no certificate authorities.
    #[error(
        "no certificate authorities found on this system{detail}; install them (Debian: ca-certificates) or use `ca: webpki`"
    )]
    System {
        /// The first thing that went wrong, with a colon before it; may be empty.
        detail: String,
    },
    /// The provider does not support the protocol versions: our fault.
    #[error("cannot set up TLS: {0}; this is a bug in deltapush")]
    Setup(#[source] rustls::Error),
}

impl ClientConfigs {
    /// Reads what the routes' `ca` name. Blocks on files; the system's list is read only if a route says `system`.
    ///
    /// # Errors
    /// [`TrustError`] if a list is missing, empty or unusable.
    pub fn new(routes: &[Route]) -> Result<Self, TrustError> {
        let webpki = client_config(roots(&Trust::WebPki)?)?;
        let mut others = HashMap::new();
        for trust in routes.iter().map(|route| &*route.ca) {
            if *trust != Trust::WebPki && !others.contains_key(trust) {
                others.insert(trust.clone(), client_config(roots(trust)?)?);
            }
        }
        Ok(Self { webpki, others })
    }

    /// The configuration for `trust`. A trust that no route named gets Mozilla's list.
    #[must_use]
    pub fn get(&self, trust: &Trust) -> &Arc<ClientConfig> {
        self.others.get(trust).unwrap_or(&self.webpki)
    }
}

/// No ALPN: nothing speaks another protocol on these ports, and some old servers hang up on it.
pub(super) fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, TrustError> {
    let mut config = ClientConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(REMEMBERED_SERVERS);
    Ok(Arc::new(config))
}

/// The certificate authorities for HTTPS: those that `ca` names. Without it the built-in ones, and this machine's if it has any.
///
/// # Errors
/// [`TrustError`], the operator's to mend.
pub fn https_roots(ca: Option<&Trust>) -> Result<RootCertStore, TrustError> {
    if let Some(trust) = ca {
        return roots(trust);
    }
    let mut found = roots(&Trust::WebPki)?;
    found.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(found)
}

/// The certificate authorities that `trust` stands for. Blocks on files.
///
/// # Errors
/// [`TrustError`] if the list is missing, empty or unusable.
pub fn roots(trust: &Trust) -> Result<RootCertStore, TrustError> {
    match trust {
        Trust::WebPki => Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
        Trust::System => system(rustls_native_certs::load_native_certs()),
        Trust::File(path) => file(path),
    }
}

fn system(found: CertificateResult) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    // Systems carry the odd certificate that cannot be parsed; the others serve.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let detail = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(TrustError::System { detail });
    }
    Ok(roots)
}

fn file(path: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in pem_file::certificates(path, FILE_CURE)? {
        roots
            .add(certificate)
            .map_err(|source| TrustError::Unusable { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::{
        ClientConnection, HandshakeKind, ServerConfig, ServerConnection, SupportedProtocolVersion,
        version,
    };

    use super::*;
    use crate::config::Config;

    fn configs(folder: &Path, cas: &[&str]) -> Result<ClientConfigs, TrustError> {
        let mut yaml = "routes:\n".to_owned();
        for (index, ca) in cas.iter().enumerate() {
            yaml += &format!(
                "  - domain: d{index}.example\n    upstream: imaps://a.example\n    ca: {ca}\n"
            );
        }
        ClientConfigs::new(&Config::parse(&yaml, folder, "test").unwrap().live.routes)
    }

    fn authority() -> String {
        rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn one_configuration_per_kind_of_trust() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first.pem"), folder.path().join("second.pem"));
        fs::write(&first, authority()).unwrap();
        fs::write(&second, authority() + &authority()).unwrap();
        let configs =
            configs(folder.path(), &["webpki", "first.pem", "second.pem", "first.pem"]).unwrap();
        assert_eq!(configs.others.len(), 2);
        let of_file = |path: &Path| configs.get(&Trust::File(path.into()));
        assert!(!Arc::ptr_eq(of_file(&first), of_file(&second)));
        assert!(!Arc::ptr_eq(of_file(&first), configs.get(&Trust::WebPki)));
        assert!(Arc::ptr_eq(configs.get(&Trust::System), configs.get(&Trust::WebPki)));
        assert!(configs.get(&Trust::WebPki).alpn_protocols.is_empty());
    }

    /// A server with session tickets, and a client that comes three times.
    fn kinds(version: &'static SupportedProtocolVersion) -> Vec<Option<HandshakeKind>> {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        let server = ServerConfig::builder_with_provider(crypto::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], made.signing_key.into())
            .unwrap();
        let server = Arc::new(server);
        let configs = configs(folder.path(), &["ca.pem"]).unwrap();
        let client = configs.get(&Trust::File(folder.path().join("ca.pem").into()));
        let visit = |_| {
            let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
            let mut client =
                ClientConnection::new(Arc::clone(client), "a.example".try_into().unwrap()).unwrap();
            for _ in 0..5 {
                let mut wire = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                server.read_tls(&mut &*wire).unwrap();
                server.process_new_packets().unwrap();
                let mut wire = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                client.read_tls(&mut &*wire).unwrap();
                client.process_new_packets().unwrap();
            }
            client.handshake_kind()
        };
        (0..3).map(visit).collect()
    }

    #[test]
    fn sessions_are_resumed_in_both_versions() {
        for version in [&version::TLS12, &version::TLS13] {
            let [full, resumed] = [HandshakeKind::Full, HandshakeKind::Resumed].map(Some);
            assert_eq!(kinds(version), [full, resumed, resumed], "{version:?}");
        }
    }

    #[test]
    fn system_without_authorities_is_told_what_to_install() {
        let mut found = CertificateResult::default();
        found.certs.push(vec![1, 2, 3].into());
        let error = system(found).unwrap_err().to_string();
        assert!(error.contains("ca-certificates") && error.contains("`ca: webpki`"), "{error}");
        let mut found = CertificateResult::default();
        let usable = rcgen::generate_simple_self_signed(["ca.example".to_owned()])
            .unwrap()
            .cert
            .der()
            .clone();
        found.certs.extend([vec![1, 2, 3].into(), usable]);
        assert_eq!(system(found).unwrap().len(), 1);
    }

    #[test]
    fn file_that_does_not_serve_is_named_with_a_cure() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("empty.pem"), "nothing here\n").unwrap();
        fs::write(
            folder.path().join("broken.pem"),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        for (ca, expected) in [
            ("missing.pem", "cannot be read"),
            ("webki", "`ca` is webpki, system"),
            ("empty.pem", "no certificate in it"),
            ("broken.pem", "cannot be used"),
        ] {
            let error = configs(folder.path(), &[ca]).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.starts_with(folder.path().to_str().unwrap()),
                "{error}"
            );
        }
    }
}
