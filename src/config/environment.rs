//! Configuration by variables of the environment, where there is no file: what a container needs for one mail server. Each variable
//! stands for a key of the file; all other keys have their defaults.

use std::env;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::str::FromStr;

use super::check;
use super::error::ConfigProblem;
use super::file::ConfigFile;
use super::listeners::{Hostname, Listener, ListenerTls};
use super::located::{FilePosition, Located};
use super::{Acme, Config, ConfigError, Domain, Route, Security, Trust, UpstreamAddress};

/// In place of a file name in errors.
const NAME: &str = "environment";

const PREFIX: &str = "DELTAPUSH_";

/// The variables and the keys that they stand for.
const VARIABLES: [(&str, &str); 5] = [
    (HOSTNAME, "hostname"),
    (LOGINS, "routes"),
    (UPSTREAM, "upstream"),
    (CA, "ca"),
    (TERMS, "acme"),
];
/// `hostname`.
pub(super) const HOSTNAME: &str = "DELTAPUSH_HOSTNAME";
/// Domains and whole login names, each of which becomes a route.
pub(super) const LOGINS: &str = "DELTAPUSH_LOGINS";
/// `upstream` of these routes; `discover: true` without it.
pub(super) const UPSTREAM: &str = "DELTAPUSH_UPSTREAM";
/// `ca` of these routes.
pub(super) const CA: &str = "DELTAPUSH_CA";
/// `certificate.acme.terms_agreed`.
pub(super) const TERMS: &str = "DELTAPUSH_AGREE_TO_TERMS";

/// Variables that are no configuration: the sealing key, and those that Kubernetes sets for a service of the name `deltapush`.
const OTHERS: [&str; 3] = ["DELTAPUSH_SEAL_KEY", "DELTAPUSH_SERVICE_", "DELTAPUSH_PORT"];

/// The ports of clients, as `deltapush init` chooses them: the usual one, and the one of browsers and certificate authorities.
const PORT: u16 = 993;
const WEB_PORT: u16 = 443;

/// The variables that begin with `DELTAPUSH_`. An empty one counts as absent.
#[derive(Debug, Default)]
pub struct Environment(Vec<(String, OsString)>);

impl Environment {
    /// Reads those of this process.
    #[must_use]
    pub fn read() -> Self {
        let all = env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
        Self::of(all)
    }

    pub(super) fn of(all: impl Iterator<Item = (String, OsString)>) -> Self {
        let is_ours = |(name, value): &(String, OsString)| {
            name.starts_with(PREFIX)
                && !value.is_empty()
                && !OTHERS.iter().any(|other| name.starts_with(other))
        };
        Self(all.filter(is_ours).collect())
    }

    /// Reports if no variable configures deltapush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    /// Those that configure deltapush.
    fn names(&self) -> Vec<&'static str> {
        let is_set = |name: &&str| self.0.iter().any(|(set, _)| set == name);
        VARIABLES.iter().map(|(name, _)| *name).filter(is_set).collect()
    }

    /// Refuses a `file` for a configuration that the variables are.
    ///
    /// # Errors
    /// [`ConfigError::Both`] if a variable configures deltapush.
    pub fn exclude(&self, file: &Path) -> Result<(), ConfigError> {
        let variables = self.names();
        if variables.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Both { path: file.to_owned(), variables })
    }

    /// The configuration that they make.
    ///
    /// # Errors
    /// All problems, each with the name of its variable.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let config = Config::from(self.file()?);
        let problems: Vec<_> = check::problems(&config).into_iter().map(named).collect();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::invalid(NAME, problems)) }
    }

    fn file(&self) -> Result<ConfigFile, ConfigError> {
        let mut problems: Vec<ConfigProblem> = self.unknown().collect();
        let hostname = self.required(HOSTNAME, "the name that people enter in Delta Chat");
        let logins = self.required(LOGINS, "the domain of your mail addresses, or whole addresses");
        let hostname: Option<Hostname> = note(hostname.and_then(parsed), &mut problems);
        let logins = note(logins, &mut problems).unwrap_or_default();
        let server = self.server(&mut problems);
        let routes = routes(&logins, &server, &mut problems);
        let acme = note(self.value(TERMS), &mut problems).flatten();
        let acme = acme.and_then(|given| note(agreement(given), &mut problems).flatten());
        match hostname {
            Some(hostname) if problems.is_empty() => {
                Ok(ConfigFile::of_environment(hostname, listeners(), routes, acme))
            }
            _ => Err(ConfigError::invalid(NAME, problems)),
        }
    }

    /// The mail server: a route without logins.
    fn server(&self, problems: &mut Vec<ConfigProblem>) -> Route {
        let address = self.value(UPSTREAM).and_then(|given| given.map(upstream).transpose());
        let address = note(address, problems).flatten();
        let located = |given: Given<'_>| Ok(Located::at(given.place, parsed::<Trust>(given)?));
        let ca = self.value(CA).and_then(|given| given.map(located).transpose());
        let ca = note(ca, problems).flatten().unwrap_or_default();
        Route { discover: address.is_none(), upstream: address, ca, ..Route::default() }
    }

    fn unknown(&self) -> impl Iterator<Item = ConfigProblem> {
        let is_known = |name: &str| VARIABLES.iter().any(|(known, _)| *known == name);
        self.0.iter().filter(move |(name, _)| !is_known(name)).map(|(name, _)| {
            let known = VARIABLES.map(|(known, _)| known).join(", ");
            ConfigProblem::new(
                Default::default(),
                format!("unknown variable {}, expected one of {known}", name.escape_debug()),
            )
        })
    }

    fn value(&self, name: &'static str) -> Result<Option<Given<'_>>, ConfigProblem> {
        let Some((_, value)) = self.0.iter().find(|(set, _)| set == name) else { return Ok(None) };
        let text = value.to_str().ok_or_else(|| problem(name, "is not UTF-8"))?;
        Ok(Some(Given { name, place: place(name), text: text.trim() }))
    }

    fn required(&self, name: &'static str, meaning: &str) -> Result<Given<'_>, ConfigProblem> {
        self.value(name)?.ok_or_else(|| {
            let others = self.names();
            let are = if others.len() == 1 { "is" } else { "are" };
            let others = others.join(" and ");
            problem(name, &format!("is missing, while {others} {are} set: give {meaning}"))
        })
    }
}

/// Adds the variable's name to a problem that was found in the whole.
fn named(problem: ConfigProblem) -> ConfigProblem {
    let index = usize::try_from(problem.place.column).unwrap_or(0).checked_sub(1);
    let Some((name, _)) = index.and_then(|index| VARIABLES.get(index)) else { return problem };
    let keys_named = VARIABLES.iter().fold(problem.message, |message, (name, key)| {
        message.replace(&format!("`{key}`"), &format!("`{name}`"))
    });
    ConfigProblem::new(Default::default(), format!("{name}: {keys_named}"))
}

/// The value of a variable.
#[derive(Debug, Clone, Copy, Default)]
struct Given<'a> {
    name: &'static str,
    place: FilePosition,
    text: &'a str,
}

