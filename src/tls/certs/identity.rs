//! The certificate that clients see: from the operator's PEM files, or self-signed and kept.
//!
//! Delta Chat remembers the key of a host that it has verified once, so a self-signed certificate is renewed with the key
//! that is there, and a key that cannot be read is an error, never replaced.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::config::{self, Hostname};
use crate::crypto;
use crate::pem_file::{self, PemError, quoted};
use crate::tls::certs::x509::Leaf;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As long as Apple's systems accept a certificate from a private issuer.
const VALIDITY: Duration = Duration::from_secs(825 * DAY.as_secs());

/// What must remain for a certificate to be kept, at a start and each day.
const RENEWAL: Duration = Duration::from_secs(30 * DAY.as_secs());

/// A certificate chain, its key, and where they are from.
#[derive(Debug)]
pub struct Identity {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key; its Debug output does not show it.
    pub key: PrivateKeyDer<'static>,
    /// Where it is from, and how long it lasts.
    pub summary: CertificateSummary,
}

/// What there is to say about a certificate at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Where it is from.
    pub origin: CertificateOrigin,
    /// The file that holds it.
    pub path: PathBuf,
    /// When it expires; `None` for one that is still to be made.
    pub not_after: Option<Timestamp>,
    /// Whether it is made out for the configured host name.
    pub names_host: bool,
}

/// Where a certificate is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateOrigin {
    /// The operator's own files.
    Files,
    /// From an authority, by ACME.
    Issued,
    /// Self-signed at an earlier start.
    Kept,
    /// Self-signed now, with the key of an earlier start.
    Renewed,
    /// Self-signed now, with a new key.
    Made,
}

