//! Settings of a database in place of the state file: its URL, trusted authorities and the source of the password.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::pgpass::{self, Target};
use crate::config::{Postgres, PostgresHost, PostgresUrl, Trust};
use crate::file_access;
use crate::secret::Secret;

/// The credential's name for systemd (`LoadCredential=`, systemd.exec(5)).
const CREDENTIAL: &str = "deltapush-postgres-password";
/// The environment variable that may hold the password.
const VARIABLE: &str = "DELTAPUSH_POSTGRES_PASSWORD";
/// The environment variable that names PostgreSQL's password file.
const PASS_FILE_VARIABLE: &str = "PGPASSFILE";
/// PostgreSQL's password file below the home directory.
const PASS_FILE: &str = ".pgpass";

/// A database, and how to reach it.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Hosts, database and user.
    pub url: PostgresUrl,
    /// Trusted authorities for the servers' certificates.
    pub ca: Trust,
    /// Source of the password.
    pub password: PasswordSource,
}

/// Source of the password for the database. It is read for each connection, so that a new one needs no restart.
#[derive(Debug, Clone)]
pub enum PasswordSource {
    /// The file that the configuration names.
    File(PathBuf),
    /// The file that systemd made of a credential.
    Credential(PathBuf),
    /// The value of the environment variable.
    Environment(Secret),
    /// PostgreSQL's password file, with passwords of several servers.
    PassFile(PathBuf),
    /// There is none: the server knows the user by its certificate, address or process.
    Nowhere,
}

/// Failure to read the password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be read.
    #[error("{}: {}", path.display(), file_access::explain(path, source))]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file may be read by others.
    #[error(
        "{}: other users may read the password in it; run: chmod 0600 {}",
        path.display(),
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// There is no password.
    #[error("{place}: it has no password: write it into the first line")]
    Empty {
        /// The place where it should be.
        place: String,
    },
}

impl PostgresSettings {
    /// The settings from the configuration and this process's environment.
    #[must_use]
    pub fn new(postgres: &Postgres) -> Self {
        let file = postgres.password_file.clone();
        Self {
            url: (*postgres.url).clone(),
            ca: postgres.ca.clone(),
            password: PasswordSource::find(file, |name| std::env::var_os(name)),
        }
    }

    /// The user that the server is to know: the URL's, or that of this process.
    #[must_use]
    pub fn user(&self) -> String {
        let named = self.url.parameters().get_user();
        named.map_or_else(file_access::own_user, str::to_owned)
    }

    /// The password for one of the servers, if there is one. Blocks on a file.
    pub(super) fn password(&self, host: &PostgresHost) -> Result<Option<Secret>, PasswordError> {
        match &self.password {
            PasswordSource::File(path) | PasswordSource::Credential(path) => {
                first_line(&read(path)?, path.display()).map(Some)
            }
            PasswordSource::Environment(value) => first_line(value.expose(), VARIABLE).map(Some),
            PasswordSource::PassFile(path) => {
                let user = self.user();
                let database = self.url.parameters().get_dbname().unwrap_or(&user);
                let target = Target { host: &host.host, port: host.port, database, user: &user };
                let file = Secret::new(read(path)?);
                Ok(pgpass::find(file.expose(), &target))
            }
            PasswordSource::Nowhere => Ok(None),
        }
    }
}

impl PasswordSource {
    /// The first that is there of the file in the configuration, systemd's credential, the environment variable, and
    /// PostgreSQL's password file.
    fn find(file: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let below = |folder: &str, name: &str| Some(Path::new(&variable(folder)?).join(name));
        let exists = |path: &PathBuf| path.exists();
        let pass_file = || match variable(PASS_FILE_VARIABLE) {
            Some(path) => Some(PathBuf::from(path)),
            None => below("HOME", PASS_FILE).filter(exists),
        };
        if let Some(file) = file {
            Self::File(file)
        } else if let Some(path) = below("CREDENTIALS_DIRECTORY", CREDENTIAL).filter(exists) {
            Self::Credential(path)
        } else if let Some(value) = variable(VARIABLE) {
            Self::Environment(Secret::new(value.into_vec()))
        } else {
            pass_file().map_or(Self::Nowhere, Self::PassFile)
        }
    }
}