/// A variable in place of a line: its column is its number among all, from 1.
fn place(name: &str) -> FilePosition {
    let index = VARIABLES.iter().position(|(known, _)| *known == name);
    FilePosition { line: 0, column: index.map_or(0, |index| index as u64 + 1) }
}

fn problem(name: &str, message: &str) -> ConfigProblem {
    ConfigProblem::new(Default::default(), format!("{name}: {message}"))
}

/// Collects a problem.
fn note<T>(found: Result<T, ConfigProblem>, problems: &mut Vec<ConfigProblem>) -> Option<T> {
    found.map_err(|problem| problems.push(problem)).ok()
}

fn parsed<T: FromStr<Err = String>>(given: Given<'_>) -> Result<T, ConfigProblem> {
    given.text.parse().map_err(|message: String| problem(given.name, &message))
}

fn upstream(given: Given<'_>) -> Result<Located<UpstreamAddress>, ConfigProblem> {
    let address: UpstreamAddress = parsed(given)?;
    if address.security == Security::Plain && !address.is_on_loopback() {
        let message = format!(
            "passwords would cross the network in clear to {}: use `imaps://` or `imap://`, or a configuration file with \
             `insecure: true`",
            address.host
        );
        return Err(problem(given.name, &message));
    }
    Ok(Located::at(given.place, address))
}

fn agreement(given: Given<'_>) -> Result<Option<Located<Acme>>, ConfigProblem> {
    match given.text {
        "true" | "yes" => {
            let acme = Acme { terms_agreed: true, ..Acme::default() };
            Ok(Some(Located::at(given.place, acme)))
        }
        "false" | "no" => Ok(None),
        other => Err(problem(
            given.name,
            &format!(
                "{other:?} is neither `true` nor `false`: `true` agrees to the terms of Let's Encrypt"
            ),
        )),
    }
}

/// A route for each login that is given.
fn routes(logins: &Given<'_>, server: &Route, problems: &mut Vec<ConfigProblem>) -> Vec<Route> {
    let mut given = logins.text.split([',', ' ']).filter(|login| !login.is_empty()).peekable();
    if given.peek().is_none() && !logins.name.is_empty() {
        problems.push(problem(LOGINS, "names no login: give the domain of your mail addresses"));
    }
    given.filter_map(|login| note(route(login, logins.place, server), problems)).collect()
}

/// The route of a domain or of a whole login name.
fn route(login: &str, place: FilePosition, server: &Route) -> Result<Route, ConfigProblem> {
    let wrong = |_| {
        problem(
            LOGINS,
            &format!(
                "{login:?} is neither a domain nor a login name: write `example.org` or `alice@example.org`"
            ),
        )
    };
    let mut route = server.clone();
    if login.contains('@') {
        route.address = Some(Located::at(place, login.parse().map_err(wrong)?));
    } else {
        match login.parse().map_err(wrong)? {
            // A file has the words to allow it.
            Domain::Any => {
                return Err(problem(
                    LOGINS,
                    "\"*\" would let strangers use this proxy: name the domains",
                ));
            }
            domain => route.domain = Some(Located::at(place, domain)),
        }
    }
    Ok(route)
}

fn listeners() -> Vec<Listener> {
    // A machine may be without IPv6.
    let has_ipv6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let any: IpAddr =
        if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let listener = |port| Listener::new(SocketAddr::new(any, port), ListenerTls::Implicit);
    vec![listener(PORT), Listener { web: true, ..listener(WEB_PORT) }]
}
