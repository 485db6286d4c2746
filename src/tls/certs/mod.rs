//! The certificates in use: selection for a client, and replacement while sessions go on.

mod file_stamp;
pub mod identity;
mod load;
pub(crate) mod private_file;
pub mod reload;
pub(crate) mod self_signed;
pub(crate) mod x509;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio_rustls::rustls;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::{self, Hostname};
use crate::crypto;
use crate::reloadable::Reloadable;
use crate::tls::certs::identity::{
    CertificateError, CertificateOrigin, CertificateSummary, Identity,
};
use crate::tls::certs::x509::Leaf;
use crate::tls::client::{TrustError, roots};
use file_stamp::FileStamp;

/// Why clients cannot be shown a certificate.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Certificate and key do not fit together, or are of a kind that TLS cannot use. For the operator to mend.
    #[error(
        "{path}: {source}; the files named as `chain` and `key` must belong together, the server's own certificate first"
    )]
    Mismatch {
        /// The chain's file.
        path: String,
        /// The mismatch.
        source: rustls::Error,
    },
    /// The trust anchors for the authority's own web server cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// The configuration of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSettings {
    /// The name that people enter.
    pub hostname: Hostname,
    /// The `certificate` section.
    pub certificate: config::Certificate,
}

impl From<&config::LiveConfig> for CertificateSettings {
    fn from(config: &config::LiveConfig) -> Self {
        Self { hostname: config.hostname.clone(), certificate: config.certificate.clone() }
    }
}

/// The certificates of one moment: the first is shown to clients that name no host, or one that no certificate is for, unless
/// another one is for the IP address to which a client without a name connected.
#[derive(Debug)]
pub struct CertificateSet {
    default: PresentedCertificate,
    more: Vec<PresentedCertificate>,
    /// Taken before the files were read: what is replaced meanwhile is seen later.
    files: FileStamp,
}

#[derive(Debug)]
struct PresentedCertificate {
    certified: Arc<CertifiedKey>,
    summary: CertificateSummary,
}

impl CertificateSet {
    /// Reads all, makes or renews what is self-signed. Blocks on files.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and the cure.
    pub fn load(wanted: &CertificateSettings) -> Result<Self, LoadError> {
        check_trust(wanted)?;
        let mut files = FileStamp::now(wanted);
        let default =
            PresentedCertificate::new(Identity::load(&wanted.hostname, &wanted.certificate)?)?;
        // Its files are new ones now.
        if matches!(default.summary.origin, CertificateOrigin::Made | CertificateOrigin::Renewed) {
            files = FileStamp::now(wanted);
        }
        let more = further(wanted).collect::<Result<_, _>>()?;
        Ok(Self { default, more, files })
    }

    /// The result that [`CertificateSet::load`] would have, without writing anything: for the first certificate, and
    /// for the others.
    ///
    /// # Errors
    /// [`LoadError`] if it would fail on what is there.
    pub fn check(
        wanted: &CertificateSettings,
    ) -> Result<(CertificateSummary, Vec<CertificateSummary>), LoadError> {
        check_trust(wanted)?;
        let own_files = wanted.certificate.chain.is_some() && wanted.certificate.key.is_some();
        let first = if own_files {
            PresentedCertificate::new(Identity::load(&wanted.hostname, &wanted.certificate)?)?
                .summary
        } else {
            CertificateSummary::check(&wanted.hostname, &wanted.certificate)?
        };
        let more = further(wanted)
            .map(|shown| shown.map(|shown| shown.summary))
            .collect::<Result<_, _>>()?;
        Ok((first, more))
    }

    /// Summary of the first certificate.
    #[must_use]
    pub fn summary(&self) -> &CertificateSummary {
        &self.default.summary
    }

    /// The files as they were when they were read.
    fn files(&self) -> &FileStamp {
        &self.files
    }

    /// From when to when the first is valid, if an authority issued it by ACME.
    pub(crate) fn issued(&self) -> Option<(Timestamp, Timestamp)> {
        let is_issued = self.default.summary.origin == CertificateOrigin::Issued;
        Leaf::of(&self.default.certified.cert).ok().filter(|_| is_issued)?.validity()
    }

    /// Problems of certificates that the operator must solve, present or near. Certificates that deltapush makes are renewed
    /// automatically.
    pub(crate) fn troubles(&self, hostname: &Hostname, now: Timestamp) -> Vec<String> {
        let all = std::iter::once(&self.default).chain(&self.more);
        let mut troubles: Vec<String> =
            all.filter_map(|shown| shown.summary.trouble_with_time(now)).collect();
        if !self.default.summary.names_host {
            let path = self.default.summary.path.display();
            troubles.push(format!(
                "{path}: the certificate is not valid for {hostname}: clients that connect to this name refuse it"
            ));
        }
        troubles
    }

