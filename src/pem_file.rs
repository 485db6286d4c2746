//! Certificates and keys in PEM files that people and other programs write: read tolerantly, and recognised where they cannot be used.
//!
//! A byte order mark, UTF-16, any line end, indentation, and sections of another kind are no obstacle. For what is something else than
//! PEM with the wanted content, the error says what it is and gives the command that converts it. No error quotes the content.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::encoding::{UTF8_MARK, utf8};
use crate::file_access;

/// The largest file that is read, in bytes: some twenty times what holds all public authorities.
const MAX_LEN: u64 = 4 << 20;

const CERTIFICATES: &[&str] = &["CERTIFICATE"];
const KEYS: &[&str] = &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

/// Why a file cannot be used as certificates or as a private key. For the operator to mend.
#[derive(Debug)]
pub struct PemError {
    path: PathBuf,
    flaw: PemFlaw,
    /// The remedy where the flaw has none of its own.
    cure: &'static str,
}

impl PemError {
    /// Returns true if the file does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&self.flaw, PemFlaw::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, flaw, cure } = self;
        if let PemFlaw::Io(error) = flaw {
            write!(f, "{}: cannot be read: {}", path.display(), file_access::explain(path, error))?;
            return if file_access::is_refused(error) { Ok(()) } else { write!(f, "; {cure}") };
        }
        let own_cure = flaw.cure(path);
        write!(f, "{}: {flaw}; {}", path.display(), own_cure.as_deref().unwrap_or(cure))
    }
}

impl std::error::Error for PemError {}

/// The expected content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpectedContent {
    Certificates,
    Key,
}

impl ExpectedContent {
    fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Certificates => CERTIFICATES,
            Self::Key => KEYS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Certificates => "certificate",
            Self::Key => "private key",
        }
    }
}

/// Content of a file that is not the expected one.
#[derive(Debug, thiserror::Error)]
enum PemFlaw {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is longer than 4 MiB, so it is not a file of certificates or keys")]
    TooLong,
    #[error("the file is empty: no {} in it", .0.name())]
    Empty(ExpectedContent),
    #[error("no {} in it: it is not PEM (`-----BEGIN …`)", .0.name())]
    Unknown(ExpectedContent),
    #[error("no {} in it, but {}", .wanted.name(), .found.description())]
    Other { wanted: ExpectedContent, found: PemContent },
    #[error("the {} in it is damaged: {problem}", .wanted.name())]
    Damaged { wanted: ExpectedContent, problem: &'static str },
}

/// Content that is known, and is not what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PemContent {
    /// A private key under a passphrase: PKCS#8 (RFC 5958 section 3) or the older form of OpenSSL (RFC 1421 section 4.6.1.1).
    EncryptedKey {
        der: bool,
    },
    /// The expected content, in DER.
    Der(ExpectedContent),
    /// A private key where a certificate is wanted, or the reverse.
    Swapped(ExpectedContent),
    /// PKCS#12 (RFC 7292), as `.p12` or `.pfx`, with this wanted.
    Pkcs12(ExpectedContent),
    /// Certificates in PKCS#7 (RFC 2315), as `.p7b`.
    Pkcs7 {
        der: bool,
    },
    /// A certificate with OpenSSL's own notes on trust.
    TrustedCertificate,
    Request,
    PublicKey,
    SshKey,
}

impl PemContent {
    fn description(self) -> &'static str {
        match self {
            Self::EncryptedKey { .. } => {
                "one that is encrypted with a passphrase, for which deltapush cannot ask"
            }
            Self::Der(_) => "one in DER, the binary form",
            Self::Swapped(ExpectedContent::Certificates) => "a private key",
            Self::Swapped(ExpectedContent::Key) => "a certificate",
            Self::Pkcs12(_) => "a PKCS#12 container (.p12, .pfx)",
            Self::Pkcs7 { .. } => "a PKCS#7 container (.p7b)",
            Self::TrustedCertificate => {
                "one in the format that only OpenSSL reads (TRUSTED CERTIFICATE)"
            }
            Self::Request => {
                "a certificate signing request; the certificate that the authority issued for it is needed"
            }
            Self::PublicKey => "a public key",
            Self::SshKey => "a key in the format of OpenSSH",
        }
    }
}

