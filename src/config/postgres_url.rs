//! The URL of a database, in the form of PostgreSQL's own programs ("Connection URIs" in its documentation), but stricter: no
//! password, and no connection in clear to another machine.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs};

use super::is_loopback;

/// The port of PostgreSQL.
const PORT: u16 = 5432;

/// Time limit of a TCP connection to one address.
const CONNECT: Duration = Duration::from_secs(3);
/// Time after which a connection whose peer acknowledges nothing is given up. Less than a node's lease.
const UNACKNOWLEDGED: Duration = Duration::from_secs(8);
/// Silence after which TCP asks if the peer is there, and the interval of further questions.
const ASK_AFTER: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A connection URL of PostgreSQL, without a password. `Display` gives what is in use.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    parameters: tokio_postgres::Config,
    hosts: Vec<PostgresHost>,
}

/// A server of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresHost {
    /// Name or address, or the folder of its socket.
    pub host: Host,
    /// The port; of a socket, the number in its name.
    pub port: u16,
    /// True for TLS, with a verified certificate.
    pub tls: bool,
}

impl PostgresUrl {
    /// All parameters but the hosts, their ports and the password.
    #[must_use]
    pub fn parameters(&self) -> &tokio_postgres::Config {
        &self.parameters
    }

    /// The servers, in the order in which they are tried. At least one.
    #[must_use]
    pub fn hosts(&self) -> &[PostgresHost] {
        &self.hosts
    }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with("postgresql://") && !text.starts_with("postgres://") {
            return Err(
                "write a URL as `postgresql://deltapush@db.example.org/deltapush`".to_owned()
            );
        }
        let (rest, sslmode) = without_sslmode(text);
        let mut parsed: tokio_postgres::Config = rest.parse().map_err(|error| explain(&error))?;
        refuse_unfit(&parsed)?;
        let tls = demand(sslmode)?;
        let hosts = hosts(&parsed, tls)?;
        set_limits(&mut parsed);
        Ok(Self { parameters: without_hosts(&parsed), hosts })
    }
}

/// Splits off `sslmode`, which knows more words than tokio-postgres does.
fn without_sslmode(text: &str) -> (String, Option<&str>) {
    let Some((before, query)) = text.split_once('?') else { return (text.to_owned(), None) };
    let is_mode = |parameter: &&str| parameter.starts_with("sslmode=");
    let mode = query.split('&').rfind(is_mode);
    let others: Vec<_> = query.split('&').filter(|parameter| !is_mode(parameter)).collect();
    let mark = if others.is_empty() { "" } else { "?" };
    (
        format!("{before}{mark}{}", others.join("&")),
        mode.and_then(|mode| mode.split_once('=')).map(|(_, mode)| mode),
    )
}

/// The error of a URL, without any part of it: a password may stand there.
fn explain(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let cause = if cause.starts_with("unknown option") || cause.starts_with("invalid value") {
        format!(": {cause}")
    } else {
        String::new()
    };
    format!(
        "not a URL of a database{cause}: write it as `postgresql://deltapush@db.example.org/deltapush`"
    )
}

/// Refuses what would show a password, or would have no effect.
fn refuse_unfit(parsed: &tokio_postgres::Config) -> Result<(), String> {
    let message = if parsed.get_password().is_some() {
        "a password must not stand in the URL, which logs and commands show: put it into a file for `password_file`"
    } else if !parsed.get_hostaddrs().is_empty() {
        "`hostaddr` is not supported: write the name that the certificate has as the host"
    } else if parsed.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
        "`target_session_attrs=read-only` leads to servers that take no writes: use `read-write`"
    } else if parsed.get_load_balance_hosts() == LoadBalanceHosts::Random {
        "`load_balance_hosts` is not supported: the hosts are tried in their order"
    } else if parsed.get_ssl_negotiation() == SslNegotiation::Direct {
        "`sslnegotiation=direct` is not supported: remove it"
    } else {
        return Ok(());
    };
    Err(message.to_owned())
}

/// The demand for TLS: `None` where it depends on the host.
fn demand(sslmode: Option<&str>) -> Result<Option<bool>, String> {
    match sslmode {
        None => Ok(None),
        Some("disable") => Ok(Some(false)),
        Some("require" | "verify-full") => Ok(Some(true)),
        Some(other) => Err(format!(
            "sslmode={} is not supported: deltapush verifies certificate and name; use `verify-full`, or remove it",
            other.escape_debug()
        )),
    }
}

fn hosts(parsed: &tokio_postgres::Config, tls: Option<bool>) -> Result<Vec<PostgresHost>, String> {
    let (names, ports) = (parsed.get_hosts(), parsed.get_ports());
    if names.is_empty() {
        return Err("names no host: write `postgresql://deltapush@db.example.org/deltapush`, or \
             `postgresql:///deltapush?host=/run/postgresql` for a socket"
            .to_owned());
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err("has not as many ports as hosts: write one port, or one for each".to_owned());
    }
    let port = |index| ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
    let hosts = names.iter().enumerate();
    hosts.map(|(index, host)| PostgresHost::new(host, port(index), tls)).collect()
}

