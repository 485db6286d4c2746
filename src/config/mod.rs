//! The configuration file: a type per section with its defaults, and checks that no type can express.
//! Nothing is ignored: an unknown key, a wrong unit or a combination that would expose passwords is a [`ConfigError`]
//! with the position and the remedy.

mod admin;
mod allow;
mod certificate;
mod check;
mod check_routes;
mod dns;
mod error;
mod failed_logins;
mod keep;
mod limits;
mod listeners;
mod located;
mod log;
mod login;
mod metadata;
mod names;
mod push;
mod relay;
mod route_types;
mod routes;
mod sasl;
mod storage;
mod submission;
mod trace;
mod units;
mod watch;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

use crate::encoding::utf8;

pub use admin::Admin;
pub use allow::{Allow, AllowedLogin, Network};
pub use certificate::{Acme, Certificate, CertificateFiles};
pub use dns::DnsSettings;
pub use error::{ConfigError, ConfigProblem, Problems};
pub use failed_logins::FailedLogins;
pub use keep::KeptSessions;
pub use limits::SessionLimits;
pub use listeners::{Hostname, Listener, ListenerTls};
pub use located::{FilePosition, Located};
pub use log::{LogFormat, LogSettings};
pub use login::LoginTemplate;
pub use metadata::{Metadata, MetadataValue};
pub use names::{is_dns_name, is_loopback};
pub use push::{Contact, Messages, Native, Push};
pub use relay::{JmapAccess, RelaySettings};
pub use route_types::{AddressPattern, AutoconfigUrl, HostPattern, ProxyProtocol};
pub use routes::{DOMAIN_PLACEHOLDER, Domain, Route, Security, Trust, UpstreamAddress};
pub use sasl::LoginSettings;
pub use storage::{Keep, Storage};
pub use submission::Submission;
pub use trace::{TraceFiles, TraceFormat, TraceSettings};
pub use units::Size;
pub use watch::{
    AccountSettings, AccountSettingsByName, PacingLimits, Rate, ServerSettings, known_servers,
};

/// A configuration, checked, its paths resolved. The default is what the shipped config.yaml says, relative to the current
/// folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name that people enter in Delta Chat as IMAP server.
    pub hostname: Hostname,
    /// The listeners. At least one.
    pub listeners: Vec<Listener>,
    /// The certificate that clients see.
    pub certificate: Certificate,
    /// The routes. At least one, no two with the same conditions.
    pub routes: Vec<Route>,
    /// Restrictions of access, in addition to the routes.
    pub allow: Allow,
    /// Name resolution.
    pub dns: DnsSettings,
    /// Changes to the traffic between client and mail server.
    pub relay: RelaySettings,
    /// From new mail to a waking phone.
    pub push: Push,
    /// The pace at which watching sessions are opened.
    pub pace: PacingLimits,
    /// Settings per mail server; the first match wins, before the built-in ones.
    pub servers: Vec<ServerSettings>,
    /// Settings per account, by login name.
    pub accounts: AccountSettingsByName,
    /// Server metadata that deltapush answers itself.
    pub metadata: Metadata,
    /// The persistent state.
    pub storage: Storage,
    /// Kept sessions, where no password is stored.
    pub keep: KeptSessions,
    /// Login mechanisms and refusals for clients.
    pub login: LoginSettings,
    /// Limits on connections, commands and accounts.
    pub limits: SessionLimits,
    /// The admin listener: web page, metrics and health.
    pub admin: Admin,
    /// Level and format of the log.
    pub log: LogSettings,
    /// Outputs of the trace.
    pub trace: TraceSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: Hostname::localhost(),
            listeners: Listener::defaults(),
            certificate: Certificate::default(),
            routes: Route::defaults(),
            allow: Allow::default(),
            dns: DnsSettings::default(),
            relay: RelaySettings::default(),
            push: Push::default(),
            pace: PacingLimits::default(),
            servers: Vec::new(),
            accounts: AccountSettingsByName::new(),
            metadata: Metadata::default(),
            storage: Storage::default(),
            keep: KeptSessions::default(),
            login: LoginSettings::default(),
            limits: SessionLimits::default(),
            admin: Admin::default(),
            log: LogSettings::default(),
            trace: TraceSettings::default(),
        }
    }
}

impl Config {
    /// The file that is read if no other is named, in the current folder.
    pub const DEFAULT_FILE: &str = "config.yaml";

    /// More than any configuration needs, and less than harms if a wrong file is named.
    const MAX_LEN: u64 = 1 << 20;

    /// Reads and checks a file; relative paths in it start from its folder.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read, or with all that is found wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path).map_err(|error| ConfigError::read(path, error))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")), &path.display().to_string())
    }

    /// Parses and checks `text`; relative paths in it start from `base_dir`, errors name the file `display_name`.
    ///
    /// # Errors
    /// [`ConfigError`] with all that is found wrong.
    pub fn parse(text: &str, base_dir: &Path, display_name: &str) -> Result<Self, ConfigError> {
        // Snippets would repeat lines of the file in an error, and with them a TURN password.
        let options = serde_saphyr::options! { with_snippet: false };
        let mut config: Self =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| {
                ConfigError::invalid(display_name, vec![ConfigProblem::from_yaml(&error, text)])
            })?;
        let problems = check::problems(&config);
        if !problems.is_empty() {
            return Err(ConfigError::invalid(display_name, problems));
        }
        config.resolve_paths(base_dir);
        Ok(config)
    }

    /// Checks again whether all fits together, after `self` was put together from two files.
    ///
    /// # Errors
    /// [`ConfigError`] with all that is found wrong; places are those in the files.
    pub(crate) fn recheck(&self, display_name: &str) -> Result<(), ConfigError> {
        let problems = check::problems(self);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::invalid(display_name, problems)) }
    }

    fn resolve_paths(&mut self, base_dir: &Path) {
        let resolve = |path: &mut PathBuf| *path = base_dir.join(&path);
        resolve(&mut self.certificate.directory);
        self.certificate.chain.as_deref_mut().map(resolve);
        self.certificate.key.as_deref_mut().map(resolve);
        self.certificate
            .more
            .iter_mut()
            .flat_map(|files| [&mut files.chain, &mut files.key])
            .for_each(resolve);
        resolve(&mut self.storage.directory);
        self.trace.files.as_mut().map(|files| &mut files.directory).map(resolve);
        self.storage.key_file.as_mut().map(resolve);
        self.admin.password_file.as_mut().map(resolve);
        let acme = self.certificate.acme.as_deref_mut().and_then(|acme| acme.ca.as_mut());
        let authorities = self
            .routes
            .iter_mut()
            .map(|route| &mut *route.ca)
            .chain(self.push.ca.as_mut())
            .chain(acme);
        for trust in authorities {
            if let Trust::File(path) = trust {
                *path = base_dir.join(&path).into();
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(Config::MAX_LEN).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|len| len >= Config::MAX_LEN) {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    let text = str::from_utf8(&utf8(&content)).map(str::to_owned);
    text.map_err(|error| {
        let before = content.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line} is not UTF-8: save the file in that encoding"),
        )
    })
}