/// Why there is no certificate to show to clients. All of these are for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is not PEM with what is wanted.
    #[error(transparent)]
    File(#[from] PemError),
    /// A file is PEM but holds nothing usable.
    #[error("{}: {problem}; {cure}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        cure: &'static str,
    },
    /// The operator's key is of a kind that TLS cannot use.
    #[error("{}: the private key in it cannot be used: {source}; use an ECDSA key (P-256, P-384), an RSA key of 2048 bits or more, or Ed25519", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The operator's certificate and key are two that do not belong together.
    #[error(
        "{}: the private key {} does not belong to the certificate in it; the two must belong together: \
         `openssl x509 -in {} -noout -pubkey` and `openssl pkey -in {} -pubout` must print the same",
        chain.display(), key.display(), quoted(chain), quoted(key)
    )]
    Mismatch {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The files of a self-signed certificate cannot be kept.
    #[error("{}: cannot be written: {source}; make its folder writable for deltapush or name another as `certificate.directory`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Signing failed: our fault.
    #[error("cannot make a certificate: {0}; this is a bug in deltapush")]
    Sign(#[from] rcgen::Error),
}

const OWN_FILE_CURE: &str =
    "`certificate.chain` and `certificate.key` name PEM files that deltapush may read";
const KEPT_KEY_CURE: &str = "restore it from a backup, or remove it: deltapush then creates a new one, which people may have to accept again";
const KEPT_CHAIN_CURE: &str =
    "make it readable, or remove it so that deltapush creates it again with the same key";

impl Identity {
    /// Reads the operator's files, or the self-signed certificate, which is made or renewed where needed. Blocks on files.
    ///
    /// # Errors
    /// [`CertificateError`] naming the file and the cure.
    pub fn load(
        hostname: &Hostname,
        certificate: &config::Certificate,
    ) -> Result<Self, CertificateError> {
        match own_files(certificate) {
            Some((chain, key)) => from_files(hostname, chain, key),
            None => SelfSigned::new(hostname, certificate).load(),
        }
    }

    /// Reads a certificate and its key from the operator's files. Blocks on them.
    ///
    /// # Errors
    /// [`CertificateError`] naming the file and the cure.
    pub fn read(hostname: &Hostname, chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        from_files(hostname, chain, key)
    }
}

impl CertificateSummary {
    /// What [`Identity::load`] would do, without writing anything.
    ///
    /// # Errors
    /// [`CertificateError`] if it would fail on what is there.
    pub fn check(
        hostname: &Hostname,
        certificate: &config::Certificate,
    ) -> Result<Self, CertificateError> {
        match own_files(certificate) {
            Some((chain, key)) => Ok(from_files(hostname, chain, key)?.summary),
            None => SelfSigned::new(hostname, certificate).check(),
        }
    }
}

fn own_files(certificate: &config::Certificate) -> Option<(&Path, &Path)> {
    Some((certificate.chain.as_deref()?, certificate.key.as_deref()?))
}

fn from_files(
    hostname: &Hostname,
    chain_path: &Path,
    key_path: &Path,
) -> Result<Identity, CertificateError> {
    let chain = pem_file::certificates(chain_path, OWN_FILE_CURE)?;
    let key = pem_file::private_key(key_path, OWN_FILE_CURE)?;
    let leaf = Leaf::of(&chain).map_err(|problem| unusable(chain_path, problem, OWN_FILE_CURE))?;
    check_pair(&chain, &key, chain_path, key_path)?;
    let summary = CertificateSummary {
        origin: CertificateOrigin::Files,
        path: chain_path.to_owned(),
        not_after: leaf.not_after(),
        names_host: leaf.names(hostname),
    };
    Ok(Identity { chain, key, summary })
}

/// Whether the key is one for TLS, and the first certificate's.
fn check_pair(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    chain_path: &Path,
    key_path: &Path,
) -> Result<(), CertificateError> {
    let loaded = crypto::provider().key_provider.load_private_key(key.clone_key());
    let key =
        loaded.map_err(|source| CertificateError::Key { path: key_path.to_owned(), source })?;
    let Some(public) = key.public_key() else { return Ok(()) };
    let is_for_key = |certificate: &CertificateDer<'static>| {
        Leaf::of(std::slice::from_ref(certificate)).is_ok_and(|leaf| leaf.has_public_key(&public))
    };
    match chain.iter().position(is_for_key) {
        Some(0) => Ok(()),
        Some(index) => {
            let place = index.saturating_add(1);
            let problem = format!(
                "the certificate of the private key {} is number {place} in it",
                key_path.display()
            );
            Err(unusable(
                chain_path,
                problem,
                "put the server's own certificate first, then those of the authority",
            ))
        }
        None => Err(CertificateError::Mismatch {
            chain: chain_path.to_owned(),
            key: key_path.to_owned(),
        }),
    }
}

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

/// Where the certificate that an authority issued for `hostname` is kept.
pub(crate) fn issued_path(hostname: &Hostname, certificate: &config::Certificate) -> PathBuf {
    certificate.directory.join(format!("{hostname}.acme.pem"))
}

/// The files of a self-signed certificate, and of one with the same key that an authority issued.
struct SelfSigned<'a> {
    hostname: &'a Hostname,
    directory: &'a Path,
    key_path: PathBuf,
    chain_path: PathBuf,
    /// Where an issued one is kept, and the names on it, if there is an authority.
    issued: Option<(PathBuf, Vec<String>)>,
}

impl<'a> SelfSigned<'a> {
    fn new(hostname: &'a Hostname, certificate: &'a config::Certificate) -> Self {
        let directory = &*certificate.directory;
        let file = |kind: &str| directory.join(format!("{hostname}.{kind}.pem"));
        let issued = certificate.acme.as_ref();
        let issued =
            issued.map(|acme| (issued_path(hostname, certificate), acme.names_or(hostname)));
        Self { hostname, directory, key_path: file("key"), chain_path: file("cert"), issued }
    }