    fn choose(&self, name: Option<&str>) -> &PresentedCertificate {
        if self.more.is_empty() {
            return &self.default;
        }
        name.and_then(Hostname::new).and_then(|name| self.first_for(&name)).unwrap_or(&self.default)
    }

    /// The certificate for this IP address, if it is not the first one.
    pub(super) fn further_for(&self, address: IpAddr) -> Option<Arc<CertifiedKey>> {
        if self.more.is_empty() {
            return None;
        }
        let shown = self.first_for(&address.into())?;
        (!std::ptr::eq(shown, &self.default)).then(|| Arc::clone(&shown.certified))
    }

    fn first_for(&self, host: &Hostname) -> Option<&PresentedCertificate> {
        let fits = |shown: &&PresentedCertificate| {
            Leaf::of(&shown.certified.cert).is_ok_and(|leaf| leaf.names(host))
        };
        std::iter::once(&self.default).chain(&self.more).find(fits)
    }
}

/// A file that is wrong is told at once, not when a certificate is due.
fn check_trust(wanted: &CertificateSettings) -> Result<(), LoadError> {
    let trust = wanted.certificate.acme.as_deref().and_then(|acme| acme.ca.as_ref());
    trust.map(roots).transpose()?;
    Ok(())
}

fn further(
    wanted: &CertificateSettings,
) -> impl Iterator<Item = Result<PresentedCertificate, LoadError>> {
    wanted.certificate.more.iter().map(|files| {
        PresentedCertificate::new(Identity::read(&wanted.hostname, &files.chain, &files.key)?)
    })
}

impl PresentedCertificate {
    fn new(identity: Identity) -> Result<Self, LoadError> {
        let Identity { chain, key, summary } = identity;
        let mismatch =
            |source| LoadError::Mismatch { path: summary.path.display().to_string(), source };
        let certified =
            CertifiedKey::from_der(chain, key, &crypto::provider()).map_err(mismatch)?;
        Ok(Self { certified: Arc::new(certified), summary })
    }
}

/// The certificates that new connections see, and where they come from.
#[derive(Debug)]
pub struct Certificates {
    wanted: Reloadable<CertificateSettings>,
    set: Reloadable<CertificateSet>,
    /// Held while certificates are read, so that what was read last counts.
    turn: Mutex<()>,
}

impl Certificates {
    /// Begins with `set`, which was loaded as `wanted` says.
    #[must_use]
    pub fn new(wanted: CertificateSettings, set: CertificateSet) -> Self {
        Self { wanted: Reloadable::new(wanted), set: Reloadable::new(set), turn: Mutex::default() }
    }

    /// Those at work.
    #[must_use]
    pub fn get(&self) -> Arc<CertificateSet> {
        self.set.get()
    }

    /// The configured values.
    #[must_use]
    pub fn wanted(&self) -> &Reloadable<CertificateSettings> {
        &self.wanted
    }