impl PemFlaw {
    /// The command that makes a usable file of `path`, where there is one.
    fn cure(&self, path: &Path) -> Option<String> {
        let Self::Other { wanted, found } = *self else { return None };
        let command = match found {
            PemContent::EncryptedKey { der: false } => "pkey",
            PemContent::EncryptedKey { der: true } | PemContent::Der(ExpectedContent::Key) => {
                "pkey -inform DER"
            }
            PemContent::Der(ExpectedContent::Certificates) => "x509 -inform DER",
            PemContent::Pkcs12(ExpectedContent::Certificates) => "pkcs12 -nokeys",
            PemContent::Pkcs12(ExpectedContent::Key) => "pkcs12 -nocerts -nodes",
            PemContent::Pkcs7 { der: false } => "pkcs7 -print_certs",
            PemContent::Pkcs7 { der: true } => "pkcs7 -print_certs -inform DER",
            PemContent::TrustedCertificate => "x509",
            PemContent::SshKey => {
                return Some(
                    "convert a copy of it by `ssh-keygen -p -m PKCS8 -N '' -f COPY`, and name the copy".to_owned(),
                );
            }
            PemContent::Swapped(_) | PemContent::Request | PemContent::PublicKey => return None,
        };
        let new = path.with_extension(if wanted == ExpectedContent::Key {
            "plain-key.pem"
        } else {
            "chain.pem"
        });
        Some(format!(
            "convert it by `openssl {command} -in {} -out {}`, and name the new file",
            quoted(path),
            quoted(&new)
        ))
    }
}

/// Reads the certificates in a file; at least one. Blocks on it.
///
/// # Errors
/// [`PemError`], which says `cure` where it knows no better one.
pub(crate) fn certificates(
    path: &Path,
    cure: &'static str,
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read = read(path).and_then(|content| certificates_in(&content));
    read.map_err(|flaw| PemError { path: path.to_owned(), flaw, cure })
}

/// Reads the first private key in a file. Blocks on it.
///
/// # Errors
/// [`PemError`], which says `cure` where it knows no better one.
pub(crate) fn private_key(
    path: &Path,
    cure: &'static str,
) -> Result<PrivateKeyDer<'static>, PemError> {
    let read = read(path).and_then(|content| private_key_in(&content));
    read.map_err(|flaw| PemError { path: path.to_owned(), flaw, cure })
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> Cow<'_, str> {
    let text = path.to_string_lossy();
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+@:,=".contains(char);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''")).into()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PemFlaw> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_LEN).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|len| len >= MAX_LEN) {
        return Err(PemFlaw::TooLong);
    }
    Ok(content)
}

fn certificates_in(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemFlaw> {
    let (wanted, sections) = (ExpectedContent::Certificates, Sections::of(content));
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&sections.of_kind(wanted)).collect();
    let certificates =
        read.map_err(|error| PemFlaw::Damaged { wanted, problem: problem(&error) })?;
    if certificates.is_empty() {
        Err(recognize(content, &sections, wanted))
    } else {
        Ok(certificates)
    }
}

fn private_key_in(content: &[u8]) -> Result<PrivateKeyDer<'static>, PemFlaw> {
    let (wanted, sections) = (ExpectedContent::Key, Sections::of(content));
    PrivateKeyDer::from_pem_slice(&sections.of_kind(wanted)).map_err(|error| match error {
        pem::Error::NoItemsFound => recognize(content, &sections, wanted),
        error => PemFlaw::Damaged { wanted, problem: problem(&error) },
    })
}

/// The PEM reader's errors quote the content.
fn problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "there is no line `-----END …`; the file is cut off"
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line that starts with `-----BEGIN ` does not end with `-----`"
        }
        pem::Error::Base64Decode(_) => "it is not base64",
        _ => "it is not PEM",
    }
}

/// Says what a file is that has no section of those that are wanted.
fn recognize(content: &[u8], sections: &Sections, wanted: ExpectedContent) -> PemFlaw {
    let found =
        if sections.0.is_empty() { binary(content, wanted) } else { section(sections, wanted) };
    match found {
        Some(found) => PemFlaw::Other { wanted, found },
        None if content.trim_ascii().is_empty() => PemFlaw::Empty(wanted),
        None => PemFlaw::Unknown(wanted),
    }
}

