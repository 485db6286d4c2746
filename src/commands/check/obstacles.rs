//! Obstacles to a start that show without starting: taken ports, folders that cannot be written, a certificate that cannot come.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::super::{CommandError, Fault};
use crate::admin::control;
use crate::config::{Config, ListenerTls};
use crate::file_access::{self, listen_remedy};

/// The port to which an authority connects to validate a name (RFC 8737 section 3).
const ACME_PORT: u16 = 443;

/// The result of a look at ports and folders.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// Causes for which a start would fail.
    pub(super) problems: Vec<String>,
    /// Causes for which something may fail later.
    pub(super) warnings: Vec<String>,
}

impl Obstacles {
    /// Looks at ports and folders. Each port is opened for a moment; nothing else is touched.
    pub(super) fn find(config: &Config) -> Self {
        let mut found = Self::default();
        // A deltapush that runs has its ports.
        if !control::is_served(&config.startup.storage.directory) {
            let listeners = config.live.listeners.iter().map(|listener| *listener.address);
            let admin = config.startup.admin.address.iter().map(|address| **address);
            found.problems.extend(listeners.chain(admin).filter_map(port_problem));
        }
        found.problems.extend(folders(config).into_iter().filter_map(|(use_, folder)| {
            folder_problem(&folder).map(|problem| format!("{use_}: {problem}"))
        }));
        found.warnings.extend(acme_warning(config));
        found
    }

    /// The error with which `check` ends, if a start would fail.
    pub(super) fn error(&self) -> Result<(), CommandError> {
        match self.problems.as_slice() {
            [] => Ok(()),
            problems => Err(Fault::System
                .because(format!("deltapush could not start:\n  {}", problems.join("\n  ")))),
        }
    }
}

fn port_problem(address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    Some(format!("cannot listen on {address}: {error}; {}", listen_remedy(&error)))
}

/// The folders that deltapush writes, with their use.
fn folders(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut folders = vec![("storage.directory", config.startup.storage.directory.clone())];
    let certificate = &config.live.certificate;
    if certificate.chain.is_none() {
        folders.push(("certificate.directory", certificate.directory.clone()));
    }
    if let Some(files) = &config.live.trace.files {
        folders.push(("trace.directory", files.directory.clone()));
    }
    folders
}

/// Why deltapush could not write to the folder, or not create it.
fn folder_problem(folder: &Path) -> Option<String> {
    let folder = std::path::absolute(folder).ok()?;
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    if !existing.is_dir() {
        return Some(format!("{} is not a folder", existing.display()));
    }
    // With the rights that count when a file is opened: those of the effective user.
    let refused = accessat(CWD, existing, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    let error = io::Error::from(refused.err()?);
    let action = if existing == folder { "cannot write to" } else { "cannot create a folder in" };
    Some(format!("{action} {}: {}", existing.display(), file_access::explain(existing, &error)))
}

fn acme_warning(config: &Config) -> Option<String> {
    config.live.certificate.acme.as_ref()?;
    let is_reached = config.live.listeners.iter().any(|listener| {
        listener.tls == ListenerTls::Implicit && listener.address.port() == ACME_PORT
    });
    (!is_reached).then(|| {
        format!(
            "the authority connects to port {ACME_PORT}, and no listener with `tls: implicit` is there: forward that port to \
             one, or no certificate comes"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new(""), "here").unwrap()
    }

    #[test]
    fn taken_port_and_file_in_place_of_a_folder_are_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let text = format!(
            "listeners:\n  - address: \"{}\"\n    tls: implicit\nadmin:\n  address: \"off\"\nstorage:\n  directory: {}\ncertificate:\n  directory: {}\n",
            taken.local_addr().unwrap(),
            file.join("state").display(),
            folder.path().join("a/b").display(),
        );
        let found = Obstacles::find(&config(&text));
        let [port, state] = found.problems.as_slice() else { panic!("{found:?}") };
        assert!(port.contains("another program listens there"), "{port}");
        assert!(
            state.starts_with("storage.directory: ") && state.ends_with("is not a folder"),
            "{state}"
        );
        assert!(found.error().is_err());
        assert!(Obstacles::default().error().is_ok());
    }

    #[test]
    fn acme_needs_a_listener_on_its_port() {
        let acme = "hostname: imap.example.org\ncertificate:\n  acme:\n    terms_agreed: true\n";
        let with = format!("{acme}listeners:\n  - address: \"127.0.0.1:443\"\n    tls: implicit\n");
        assert_eq!(acme_warning(&config(&with)), None);
        let without =
            format!("{acme}listeners:\n  - address: \"127.0.0.1:993\"\n    tls: implicit\n");
        assert!(acme_warning(&config(&without)).unwrap().contains("port 443"));
        assert_eq!(acme_warning(&Config::default()), None);
    }
}
