//! Certificates of the operator, and self-signed ones through their whole life.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::tls::certs::self_signed::DAY;

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
        let key =
            KeyPair::from_pem(&fs::read_to_string(self.file(&format!("{name}.key.pem"))).unwrap())
                .unwrap();
        let mut params = CertificateParams::new([made_out_for.to_owned()]).unwrap();
        params.not_after = SystemTime::now().checked_add(DAY.saturating_mul(days)).unwrap().into();
        fs::write(self.file(&format!("{name}.cert.pem")), params.self_signed(&key).unwrap().pem())
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
        assert_eq!((renewed.summary.origin, &renewed.key), (CertificateOrigin::Renewed, &made.key));
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
        fs::write(folder.file(file), format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    }
    let kept = folder.load("a.example").unwrap();
    assert_eq!(
        (kept.summary.origin, kept.key, kept.chain),
        (CertificateOrigin::Kept, made.key, made.chain)
    );
    let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
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
    let read =
        |chain: &Path, key: &Path| Identity::read(&Hostname::new("a.example").unwrap(), chain, key);
    let chain = file("chain.pem", own.cert.pem() + &other.cert.pem());
    read(&chain, &key).unwrap();
    let wrong = file("wrong.pem", other.cert.pem() + &own.cert.pem());
    let error = read(&wrong, &key).unwrap_err().to_string();
    assert!(
        error.starts_with(wrong.to_str().unwrap()) && error.contains("is number 2 in it; put the"),
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
fn folder_that_cannot_be_made_is_named() {
    let folder = Folder::new();
    fs::write(folder.0.path().join("a"), "a file").unwrap();
    let error = folder.load("a.example").unwrap_err().to_string();
    assert!(error.contains("a/b") && error.contains("; "), "{error}");
}
