//! The configuration file: a type per section with its defaults, and checks that no type can express.
//! Nothing is ignored: an unknown key, a wrong unit or a combination that would expose passwords is a [`ConfigError`]
//! with the position and the remedy.

mod admin;
mod allow;
mod certificate;
mod check;
mod check_routes;
mod dns;
mod environment;
mod error;
mod failed_logins;
mod file;
mod keep;
mod limits;
mod listeners;
mod live;
mod located;
mod log;
mod login;
mod metadata;
mod names;
mod news;
mod node;
mod postgres;
mod postgres_url;
mod push;
mod relay;
mod route_types;
mod routes;
mod sasl;
mod startup;
mod storage;
mod submission;
mod trace;
mod units;
mod watch;

#[cfg(test)]
mod environment_tests;
#[cfg(test)]
mod mistake_tests;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;
use std::{fs, io};

use crate::encoding::utf8;
use file::ConfigFile;

pub use admin::Admin;
pub use allow::{Allow, AllowedLogin, Network};
pub use certificate::{Acme, Certificate, CertificateFiles};
pub use dns::DnsSettings;
pub use environment::Environment;
pub use error::{ConfigError, ConfigProblem, Problems};
pub use failed_logins::FailedLogins;
pub use keep::KeepSettings;
pub use limits::SessionLimits;
pub use listeners::{Hostname, Listener, ListenerSocket, ListenerTls};
pub use live::{LiveConfig, PushRules};
pub use located::{FilePosition, Located};
pub use log::LogFormat;
pub use login::LoginTemplate;
pub use metadata::{Metadata, MetadataValue};
pub use names::{DOMAIN_PLACEHOLDER, is_dns_name, is_loopback};
pub use news::{NewsSettings, NewsToken, TokenHash};
pub use node::Node;
pub use postgres::Postgres;
pub use postgres_url::{PostgresHost, PostgresUrl};
pub use push::{Contact, Messages, Native};
pub use relay::{JmapAccess, RelaySettings};
pub use route_types::{AddressPattern, AutoconfigUrl, HostPattern, ProxyProtocol};
pub use routes::{Domain, NewsSource, Route, Security, Trust, UpstreamAddress};
pub use sasl::LoginSettings;
pub use startup::{PushDelivery, StartupConfig};
pub use storage::{Keep, Storage};
pub use submission::Submission;
pub use trace::{TraceFiles, TraceFormat, TraceSettings};
pub use units::Size;
pub use watch::{
    AccountSettings, AccountSettingsByName, PacingLimits, Rate, ServerSettings, known_servers,
};

/// A configuration, checked, its paths resolved. The default is what the shipped config.yaml says, relative to the current
/// folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Values that apply from the next start.
    pub startup: StartupConfig,
    /// Values that a reload applies.
    pub live: LiveConfig,
}

impl Default for Config {
    fn default() -> Self {
        ConfigFile::default().into()
    }
}

impl Config {
    /// The file that is read if no other is named, in the current folder.
    pub const DEFAULT_FILE: &str = "config.yaml";

    /// More than any configuration needs, and less than harms if a wrong file is named.
    const MAX_LEN: u64 = 1 << 20;

    /// Reads and checks `file`, or else [`Config::DEFAULT_FILE`]. Where no file is named and that one does not exist, the
    /// environment is the configuration, if it has one; its relative paths start from the current folder.
    ///
    /// # Errors
    /// As [`Config::load`], and if there are both a file and an environment.
    pub fn find(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(Self::DEFAULT_FILE));
        if environment.is_empty() {
            return Self::load(path);
        }
        if file.is_some() || path.exists() {
            environment.exclude(path)?;
        }
        environment.config()
    }

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
        let file: ConfigFile =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| {
                ConfigError::invalid(display_name, vec![ConfigProblem::from_yaml(&error, text)])
            })?;
        let mut config = Self::from(file);
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
        self.startup.resolve_paths(base_dir);
        self.live.resolve_paths(base_dir);
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
        let before = content.iter().take(error.valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line} is not UTF-8: save the file in that encoding"),
        )
    })
}