impl PostgresHost {
    fn new(host: &Host, port: u16, tls: Option<bool>) -> Result<Self, String> {
        let tls = match host {
            Host::Unix(_) => false,
            Host::Tcp(name) if name.is_empty() => return Err("names an empty host".to_owned()),
            Host::Tcp(name) if is_loopback(name) => tls == Some(true),
            Host::Tcp(name) if tls == Some(false) => {
                return Err(format!(
                    "with `sslmode=disable` passwords and tokens would cross the network in clear to {}: remove it",
                    name.escape_debug()
                ));
            }
            Host::Tcp(_) => true,
        };
        Ok(Self { host: host.clone(), port, tls })
    }
}

/// Bounds for all that may wait, where the URL has none of its own.
fn set_limits(parameters: &mut tokio_postgres::Config) {
    let default = tokio_postgres::Config::new();
    if parameters.get_connect_timeout().is_none() {
        parameters.connect_timeout(CONNECT);
    }
    if parameters.get_tcp_user_timeout().is_none() {
        parameters.tcp_user_timeout(UNACKNOWLEDGED);
    }
    if parameters.get_keepalives_idle() == default.get_keepalives_idle() {
        parameters.keepalives_idle(ASK_AFTER).keepalives_interval(ASK_AGAIN).keepalives_retries(2);
    }
    if parameters.get_application_name().is_none() {
        parameters.application_name("deltapush");
    }
    // A standby takes no write: only a server that does is of use.
    parameters.target_session_attrs(TargetSessionAttrs::ReadWrite);
}

/// A copy without hosts and ports.
fn without_hosts(parsed: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut copy = tokio_postgres::Config::new();
    copy.ssl_mode(SslMode::Disable)
        .channel_binding(parsed.get_channel_binding())
        .keepalives(parsed.get_keepalives())
        .keepalives_idle(parsed.get_keepalives_idle())
        .target_session_attrs(parsed.get_target_session_attrs());
    parsed.get_user().map(|user| copy.user(user));
    parsed.get_dbname().map(|name| copy.dbname(name));
    parsed.get_options().map(|options| copy.options(options));
    parsed.get_application_name().map(|name| copy.application_name(name));
    parsed.get_connect_timeout().map(|limit| copy.connect_timeout(*limit));
    parsed.get_tcp_user_timeout().map(|limit| copy.tcp_user_timeout(*limit));
    parsed.get_keepalives_interval().map(|interval| copy.keepalives_interval(interval));
    parsed.get_keepalives_retries().map(|count| copy.keepalives_retries(count));
    copy
}

impl fmt::Display for PostgresHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            Host::Unix(folder) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.port),
        }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.parameters.get_user();
        let database = self.parameters.get_dbname().or(user);
        write!(f, "database {}", database.unwrap_or("of its user"))?;
        for (index, host) in self.hosts.iter().enumerate() {
            let before = if index == 0 { " at" } else { "," };
            let security = if host.tls { "TLS" } else { "no TLS" };
            write!(f, "{before} {host} ({security})")?;
        }
        user.map_or(Ok(()), |user| write!(f, " as {user}"))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for PostgresUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<PostgresUrl>().map_or_else(|error| error, |url| url.to_string())
    }

    #[test]
    fn tls_is_for_all_servers_elsewhere() {
        for (text, expected) in [
            (
                "postgresql://push@db1.example.org,db2.example.org:6432/state?target_session_attrs=read-write",
                "database state at db1.example.org:5432 (TLS), db2.example.org:6432 (TLS) as push",
            ),
            (
                "postgres://push@localhost/state",
                "database state at localhost:5432 (no TLS) as push",
            ),
            (
                "postgres://push@127.0.0.1/state?sslmode=verify-full",
                "database state at 127.0.0.1:5432 (TLS) as push",
            ),
            (
                "postgresql:///state?host=/run/postgresql",
                "database state at /run/postgresql/.s.PGSQL.5432 (no TLS)",
            ),
            (
                "postgresql://push@%2Frun%2Fpostgresql:5433,db.example.org?sslmode=require",
                "database push at /run/postgresql/.s.PGSQL.5433 (no TLS), db.example.org:5432 (TLS) as push",
            ),
            ("postgresql://[2001:db8::1]:5433/a", "database a at [2001:db8::1]:5433 (TLS)"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn waits_have_bounds_and_standbys_are_left_out() {
        let url: PostgresUrl = "postgresql://db.example.org/a?connect_timeout=9".parse().unwrap();
        let parameters = url.parameters();
        assert_eq!(parameters.get_connect_timeout(), Some(&Duration::from_secs(9)));
        assert_eq!(parameters.get_tcp_user_timeout(), Some(&UNACKNOWLEDGED));
        assert_eq!(parameters.get_keepalives_idle(), ASK_AFTER);
        assert_eq!(parameters.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert!(parameters.get_hosts().is_empty());
    }

    #[test]
    fn password_is_refused_and_not_repeated() {
        for text in ["postgresql://push:sesame@db/a", "postgresql://db/a?password=sesame"] {
            let error = shown(text);
            assert!(error.contains("`password_file`") && !error.contains("sesame"), "{error}");
        }
        let error = shown("postgresql://push:sesame@[db/a");
        assert!(!error.contains("sesame"), "{error}");
    }
}
