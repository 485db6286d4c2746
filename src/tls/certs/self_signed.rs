//! The self-signed certificate and its key, and a certificate with the same key that an authority issued: made, kept, renewed.
//!
//! Delta Chat remembers the key of a host that it has verified once, so a self-signed certificate is renewed with the key
//! that is there, and a key that cannot be read is an error, never replaced.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::identity::{
    CertificateError, CertificateOrigin, CertificateSummary, Identity, unusable,
};
use super::private_file::{tighten, write_atomically};
use crate::config::{self, Hostname};
use crate::pem_file;
use crate::tls::certs::x509::Leaf;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As long as Apple's systems accept a certificate from a private issuer.
const VALIDITY: Duration = Duration::from_secs(825 * DAY.as_secs());

/// Shortest remaining life with which a certificate is kept, at a start and each day.
const RENEWAL: Duration = Duration::from_secs(30 * DAY.as_secs());

const KEPT_KEY_CURE: &str = "restore it from a backup, or remove it: deltapush then creates a new one, which people may have to accept again";
const KEPT_CHAIN_CURE: &str =
    "make it readable, or remove it so that deltapush creates it again with the same key";

/// The key that is kept for `hostname`, made if there is none. Blocks on files.
///
/// # Errors
/// [`CertificateError`] naming the file and the cure.
pub(crate) fn kept_key(
    hostname: &Hostname,
    certificate: &config::Certificate,
) -> Result<KeyPair, CertificateError> {
    let files = SelfSigned::new(hostname, certificate);
    match files.kept_key()? {
        Some(key) => Ok(key),
        None => files.make_key(),
    }
}

/// The file of the certificate that an authority issued for `hostname`.
pub(crate) fn issued_path(hostname: &Hostname, certificate: &config::Certificate) -> PathBuf {
    certificate.directory.join(format!("{hostname}.acme.pem"))
}

/// The files of a self-signed certificate, and of one with the same key that an authority issued.
pub(super) struct SelfSigned<'a> {
    hostname: &'a Hostname,
    directory: &'a Path,
    key_path: PathBuf,
    chain_path: PathBuf,
    /// The file of an issued one, and the names on it, if there is an authority.
    issued: Option<(PathBuf, Vec<Hostname>)>,
}

impl<'a> SelfSigned<'a> {
    pub(super) fn new(hostname: &'a Hostname, certificate: &'a config::Certificate) -> Self {
        let directory = &*certificate.directory;
        let file = |kind: &str| directory.join(format!("{hostname}.{kind}.pem"));
        let issued = certificate.acme.as_ref();
        let issued =
            issued.map(|acme| (issued_path(hostname, certificate), acme.names_or(hostname)));
        Self { hostname, directory, key_path: file("key"), chain_path: file("cert"), issued }
    }

    /// The files that may have a part in it.
    pub(super) fn into_files(self) -> impl Iterator<Item = PathBuf> {
        let issued = self.issued.map(|(path, _)| path);
        [self.key_path, self.chain_path].into_iter().chain(issued)
    }