fn section(sections: &Sections, wanted: ExpectedContent) -> Option<PemContent> {
    let has = |labels: &[&str]| sections.0.iter().any(|section| labels.contains(&&*section.label));
    let is_key_wanted = wanted == ExpectedContent::Key;
    let other = if is_key_wanted { CERTIFICATES } else { KEYS };
    match () {
        () if !is_key_wanted && has(&["TRUSTED CERTIFICATE"]) => {
            Some(PemContent::TrustedCertificate)
        }
        () if !is_key_wanted && has(&["PKCS7"]) => Some(PemContent::Pkcs7 { der: false }),
        () if is_key_wanted && sections.0.iter().any(Section::is_encrypted) => {
            Some(PemContent::EncryptedKey { der: false })
        }
        () if is_key_wanted && has(&["OPENSSH PRIVATE KEY"]) => Some(PemContent::SshKey),
        () if has(other) || sections.0.iter().any(Section::is_encrypted) => {
            Some(PemContent::Swapped(wanted))
        }
        () if has(&["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"]) => Some(PemContent::Request),
        () if has(&["PUBLIC KEY"]) => Some(PemContent::PublicKey),
        () => None,
    }
}

/// Recognises DER by the beginning of its outermost SEQUENCE.
fn binary(content: &[u8], wanted: ExpectedContent) -> Option<PemContent> {
    const PKCS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01";
    let inside = in_sequence(content)?;
    // The first byte after `PKCS` in an object identifier, behind its tag and length.
    let identifier =
        |bytes: &[u8]| bytes.strip_prefix(b"\x06")?.get(1..)?.strip_prefix(PKCS)?.first().copied();
    let is_wanted = |kind: ExpectedContent| {
        Some(if kind == wanted { PemContent::Der(kind) } else { PemContent::Swapped(wanted) })
    };
    if inside.starts_with(b"\x02\x01\x03\x30") {
        Some(PemContent::Pkcs12(wanted))
    } else if identifier(inside) == Some(7) {
        Some(PemContent::Pkcs7 { der: true })
    } else if in_sequence(inside).and_then(identifier).is_some_and(|arc| matches!(arc, 5 | 12)) {
        Some(if wanted == ExpectedContent::Key {
            PemContent::EncryptedKey { der: true }
        } else {
            PemContent::Swapped(wanted)
        })
    } else if X509Certificate::from_der(content).is_ok() {
        is_wanted(ExpectedContent::Certificates)
    } else if X509CertificationRequest::from_der(content).is_ok() {
        Some(PemContent::Request)
    } else if PrivateKeyDer::try_from(content).is_ok() {
        is_wanted(ExpectedContent::Key)
    } else {
        None
    }
}

/// The content of a SEQUENCE behind its tag and length (X.690 section 8.1.3).
fn in_sequence(bytes: &[u8]) -> Option<&[u8]> {
    let (first, rest) = bytes.strip_prefix(b"\x30")?.split_first()?;
    let more = if *first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    rest.get(more..)
}

/// The sections of a PEM file.
struct Sections(Vec<Section>);

struct Section {
    label: String,
    /// All lines, without white space around them.
    lines: Vec<u8>,
}

impl Sections {
    fn of(content: &[u8]) -> Self {
        let mut sections: Vec<Section> = Vec::new();
        let mut is_inside = false;
        let text = utf8(content);
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii) {
            // A mark is within the file if files were put together.
            let line = line.strip_prefix(UTF8_MARK).unwrap_or(line).trim_ascii_start();
            if let Some(label) = line.strip_prefix(b"-----BEGIN ") {
                let label = String::from_utf8_lossy(label).trim_end_matches('-').to_owned();
                sections.push(Section { label, lines: Vec::new() });
                is_inside = true;
            }
            if let Some(section) = sections.last_mut().filter(|_| is_inside) {
                section.lines.extend_from_slice(line);
                section.lines.push(b'\n');
            }
            is_inside &= !line.starts_with(b"-----END ");
        }
        Self(sections)
    }

    /// Those that are wanted and can be read, as a PEM file.
    fn of_kind(&self, wanted: ExpectedContent) -> Vec<u8> {
        let is_one = |section: &&Section| {
            wanted.labels().contains(&&*section.label) && !section.is_encrypted()
        };
        self.0.iter().filter(is_one).flat_map(|section| section.lines.iter().copied()).collect()
    }
}

impl Section {
    /// Returns true if it is a private key under a passphrase.
    fn is_encrypted(&self) -> bool {
        let is_marked =
            |line: &[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        let is_key = KEYS.contains(&&*self.label);
        self.label == "ENCRYPTED PRIVATE KEY"
            || (is_key && self.lines.split(|byte| *byte == b'\n').nth(1).is_some_and(is_marked))
    }
}

#[cfg(test)]
#[path = "pem_file_tests.rs"]
mod tests;