    /// The certificate that an authority issued, if it is there for these names and this key. It may have expired: Delta
    /// Chat, which knows the key, accepts it better than a self-signed one.
    fn issued(&self, key: &KeyPair) -> Option<Identity> {
        let (path, names) = self.issued.as_ref()?;
        // Unreadable or absent: another one will be asked for.
        let chain = pem_file::certificates(path, "").ok()?;
        let leaf = Leaf::of(&chain).ok()?;
        let names_all =
            names.iter().filter_map(|name| Hostname::new(name)).all(|name| leaf.names(&name));
        let (not_after, names_host) = (leaf.not_after(), leaf.names(self.hostname));
        if !leaf.has_key(key) || !names_all {
            return None;
        }
        let summary = CertificateSummary {
            origin: CertificateOrigin::Issued,
            path: path.clone(),
            not_after,
            names_host,
        };
        Some(Identity { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), summary })
    }

    fn check(&self) -> Result<CertificateSummary, CertificateError> {
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

    fn load(&self) -> Result<Identity, CertificateError> {
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
            Err(error) => {
                return Err(unusable(&self.chain_path, error.to_string(), KEPT_CHAIN_CURE));
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
        write_atomically(&self.key_path, 0o600, Zeroizing::new(key.serialize_pem()).as_bytes())?;
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
        let not_after = chain.and_then(|chain| Leaf::of(chain).ok()?.not_after());
        CertificateSummary { origin, path: self.chain_path.clone(), not_after, names_host: true }
    }
}

fn unusable(path: &Path, problem: String, cure: &'static str) -> CertificateError {
    CertificateError::Unusable { path: path.to_owned(), problem, cure }
}

/// Takes a key away from everyone but its owner; somebody may have copied it with other permissions.
fn tighten(path: &Path) -> Result<(), CertificateError> {
    let write_error = |source| CertificateError::Write { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(write_error)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(write_error)?;
        tracing::warn!(
            path = %path.display(),
            "other users of this machine could read the private key; deltapush has made it readable for its owner only"
        );
    }
    Ok(())
}

/// Writes a file that is there either as a whole or not at all, with `mode` from its first byte on.
pub(crate) fn write_atomically(
    path: &Path,
    mode: u32,
    content: &[u8],
) -> Result<(), CertificateError> {
    let mut temporary = path.as_os_str().to_owned();
    // Nobody else's: neither that of another write at the same time nor one that a crash has left.
    temporary.push(format!(".{:016x}.tmp", fastrand::u64(..)));
    let temporary = PathBuf::from(temporary);
    let written = write_and_rename(&temporary, path, mode, content);
    if written.is_err() {
        // It may not even have been made; the error that counts is the first.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|source| CertificateError::Write { path: path.to_owned(), source })
}

fn write_and_rename(temporary: &Path, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    // Without it a power cut may undo the renaming, and people would meet a new key.
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn certificate(&self) -> config::Certificate {
            config::Certificate { directory: self.0.path().join("a/b"), ..Default::default() }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join("a/b").join(name)
        }

        fn load(&self, hostname: &str) -> Result<Identity, CertificateError> {
            Identity::load(&Hostname::new(hostname).unwrap(), &self.certificate())
        }

        fn check(&self, hostname: &str) -> Result<CertificateSummary, CertificateError> {
            CertificateSummary::check(&Hostname::new(hostname).unwrap(), &self.certificate())
        }

        /// Puts a certificate with `days` left in the place of the kept one, signed with the kept key.
        fn age(&self, name: &str, made_out_for: &str, days: u32) {
            let key = KeyPair::from_pem(
                &fs::read_to_string(self.file(&format!("{name}.key.pem"))).unwrap(),
            )
            .unwrap();
            let mut params = CertificateParams::new([made_out_for.to_owned()]).unwrap();
            params.not_after =
                SystemTime::now().checked_add(DAY.saturating_mul(days)).unwrap().into();
            fs::write(
                self.file(&format!("{name}.cert.pem")),
                params.self_signed(&key).unwrap().pem(),
            )
            .unwrap();
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn certificate_is_made_once_and_kept() {
        let folder = Folder::new();
        assert_eq!(folder.check("_imap.example.org").unwrap().origin, CertificateOrigin::Made);
        assert!(!folder.file("").exists());
        let made = folder.load("_imap.example.org").unwrap();
        assert_eq!(made.summary.origin, CertificateOrigin::Made);
        assert_eq!(mode(&folder.file("_imap.example.org.key.pem")), 0o600);
        assert_eq!(mode(&folder.file("")), 0o700);
        assert_eq!(fs::read_dir(folder.file("")).unwrap().count(), 2);
        let days = made.summary.not_after.unwrap().duration_since(Timestamp::now()).as_hours() / 24;
        assert!((823..=825).contains(&days), "{days}");

        let kept = folder.load("_imap.example.org").unwrap();
        assert_eq!(kept.summary.origin, CertificateOrigin::Kept);
        assert_eq!((kept.chain, kept.key), (made.chain, made.key));
        assert_eq!(folder.check("_imap.example.org").unwrap(), kept.summary);
    }

    #[test]
    fn old_or_foreign_certificate_is_renewed_with_the_same_key() {
        let folder = Folder::new();
        let made = folder.load("a.example").unwrap();
        folder.age("a.example", "a.example", 31);
        assert_eq!(folder.load("a.example").unwrap().summary.origin, CertificateOrigin::Kept);
        for (made_out_for, days) in [("a.example", 29), ("b.example", 300)] {
            folder.age("a.example", made_out_for, days);
            assert_eq!(folder.check("a.example").unwrap().origin, CertificateOrigin::Renewed);
            let renewed = folder.load("a.example").unwrap();
            assert_eq!(
                (renewed.summary.origin, &renewed.key),
                (CertificateOrigin::Renewed, &made.key)
            );
            assert_eq!(folder.load("a.example").unwrap().summary.origin, CertificateOrigin::Kept);
        }
        let other = folder.load("b.example").unwrap();
        assert_ne!(other.key, made.key);
        fs::copy(folder.file("b.example.key.pem"), folder.file("a.example.key.pem")).unwrap();
        assert_eq!(folder.load("a.example").unwrap().summary.origin, CertificateOrigin::Renewed);
    }

    #[test]
    fn key_that_cannot_be_used_is_never_replaced() {
        let folder = Folder::new();
        folder.load("a.example").unwrap();
        let path = folder.file("a.example.key.pem");
        fs::write(&path, "garbage").unwrap();
        let error = folder.load("a.example").unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains("backup"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "garbage");
        assert!(folder.check("a.example").is_err());
    }

    #[test]
    fn kept_files_with_a_mark_are_read_and_a_key_under_a_passphrase_is_named() {
        let folder = Folder::new();
        let made = folder.load("a.example").unwrap();
        for file in ["a.example.key.pem", "a.example.cert.pem"] {
            let text = fs::read_to_string(folder.file(file)).unwrap();
            fs::write(folder.file(file), format!("\u{feff}{}", text.replace('\n', "\r\n")))
                .unwrap();
        }
        let kept = folder.load("a.example").unwrap();
        assert_eq!(
            (kept.summary.origin, kept.key, kept.chain),
            (CertificateOrigin::Kept, made.key, made.chain)
        );
        let key =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        fs::write(folder.file("a.example.key.pem"), key).unwrap();
        let error = folder.load("a.example").unwrap_err().to_string();
        assert!(
            error.contains("encrypted with a passphrase") && error.contains("`openssl pkey -in "),
            "{error}"
        );
        assert_eq!(
            fs::read_to_string(folder.file("a.example.key.pem")).unwrap(),
            key,
            "it must not be replaced"
        );
    }

    #[test]
    fn key_of_another_certificate_is_told_from_a_wrong_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: String| {
            fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name)
        };
        let make = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (own, other) = (make("a.example"), make("ca.example"));
        let key = file("key.pem", own.signing_key.serialize_pem());
        let read = |chain: &Path, key: &Path| {
            Identity::read(&Hostname::new("a.example").unwrap(), chain, key)
        };
        let chain = file("chain.pem", own.cert.pem() + &other.cert.pem());
        read(&chain, &key).unwrap();
        let wrong = file("wrong.pem", other.cert.pem() + &own.cert.pem());
        let error = read(&wrong, &key).unwrap_err().to_string();
        assert!(
            error.starts_with(wrong.to_str().unwrap())
                && error.contains("is number 2 in it; put the"),
            "{error}"
        );
        let error = read(&file("other.pem", other.cert.pem()), &key).unwrap_err().to_string();
        assert!(
            error.contains("does not belong to") && error.contains("`openssl x509 -in "),
            "{error}"
        );
        let small = "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n";
        let error = read(&chain, &file("small.pem", small.to_owned())).unwrap_err().to_string();
        assert!(error.contains("small.pem: the private key in it cannot be used"), "{error}");
        let error = read(&key, &chain).unwrap_err().to_string();
        assert!(
            error.contains("no certificate in it, but a private key; `certificate.chain`"),
            "{error}"
        );
    }

    #[test]
    fn key_that_others_can_read_is_taken_from_them() {
        let folder = Folder::new();
        folder.load("a.example").unwrap();
        let path = folder.file("a.example.key.pem");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        folder.load("a.example").unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn ip_addresses_are_names_too() {
        for hostname in ["192.0.2.1", "2001:db8::1"] {
            let folder = Folder::new();
            let identity = folder.load(hostname).unwrap();
            let leaf = Leaf::of(&identity.chain).unwrap();
            assert!(leaf.names(&Hostname::new(hostname).unwrap()));
            assert!(!leaf.names(&Hostname::new("192.0.2.2").unwrap()));
            assert_eq!(folder.load(hostname).unwrap().summary.origin, CertificateOrigin::Kept);
        }
    }

    #[test]
    fn own_files_are_read_and_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        let made = rcgen::generate_simple_self_signed(["*.Example.org".to_owned()]).unwrap();
        fs::write(&chain, made.cert.pem()).unwrap();
        let certificate = config::Certificate {
            directory: folder.path().join("certs"),
            chain: Some(chain.clone().into()),
            key: Some(key.clone().into()),
            ..Default::default()
        };
        let load = |hostname| Identity::load(&Hostname::new(hostname).unwrap(), &certificate);
        let error = load("mail.example.org").unwrap_err().to_string();
        assert!(
            error.starts_with(key.to_str().unwrap()) && error.contains("`certificate.key`"),
            "{error}"
        );
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let summary = load("mail.example.org").unwrap().summary;
        assert_eq!((summary.origin, summary.names_host), (CertificateOrigin::Files, true));
        assert!(!load("example.org").unwrap().summary.names_host);
        assert!(!load("a.mail.example.org").unwrap().summary.names_host);
        assert!(!folder.path().join("certs").exists());
        fs::write(&chain, "").unwrap();
        let error = load("example.org").unwrap_err().to_string();
        assert!(
            error.starts_with(chain.to_str().unwrap()) && error.contains("no certificate"),
            "{error}"
        );
    }

    #[test]
    fn key_is_private_from_its_first_byte_and_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_atomically(&path, 0o600, b"first").unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_atomically(&path, 0o600, b"second").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"second".to_vec()));
        assert!(write_atomically(&folder.path().join("missing/key.pem"), 0o600, b"x").is_err());
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomically(&folder.path().join("taken"), 0o600, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn folder_that_cannot_be_made_is_named() {
        let folder = Folder::new();
        fs::write(folder.0.path().join("a"), "a file").unwrap();
        let error = folder.load("a.example").unwrap_err().to_string();
        assert!(error.contains("a/b") && error.contains("; "), "{error}");
    }
}