    /// The certificate that an authority issued, if it is there for these names and this key. It may have expired: Delta
    /// Chat, which knows the key, accepts it better than a self-signed one.
    fn issued(&self, key: &KeyPair) -> Option<Identity> {
        let (path, names) = self.issued.as_ref()?;
        // Unreadable or absent: another one will be asked for.
        let chain = pem_file::certificates(path, "").ok()?;
        let leaf = Leaf::of(&chain).ok()?;
        let names_all = names.iter().all(|name| leaf.names(name));
        let (not_before, not_after) = leaf.validity().unzip();
        let names_host = leaf.names(self.hostname);
        if !leaf.has_key(key) || !names_all {
            return None;
        }
        let summary = CertificateSummary {
            origin: CertificateOrigin::Issued,
            path: path.clone(),
            not_before,
            not_after,
            names_host,
        };
        Some(Identity { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), summary })
    }

    pub(super) fn check(&self) -> Result<CertificateSummary, CertificateError> {
        let Some(key) = self.kept_key()? else {
            return Ok(self.summary(CertificateOrigin::Made, None));
        };
        if let Some(issued) = self.issued(&key) {
            return Ok(issued.summary);
        }
        match self.kept_chain(&key)? {
            Some(chain) => Ok(self.summary(CertificateOrigin::Kept, Some(&chain))),
            None => Ok(self.summary(CertificateOrigin::Renewed, None)),
        }
    }

    pub(super) fn load(&self) -> Result<Identity, CertificateError> {
        let (key, origin) = match self.kept_key()? {
            Some(key) => (key, CertificateOrigin::Renewed),
            None => (self.make_key()?, CertificateOrigin::Made),
        };
        tighten(&self.key_path)?;
        if let Some(issued) = self.issued(&key) {
            return Ok(issued);
        }
        match self.kept_chain(&key)? {
            Some(chain) => Ok(self.identity(&key, chain, CertificateOrigin::Kept)),
            None => Ok(self.identity(&key, self.sign(&key)?, origin)),
        }
    }

    /// The key of an earlier start, if there was one.
    fn kept_key(&self) -> Result<Option<KeyPair>, CertificateError> {
        match pem_file::private_key(&self.key_path, KEPT_KEY_CURE) {
            Ok(key) => KeyPair::try_from(&key).map(Some).map_err(|_| {
                unusable(
                    &self.key_path,
                    "the private key in it cannot be used".to_owned(),
                    KEPT_KEY_CURE,
                )
            }),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The certificate of an earlier start, if it still serves: same name, same key, enough time left.
    fn kept_chain(
        &self,
        key: &KeyPair,
    ) -> Result<Option<Vec<CertificateDer<'static>>>, CertificateError> {
        match self.chain_path.try_exists() {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(source) => {
                return Err(CertificateError::Read { path: self.chain_path.clone(), source });
            }
        }
        let chain = pem_file::certificates(&self.chain_path, KEPT_CHAIN_CURE)?;
        let leaf = Leaf::of(&chain)
            .map_err(|problem| unusable(&self.chain_path, problem, KEPT_CHAIN_CURE))?;
        let serves = leaf.names(self.hostname) && leaf.has_key(key) && leaf.lasts(RENEWAL);
        Ok(serves.then_some(chain))
    }

    fn make_key(&self) -> Result<KeyPair, CertificateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.directory);
        made.map_err(|source| CertificateError::Write { path: self.directory.to_owned(), source })?;
        let key = KeyPair::generate()?;
        write_atomically(&self.key_path, 0o600, key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    fn sign(&self, key: &KeyPair) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let now = SystemTime::now();
        let mut params = CertificateParams::new([self.hostname.to_string()])?;
        params.distinguished_name.push(DnType::CommonName, self.hostname.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // A phone's clock may be behind.
        params.not_before = now.checked_sub(DAY).unwrap_or(now).into();
        params.not_after = now.checked_add(VALIDITY).unwrap_or(now).into();
        let certificate = params.self_signed(key)?;
        write_atomically(&self.chain_path, 0o644, certificate.pem().as_bytes())?;
        Ok(vec![certificate.der().clone()])
    }

    fn identity(
        &self,
        key: &KeyPair,
        chain: Vec<CertificateDer<'static>>,
        origin: CertificateOrigin,
    ) -> Identity {
        let summary = self.summary(origin, Some(&chain));
        Identity { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), summary }
    }

    fn summary(
        &self,
        origin: CertificateOrigin,
        chain: Option<&[CertificateDer<'static>]>,
    ) -> CertificateSummary {
        let validity = chain.and_then(|chain| Leaf::of(chain).ok()?.validity());
        let (not_before, not_after) = validity.unzip();
        let path = self.chain_path.clone();
        CertificateSummary { origin, path, not_before, not_after, names_host: true }
    }
}
