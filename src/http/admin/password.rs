//! The password of the web page: its source, and the check of a given one.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use tracing::warn;
use zeroize::Zeroizing;

use crate::config::StartupConfig;
use crate::encoding::utf8;
use crate::file_access::explain;
use crate::http::authorization;
use crate::store::put_new;

/// The credential's name for systemd (`LoadCredential=`, systemd.exec(5)).
const CREDENTIAL: &str = "deltapush-admin-password";

/// The minimum length of the password, in bytes: it must withstand years of guessing.
const MIN_LEN: usize = 12;

/// The longest one.
const MAX_LEN: usize = 1024;

/// The maximum read from a file: the longest password in UTF-16, with byte order mark and line end, and one byte more.
const MAX_FILE: usize = 2 * MAX_LEN + 7;

/// Random bytes in a password that is made here.
const MADE_LEN: usize = 24;

/// Failure to load the password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be read or made.
    #[error(
        "the password of the web page: {}: {}; see `admin` in config.yaml",
        path.display(), explain(path, source)
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content is not a valid password.
    #[error(
        "the password of the web page: {} must hold one line of {MIN_LEN} to {MAX_LEN} characters",
        path.display()
    )]
    Unfit {
        /// The file.
        path: PathBuf,
    },
}

/// A verifier of the password. The password itself is not stored.
#[derive(Debug, Clone)]
pub struct Password {
    digest: Digest,
    /// The file that it was read from.
    pub path: PathBuf,
}

impl Password {
    /// Reads the password, or creates one in the state's folder if it belongs there and is missing. Blocks on files.
    ///
    /// # Errors
    /// [`PasswordError`], the operator's to mend.
    pub fn load(config: &StartupConfig) -> Result<Self, PasswordError> {
        Self::find(config, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
    }

    /// Checks whether [`Password::load`] would succeed, without creating anything.
    ///
    /// # Errors
    /// [`PasswordError`] if it would not.
    pub fn check(config: &StartupConfig) -> Result<(), PasswordError> {
        let path = config.admin.password_path(&config.storage.directory);
        let is_there = config.admin.password_file.is_some() || path.exists();
        if config.admin.address.is_some() && is_there {
            Self::load(config).map(drop)
        } else {
            Ok(())
        }
    }

    fn find(config: &StartupConfig, credentials: Option<PathBuf>) -> Result<Self, PasswordError> {
        let credential =
            credentials.map(|folder| folder.join(CREDENTIAL)).filter(|path| path.exists());
        let path =
            credential.unwrap_or_else(|| config.admin.password_path(&config.storage.directory));
        if config.admin.password_file.is_none() && !path.exists() {
            make(&path).map_err(|source| PasswordError::Io { path: path.clone(), source })?;
        }
        Self::read(path)
    }

    fn read(path: PathBuf) -> Result<Self, PasswordError> {
        let mut text = Vec::with_capacity(MAX_FILE);
        let opened = fs::File::open(&path).and_then(|file| {
            if file.metadata()?.permissions().mode() & 0o007 != 0 {
                warn!("others may read the password file {}: give it mode 0600", path.display());
            }
            file.take(MAX_FILE as u64).read_to_end(&mut text)
        });
        if let Err(source) = opened {
            return Err(PasswordError::Io { path, source });
        }
        let decoded = utf8(&text);
        let line = decoded.trim_ascii();
        if !(MIN_LEN..=MAX_LEN).contains(&line.len()) || line.iter().any(u8::is_ascii_control) {
            return Err(PasswordError::Unfit { path });
        }
        Ok(Self { digest: digest(&SHA256, line), path })
    }

    /// True if the value of an Authorization field contains it. Takes the same time for any password.
    #[must_use]
    pub fn is_in(&self, authorization: &[u8]) -> bool {
        authorization::secret(authorization).is_some_and(|given| {
            verify_slices_are_equal(digest(&SHA256, &given).as_ref(), self.digest.as_ref()).is_ok()
        })
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mut random = Zeroizing::new([0; MADE_LEN]);
    aws_lc_rs::rand::fill(&mut *random)
        .map_err(|_| io::Error::other("the operating system has no random numbers"))?;
    let mut line = BASE64_URL_SAFE_NO_PAD.encode(random.as_slice());
    line.push('\n');
    put_new(path, |_, file| file.write_all(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    fn basic(pair: &str) -> Vec<u8> {
        format!("Basic {}", BASE64_STANDARD.encode(pair)).into_bytes()
    }

    #[test]
    fn one_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = StartupConfig::default();
        config.storage.directory = folder.path().into();
        let password = Password::find(&config, None).unwrap();
        let path = folder.path().join("admin.password");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 32);
        assert!(password.is_in(&basic(&format!("anybody:{}", text.trim()))));
        assert!(
            Password::find(&config, None)
                .unwrap()
                .is_in(format!("Bearer {}", text.trim()).as_bytes())
        );
        assert!(!format!("{password:?}").contains(text.trim()));
    }

    #[test]
    fn only_the_password_opens() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "open:sesame, now\r\n").unwrap();
        let password = Password::read(file).unwrap();
        assert!(
            password.is_in(&basic("admin:open:sesame, now"))
                && password.is_in(&basic(":open:sesame, now"))
        );
        assert!(password.is_in(b"bearer  open:sesame, now"));
        for wrong in
            ["admin:open:sesame, no", "admin:open:sesame, now ", "open:sesame, now", "admin:", ""]
        {
            assert!(!password.is_in(&basic(wrong)), "{wrong}");
        }
        for wrong in
            ["", "Basic", "Basic ", "Basic %%%", "Digest open:sesame, now", "open:sesame, now"]
        {
            assert!(!password.is_in(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn byte_order_mark_is_no_part_of_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let utf16 =
            |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let text = "\u{feff}open sesame now\r\n";
        for content in [text.as_bytes().to_vec(), utf16(text)] {
            fs::write(&file, content).unwrap();
            let password = Password::read(file.clone()).unwrap();
            assert!(password.is_in(&basic("admin:open sesame now")));
        }
        let longest = "x".repeat(MAX_LEN);
        fs::write(&file, utf16(&format!("\u{feff}{longest}\r\n"))).unwrap();
        assert!(Password::read(file.clone()).unwrap().is_in(&basic(&format!("admin:{longest}"))));
    }

    #[test]
    fn file_that_holds_none_is_refused_and_systemd_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = StartupConfig::default();
        config.storage.directory = folder.path().into();
        config.admin.password_file = Some(folder.path().join("mine"));
        let error = Password::find(&config, None).unwrap_err().to_string();
        assert!(error.contains("mine: there is no such file"), "{error}");
        for text in ["short", "two lines of\nsome length", "", &"x".repeat(2000)] {
            fs::write(folder.path().join("mine"), text).unwrap();
            let error = Password::find(&config, None).unwrap_err().to_string();
            assert!(error.contains("must hold one line of 12 to 1024 characters"), "{error}");
        }
        fs::write(folder.path().join(CREDENTIAL), "what systemd has").unwrap();
        let password = Password::find(&config, Some(folder.path().into())).unwrap();
        assert!(password.is_in(b"Bearer what systemd has"));
    }
}
