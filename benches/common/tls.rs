//! One authority and one certificate for all that is in a benchmark, and who trusts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use deltapush::crypto;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::{self, Ticketer};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate for [`HOST`] and `localhost`, and the authority that issued it.
pub(crate) struct Authority {
    /// The authority that clients trust.
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as some programs want them.
    pub(crate) both: PathBuf,
}

/// The order of ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As rustls has them, and with it Delta Chat; a server follows the client.
    Usual,
    /// As deltapush has them, with which something is compared.
    Ours,
}

impl Order {
    fn provider(self) -> Arc<CryptoProvider> {
        match self {
            Self::Usual => Arc::new(aws_lc_rs::default_provider()),
            Self::Ours => crypto::provider(),
        }
    }
}

pub(crate) const HOST: &str = "127.0.0.1";

impl Authority {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self {
            ca: file("ca.pem"),
            certificate: file("certificate.pem"),
            key: file("key.pem"),
            both: file("both.pem"),
        }
    }

    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let files = Self::in_folder(folder);
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "deltapush benchmark authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate()?;
        fs::write(&files.ca, ca.self_signed(&ca_key)?.pem())?;

        let mut leaf = CertificateParams::new([HOST.to_owned(), "localhost".to_owned()])?;
        leaf.use_authority_key_identifier_extension = true;
        let leaf_key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?.pem();
        let key = leaf_key.serialize_pem();
        fs::write(&files.certificate, &certificate)?;
        fs::write(&files.key, &key)?;
        fs::write(&files.both, certificate + &key)?;
        Ok(files)
    }

    /// For a server, that lets sessions be resumed or not.
    pub(crate) fn acceptor(&self, resumption: bool, order: Order) -> Result<TlsAcceptor> {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate)?];
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let mut config = ServerConfig::builder_with_provider(order.provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.ignore_client_order = order == Order::Ours;
        if resumption {
            config.ticketer = Ticketer::new()?;
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config).into())
    }

    /// For a client, that resumes sessions or not.
    pub(crate) fn connector(&self, resumption: bool, order: Order) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca)?)?;
        let mut config = ClientConfig::builder_with_provider(order.provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resumption {
            config.resumption = Resumption::disabled();
        }
        Ok(Arc::new(config).into())
    }
}

pub(crate) fn server_name() -> Result<ServerName<'static>> {
    Ok(ServerName::try_from(HOST)?)
}
