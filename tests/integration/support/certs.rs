//! Certificates: an authority of the test's own, and what a client trusts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate authority with one server certificate, for `localhost` and 127.0.0.1, as PEM files.
pub(crate) struct Authority {
    /// The authority's certificate.
    pub(crate) ca: PathBuf,
    /// The server's certificate.
    pub(crate) leaf_cert: PathBuf,
    /// The server's private key.
    pub(crate) leaf_key: PathBuf,
}

impl Authority {
    /// Makes both in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::naming(dir, &["localhost", "127.0.0.1"])
    }

    /// The same, with a server certificate for these names.
    pub(crate) fn naming(dir: &Path, names: &[&str]) -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(DnType::CommonName, "deltapush test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_cert = ca.self_signed(&ca_key).unwrap();

        let mut leaf =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())
                .unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        leaf.use_authority_key_identifier_extension = true;
        let leaf_key = KeyPair::generate().unwrap();
        let leaf_cert = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key)).unwrap();

        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        Self {
            ca: write("ca.pem", ca_cert.pem()),
            leaf_cert: write("leaf.pem", leaf_cert.pem()),
            leaf_key: write("leaf.key", leaf_key.serialize_pem()),
        }
    }

    /// The same certificates in another folder.
    pub(crate) fn copied_to(&self, dir: &Path) -> Self {
        let copy = |from: &Path| {
            let to = dir.join(from.file_name().unwrap());
            fs::copy(from, &to).unwrap();
            to
        };
        Self {
            ca: copy(&self.ca),
            leaf_cert: copy(&self.leaf_cert),
            leaf_key: copy(&self.leaf_key),
        }
    }

    /// TLS for a server that shows the leaf certificate.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let chain =
            CertificateDer::pem_file_iter(&self.leaf_cert).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&self.leaf_key).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }
}

/// TLS for a client that trusts the certificates in a PEM file and no other.
pub(crate) fn client_config(trusted: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusted).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