    /// Puts `set`, loaded as `wanted` says, to work. Sessions go on as they are.
    pub fn replace(&self, wanted: CertificateSettings, set: CertificateSet) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.set(wanted);
        self.set.set(set);
    }

    /// Reads all again. Blocks on files.
    ///
    /// # Errors
    /// [`LoadError`]; those at work stay there.
    pub fn refresh(&self) -> Result<(), LoadError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.set.set(CertificateSet::load(&self.wanted.get())?);
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.get().choose(hello.server_name()).certified))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use jiff::SignedDuration;

    use super::*;

    fn files(folder: &tempfile::TempDir, name: &str) -> config::CertificateFiles {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let file = |kind: &str| folder.path().join(format!("{}.{kind}", name.replace('*', "any")));
        fs::write(file("chain"), made.cert.pem()).unwrap();
        fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
        config::CertificateFiles { chain: file("chain"), key: file("key") }
    }

    fn wanted(
        folder: &tempfile::TempDir,
        more: Vec<config::CertificateFiles>,
    ) -> CertificateSettings {
        let certificate =
            config::Certificate { directory: folder.path().into(), more, ..Default::default() };
        CertificateSettings { hostname: Hostname::new("_imap.example.org").unwrap(), certificate }
    }

    #[test]
    fn name_that_a_client_asks_for_decides() {
        let folder = tempfile::tempdir().unwrap();
        let more = vec![
            files(&folder, "a.example"),
            files(&folder, "*.b.example"),
            files(&folder, "a.example"),
        ];
        let set = CertificateSet::load(&wanted(&folder, more.clone())).unwrap();
        let default = set.summary().path.clone();
        let path = |name: Option<&str>| -> PathBuf { set.choose(name).summary.path.clone() };
        assert_eq!(path(None), default);
        assert_eq!(path(Some("_imap.example.org")), default);
        assert_eq!(path(Some("other.example")), default);
        assert_eq!(path(Some("A.Example")), more[0].chain);
        assert_eq!(path(Some("x.b.example")), more[1].chain);
        assert_eq!(path(Some("b.example")), default);
    }

    #[test]
    fn address_that_a_client_connected_to_decides_where_it_names_no_host() {
        let folder = tempfile::tempdir().unwrap();
        let more = vec![files(&folder, "192.0.2.1"), files(&folder, "2001:db8::1")];
        let mut wanted = wanted(&folder, more.clone());
        wanted.hostname = Hostname::new("192.0.2.7").unwrap();
        let set = CertificateSet::load(&wanted).unwrap();
        let shown = |address: &str| {
            let shown = set.further_for(address.parse().unwrap())?;
            set.more.iter().position(|more| Arc::ptr_eq(&more.certified, &shown))
        };
        let addresses = ["192.0.2.1", "2001:db8::1", "192.0.2.7", "192.0.2.9"];
        assert_eq!(addresses.map(shown), [Some(0), Some(1), None, None]);
    }

    #[test]
    fn certificate_that_clients_refuse_is_told_in_time() {
        let day = SignedDuration::from_hours(24);
        let now = Timestamp::now();
        let folder = tempfile::tempdir().unwrap();
        let troubles = |name: &str, from: i32, until: i32| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
            let at =
                |days| std::time::SystemTime::from(now.checked_add(day * days).unwrap()).into();
            (params.not_before, params.not_after) = (at(from), at(until));
            let file = |kind: &str| folder.path().join(kind);
            fs::write(file("chain"), params.self_signed(&key).unwrap().pem()).unwrap();
            fs::write(file("key"), key.serialize_pem()).unwrap();
            let mut wanted = wanted(&folder, Vec::new());
            (wanted.certificate.chain, wanted.certificate.key) =
                (Some(file("chain").into()), Some(file("key").into()));
            CertificateSet::load(&wanted).unwrap().troubles(&wanted.hostname, now)
        };
        let name = "_imap.example.org";
        for (from, until) in [(-60, 30), (-75, 15), (-4, 2), (-350, 15)] {
            assert_eq!(troubles(name, from, until), Vec::<String>::new(), "{from} {until}");
        }
        for (from, until, expected) in [
            (-80, 10, "expires at"),
            (-5, 1, "expires at"),
            (-90, -1, "expired at"),
            (1, 90, "not valid before"),
        ] {
            let told = troubles(name, from, until);
            assert!(
                told.len() == 1
                    && told[0].contains(expected)
                    && told[0].contains("chain: the cert"),
                "{told:?}"
            );
        }
        let told = troubles("other.example", -1, 80);
        assert!(told.len() == 1 && told[0].contains("not valid for _imap.example.org"), "{told:?}");
        // A certificate that deltapush renews by itself.
        let made = CertificateSet::load(&wanted(&folder, Vec::new())).unwrap();
        let late = now.checked_add(day * 900).unwrap();
        assert!(made.troubles(&Hostname::new(name).unwrap(), late).is_empty());
    }

    #[test]
    fn list_of_authorities_for_acme_is_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = wanted(&folder, Vec::new());
        let acme = config::Acme {
            ca: Some(config::Trust::File(std::path::Path::new("/nonexistent").into())),
            ..Default::default()
        };
        wanted.certificate.acme = Some(acme.into());
        for error in [
            CertificateSet::load(&wanted).unwrap_err(),
            CertificateSet::check(&wanted).unwrap_err(),
        ] {
            assert!(error.to_string().contains("/nonexistent"), "{error}");
        }
    }

    #[test]
    fn further_certificate_that_does_not_serve_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (mut broken, other) = (files(&folder, "a.example"), files(&folder, "b.example"));
        broken.key = other.key;
        for error in [CertificateSet::load(&wanted(&folder, vec![broken.clone()])).unwrap_err(), {
            CertificateSet::check(&wanted(&folder, vec![broken.clone()])).unwrap_err()
        }] {
            let error = error.to_string();
            assert!(
                error.starts_with(broken.chain.to_str().unwrap())
                    && error.contains("belong together"),
                "{error}"
            );
        }
    }
}