impl fmt::Display for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "password in {}", path.display()),
            Self::Credential(path) => {
                write!(f, "password in systemd's credential {}", path.display())
            }
            Self::Environment(_) => write!(f, "password in the environment variable {VARIABLE}"),
            Self::PassFile(path) => {
                write!(f, "password in {}, PostgreSQL's password file", path.display())
            }
            Self::Nowhere => f.write_str("no password"),
        }
    }
}

/// The content of a file that nobody else may read. systemd's credentials are readable for their service alone.
fn read(path: &Path) -> Result<Vec<u8>, PasswordError> {
    let error = |source| PasswordError::File { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(error)?.permissions().mode();
    if mode & 0o077 != 0 && !is_credential(path) {
        return Err(PasswordError::Open { path: path.to_owned() });
    }
    fs::read(path).map_err(error)
}

/// systemd gives credentials mode 0440, with rights that no other user's process has.
fn is_credential(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == CREDENTIAL)
}

fn first_line(content: &[u8], place: impl fmt::Display) -> Result<Secret, PasswordError> {
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(PasswordError::Empty { place: place.to_string() });
    }
    Ok(Secret::new(line.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> PostgresHost {
        let url: PostgresUrl = "postgresql://push@db.example.org/state".parse().unwrap();
        url.hosts()[0].clone()
    }

    fn settings(password: PasswordSource) -> PostgresSettings {
        let url = "postgresql://push@db.example.org/state".parse().unwrap();
        PostgresSettings { url, ca: Trust::System, password }
    }

    #[test]
    fn first_source_that_is_there_counts() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().to_str().unwrap();
        let mut set = Vec::new();
        let find = |set: &[(&str, &str)], file: Option<&str>| {
            let variable = |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            PasswordSource::find(file.map(PathBuf::from), variable).to_string()
        };
        assert_eq!(find(&[], None), "no password");
        set.push(("HOME", folder));
        assert_eq!(find(&set, None), "no password");
        fs::write(directory.path().join(".pgpass"), "").unwrap();
        assert_eq!(
            find(&set, None),
            format!("password in {folder}/.pgpass, PostgreSQL's password file")
        );
        set.push(("PGPASSFILE", "/there"));
        assert_eq!(find(&set, None), "password in /there, PostgreSQL's password file");
        set.push(("DELTAPUSH_POSTGRES_PASSWORD", "sesame"));
        assert_eq!(
            find(&set, None),
            "password in the environment variable DELTAPUSH_POSTGRES_PASSWORD"
        );
        set.push(("CREDENTIALS_DIRECTORY", folder));
        fs::write(directory.path().join(CREDENTIAL), "x").unwrap();
        assert_eq!(
            find(&set, None),
            format!("password in systemd's credential {folder}/{CREDENTIAL}")
        );
        assert_eq!(find(&set, Some("/etc/password")), "password in /etc/password");
    }

    #[test]
    fn password_is_the_first_line_of_a_file_that_nobody_else_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let settings = settings(PasswordSource::File(path.clone()));
        let password = || settings.password(&host());
        assert!(matches!(password(), Err(PasswordError::File { .. })));
        fs::write(&path, "sesame \r\nmore\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = password().unwrap_err().to_string();
        assert!(error.contains("chmod 0600") && !error.contains("sesame"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(password().unwrap().unwrap().expose(), b"sesame ");
        fs::write(&path, "\n").unwrap();
        assert!(matches!(password(), Err(PasswordError::Empty { .. })));
    }

    #[test]
    fn debug_output_gives_no_password_away() {
        let secret = Secret::new(b"sesame".to_vec());
        let shown = format!("{:?}", settings(PasswordSource::Environment(secret)));
        assert!(shown.contains("db.example.org") && !shown.contains("sesame"), "{shown}");
    }
}
