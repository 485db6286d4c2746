//! Discovers the mail server of an address and its capabilities, and prints each finding.

use std::fmt::Write as _;
use std::path::Path;

use futures_util::future::join_all;

use super::super::capability_words::{self, CapabilitySource};
use super::super::{CommandError, Fault};
use super::InitOptions;
use crate::config::{Config, LoginTemplate, Security, Trust, UpstreamAddress, is_dns_name};
use crate::credentials::Credentials;
use crate::dns::is_public;
use crate::dns::{DnsResolver, Reach};
use crate::upstream::Upstreams;
use crate::upstream::capabilities::Capabilities;
use crate::upstream::connect::{ConnectError, LoginRequest};
use crate::upstream::discovery::DiscoveryError;
use crate::upstream::failure_cause::FailureCause;
use crate::upstream::id::Introduction;
use crate::upstream::login_machine::{LoginError, Purpose};
use crate::upstream::probe;
use crate::upstream::providers::{self, Provider};
use crate::upstream::route::{Asked, Endpoint, Target};

/// The address, in its parts.
#[derive(Debug, Clone)]
pub(super) struct AddressParts {
    pub(super) whole: String,
    pub(super) domain: String,
}

impl AddressParts {
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let wrong = || {
            Fault::Usage
                .because(format!("{text:?} is not a mail address: write it as `you@example.org`"))
        };
        let whole = text.trim().to_owned();
        let (local, domain) = whole.rsplit_once('@').ok_or_else(wrong)?;
        let domain = domain.to_lowercase();
        let is_fine = |c: char| !c.is_control() && !c.is_whitespace();
        if local.is_empty() || !local.chars().all(is_fine) || !is_dns_name(&domain) {
            return Err(wrong());
        }
        Ok(Self { domain, whole })
    }
}

/// The result of the search.
#[derive(Debug)]
pub(super) struct FoundServer {
    /// The address in the route; `None` if the route looks it up each time.
    pub(super) upstream: Option<UpstreamAddress>,
    /// The server itself.
    pub(super) endpoint: Endpoint,
    pub(super) provider: Option<&'static Provider>,
    pub(super) login: LoginTemplate,
}

/// A provisional configuration with one route, sufficient for discovery and login.
pub(super) fn provisional(
    options: &InitOptions,
    address: &AddressParts,
    server: Option<&FoundServer>,
) -> Result<Config, CommandError> {
    let text = format!("routes:\n{}", route(options, address, server));
    let dns = options
        .dns
        .map(|dns| format!("dns:\n  server: {}\n", quoted(&dns.to_string())))
        .unwrap_or_default();
    Config::parse(&(text + &dns), Path::new(""), "the command line")
        .map_err(|error| Fault::Usage.because(error.to_string()))
}

/// The route in YAML.
pub(super) fn route(
    options: &InitOptions,
    address: &AddressParts,
    server: Option<&FoundServer>,
) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut line = |first: bool, key: &str, value: &str| {
        let _ = writeln!(text, "  {} {key}: {value}", if first { "-" } else { " " });
    };
    if server.is_some_and(|server| is_for_one(address, server)) {
        line(true, "address", &quoted(&address.whole));
    } else {
        line(true, "domain", &quoted(&address.domain));
    }
    match server.and_then(|server| server.upstream.as_ref()) {
        Some(upstream) => line(false, "upstream", &quoted(&upstream.to_string())),
        None => line(false, "discover", "true"),
    }
    if let Some(ca) = &options.ca {
        line(false, "ca", &quoted(&absolute(ca)));
    }
    if let Some(server) = server.filter(|server| !server.login.is_identity()) {
        line(false, "login", &quoted(&server.login.to_string()));
    }
    if options.private && server.is_none_or(|server| server.upstream.is_none()) {
        line(false, "private", "true");
    }
    text
}

/// True if the route is for the one address: all the world has addresses at a large provider.
pub(super) fn is_for_one(address: &AddressParts, server: &FoundServer) -> bool {
    server.provider.is_some_and(|provider| provider.domains.contains(&&*address.domain))
}

/// A YAML string, whatever is in it: JSON's quoting is valid there.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A path that means the same wherever the configuration lies; `webpki` and `system` are none.
fn absolute(ca: &str) -> String {
    match ca {
        "webpki" | "system" => ca.to_owned(),
        path => std::path::absolute(path)
            .map_or_else(|_| path.to_owned(), |path| path.display().to_string()),
    }
}

/// Finds the server: as the command line says, as its provider is known to have it, as the domain says, or by the usual names.
pub(super) async fn find(
    options: &InitOptions,
    address: &AddressParts,
    say: &mut dyn FnMut(&str),
) -> Result<FoundServer, CommandError> {
    if let Some(upstream) = &options.upstream {
        let provider = providers::of_host(&upstream.host);
        return Ok(fixed(upstream.clone(), provider));
    }
    if let Some(provider) = providers::of_domain(&address.domain) {
        say(&format!("{} has its mailboxes at {}.", address.domain, provider.name));
        let host = provider.imap_host().to_owned();
        let upstream =
            UpstreamAddress { security: Security::Tls, host, port: Security::Tls.port() };
        let login = if provider.imap_by_local_part {
            LoginTemplate::local()
        } else {
            LoginTemplate::default()
        };
        return Ok(FoundServer { login, ..fixed(upstream, Some(provider)) });
    }
    say(&format!("Looking up the mail server of {} (SRV records, autoconfig) …", address.domain));
    let config = provisional(options, address, None)?;
    let upstreams = upstreams(&config)?;
    let target = target(&upstreams, address)?;
    let found = upstreams.servers(&target).await;
    for document in upstreams.unusable_documents(&target).await {
        say(&format!("{document}. The operator of that web server can correct it."));
    }
    match found {
        Ok(servers) => match servers.into_iter().next() {
            Some(endpoint) => return Ok(discovered(endpoint)),
            None => say("The domain names no mail server."),
        },
        Err(error @ DiscoveryError::NotOffered(_)) => return Err(nowhere(&error.to_string())),
        // Said above.
        Err(DiscoveryError::Unusable(_)) => {}
        Err(error) => say(&sentence(&error.to_string())),
    }
    say("Trying the usual names …");
    match by_usual_names(address, &upstreams, &target.terms.trust).await {
        Ok(server) => Ok(server),
        Err(failures) => {
            for (upstream, error) in &failures {
                say(&format!("  {upstream}: {error}"));
            }
            let causes = failures.iter().filter_map(|(_, error)| FailureCause::of(error));
            Err(nowhere(&no_server_because(&address.domain, &causes.collect::<Vec<_>>())))
        }
    }
}

fn nowhere(why: &str) -> CommandError {
    Fault::Unavailable.because(format!(
        "{why}; if you know its name, give it with --upstream imaps://imap.example.org"
    ))
}

fn target(upstreams: &Upstreams, address: &AddressParts) -> Result<Target, CommandError> {
    let asked = Asked { login: &address.whole, listener: None, host: None };
    let target = upstreams.routes.find(&asked);
    target.ok_or_else(|| Fault::Usage.because("no route matches the address"))
}

/// Reports if the server is on this machine or in its network.
pub(super) async fn is_own(server: &FoundServer, dns: &DnsResolver) -> bool {
    let found = dns.addresses(&server.endpoint.host, Reach::Anywhere).await;
    found.is_ok_and(|addresses| addresses.iter().any(|address| !is_public(*address)))
}

/// The words with one full stop at their end: a server's may have one.
fn sentence(words: &str) -> String {
    format!("{}.", words.trim_end_matches('.'))
}

/// Explains why no server was found, from the causes at all names. A server that answered tells more than a name that is not there.
fn no_server_because(domain: &str, causes: &[FailureCause]) -> String {
    let has = |cause| causes.contains(&cause);
    let all = |cause| !causes.is_empty() && causes.iter().all(|other| *other == cause);
    let why = match () {
        () if has(FailureCause::Untrusted) => {
            "a server is there, but its certificate is not trusted: if your own authority issued it, name that authority with \
             --ca FILE (or --ca system)"
        }
        () if has(FailureCause::OtherName) => {
            "a server is there, but its certificate is for another name: give that name with --upstream"
        }
        () if has(FailureCause::Expired) => "a server is there, but its certificate has expired",
        () if all(FailureCause::DnsSilent) => {
            "DNS gives no answer: this machine is offline, or its DNS server is not reachable (--dns ADDRESS:PORT names another)"
        }
        () if all(FailureCause::NoNetwork) => {
            "this machine has no way to these addresses: it is offline"
        }
        () if all(FailureCause::NameUnknown) => {
            "DNS knows none of the usual names: check the domain of the address"
        }
        () => "no mail server answered at any of the usual names",
    };
    format!("no mail server was found for {domain}: {why}")
}

fn fixed(upstream: UpstreamAddress, provider: Option<&'static Provider>) -> FoundServer {
    let endpoint = Endpoint::of_host(upstream.host.as_str(), upstream.port, upstream.security);
    FoundServer { upstream: Some(upstream), endpoint, provider, login: LoginTemplate::default() }
}

/// A server that the domain named. If only DNS vouches for its host, the route looks it up each time, with the proof that
/// this takes; otherwise it is written down.
fn discovered(endpoint: Endpoint) -> FoundServer {
    let provider = providers::of_host(&endpoint.host);
    let Endpoint { host, port, security, .. } = endpoint.clone();
    let upstream = (endpoint.identity == host).then(|| UpstreamAddress {
        security,
        host: host.to_string(),
        port,
    });
    FoundServer { upstream, endpoint, provider, login: LoginTemplate::default() }
}

async fn by_usual_names(
    address: &AddressParts,
    upstreams: &Upstreams,
    trust: &Trust,
) -> Result<FoundServer, Vec<(UpstreamAddress, ConnectError)>> {
    let domain = &address.domain;
    let hosts = [format!("imap.{domain}"), format!("mail.{domain}"), domain.clone()];
    let candidates = [Security::Tls, Security::StartTls].into_iter().flat_map(|security| {
        hosts.clone().map(|host| UpstreamAddress { security, host, port: security.port() })
    });
    let looks = candidates.map(|upstream| async move {
        let server = fixed(upstream.clone(), None);
        match probe::capabilities(upstreams, &server.endpoint, trust, Reach::Anywhere).await {
            Ok(_) => Ok(server),
            Err(error) => Err((upstream, error)),
        }
    });
    let mut failures = Vec::new();
    for look in join_all(looks).await {
        match look {
            Ok(server) => return Ok(server),
            Err(failure) => failures.push(failure),
        }
    }
    Err(failures)
}

pub(super) fn upstreams(config: &Config) -> Result<Upstreams, CommandError> {
    Upstreams::new(&config.live).map_err(|error| Fault::Configuration.because(error.to_string()))
}

/// Connects, and tells what the server can do; with a password, what it says after the login, whose name may have to be the part
/// before the `@`. Returns the login that works.
pub(super) async fn look(
    options: &InitOptions,
    address: &AddressParts,
    server: &mut FoundServer,
    password: Option<&str>,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let config = provisional(options, address, Some(server))?;
    let upstreams = upstreams(&config)?;
    let trust = config.live.routes.first().map(|route| Trust::clone(&route.ca)).unwrap_or_default();
    let reach = if server.upstream.is_some() || options.private {
        Reach::Anywhere
    } else {
        Reach::PublicOnly
    };
    let scheme = server.endpoint.security.scheme();
    say(&format!("Connecting to {scheme}://{} …", server.endpoint));
    let before = probe::capabilities(&upstreams, &server.endpoint, &trust, reach).await;
    let before = before.map_err(|error| unreachable(&error, server, options.upstream.is_some()))?;
    let Some(password) = password else {
        show_capabilities(&before, CapabilitySource::Before, server, say);
        return Ok(());
    };
    let (capabilities, pushes) = log_in(options, address, server, password, say).await?;
    show_capabilities(&capabilities, CapabilitySource::After { pushes }, server, say);
    Ok(())
}

fn show_capabilities(
    capabilities: &Capabilities,
    said: CapabilitySource,
    server: &FoundServer,
    say: &mut dyn FnMut(&str),
) {
    say("Capabilities of this server:");
    for line in capability_words::lines(capabilities, said, server.provider) {
        say(&line);
    }
}

fn unreachable(error: &ConnectError, server: &FoundServer, is_given: bool) -> CommandError {
    let cure = match FailureCause::of(error) {
        Some(FailureCause::Untrusted) => {
            "if your own authority issued its certificate, name that authority with --ca FILE (or --ca system)"
        }
        Some(FailureCause::NotPublic) => "if it is in your own network, add --private",
        Some(FailureCause::DnsSilent | FailureCause::NoNetwork) => {
            "check that this machine is online and reaches its DNS server (--dns ADDRESS:PORT names another)"
        }
        Some(FailureCause::Expired) => {
            "its operator has to renew the certificate; check also the clock of this machine"
        }
        _ if is_given => "check the name and the port in --upstream",
        _ => "if the mailbox is on another server, add --upstream imaps://imap.example.org",
    };
    Fault::Unavailable.because(format!("{}: {error}; {cure}", server.endpoint))
}

async fn log_in(
    options: &InitOptions,
    address: &AddressParts,
    server: &mut FoundServer,
    password: &str,
    say: &mut dyn FnMut(&str),
) -> Result<(Capabilities, bool), CommandError> {
    let mut logins = vec![server.login.clone()];
    if server.login.is_identity() {
        logins.push(LoginTemplate::local());
    }
    let mut refusal = None;
    for login in logins {
        server.login = login;
        let config = provisional(options, address, Some(server))?;
        let upstreams = upstreams(&config)?;
        let target = target(&upstreams, address)?;
        let name = target.login_for(&address.whole);
        let attempt = LoginRequest {
            target: &target,
            upstreams: &upstreams,
            credentials: Credentials::new(name.clone(), password.as_bytes().to_vec()),
            purpose: Purpose::Client { probe: true },
            origin: None,
            introduction: Introduction::default(),
            permit: None,
        };
        match attempt.connect(None).await {
            Ok(connected) => {
                say(&format!("The login as {name} works."));
                return Ok((connected.logged_in.capabilities, connected.logged_in.pushes));
            }
            Err(ConnectError::Login(error @ LoginError::Refused { .. })) => {
                say(&format!("The login as {name} failed: {}", sentence(&error.to_string())));
                refusal = Some(error);
            }
            Err(error) => return Err(unreachable(&error, server, options.upstream.is_some())),
        }
    }
    let hint = server.provider.map(|provider| provider.hint).filter(|hint| !hint.is_empty());
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    let why = refusal.map(|error| error.to_string()).unwrap_or_default();
    Err(Fault::Usage.because(format!(
        "{}{hint}; try again with the correct password, or without one to skip the login",
        why.trim_end_matches('.')
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_have_a_domain() {
        assert_eq!(AddressParts::parse(" You@Example.ORG ").unwrap().domain, "example.org");
        for text in [
            "you",
            "@example.org",
            "you@",
            "you@localhost:1",
            "a b@example.org",
            "you@127.0.0.1",
            "y\n@a.example",
        ] {
            assert!(AddressParts::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn route_is_for_a_domain_or_for_one_address_of_a_large_provider() {
        let options = InitOptions::of("you@example.org");
        let address = AddressParts::parse("you@example.org").unwrap();
        let server = fixed("imaps://mail.example.org".parse().unwrap(), None);
        let text = route(&options, &address, Some(&server));
        assert_eq!(
            text,
            "  - domain: \"example.org\"\n    upstream: \"imaps://mail.example.org:993\"\n"
        );
        let address = AddressParts::parse("you@web.de").unwrap();
        let provider = providers::of_domain("web.de");
        let server = FoundServer {
            login: LoginTemplate::local(),
            ..fixed("imaps://imap.web.de".parse().unwrap(), provider)
        };
        let text = route(&options, &address, Some(&server));
        assert!(
            text.starts_with("  - address: \"you@web.de\"\n")
                && text.contains("login: \"{local}\""),
            "{text}"
        );
        assert!(provisional(&options, &address, Some(&server)).is_ok());
        assert!(route(&options, &address, None).contains("discover: true"));
    }

    #[test]
    fn reason_that_the_operator_can_act_on_comes_first() {
        let names = [FailureCause::NameUnknown, FailureCause::Untrusted, FailureCause::Refused];
        assert!(no_server_because("example.org", &names).contains("--ca FILE"));
        let offline = [FailureCause::DnsSilent; 3];
        assert!(no_server_because("example.org", &offline).contains("offline"));
        let misspelled = [FailureCause::NameUnknown; 3];
        assert!(no_server_because("example.org", &misspelled).contains("check the domain"));
        let private = [FailureCause::DnsSilent, FailureCause::Refused];
        assert!(!no_server_because("example.org", &private).contains("offline"));
    }

    #[test]
    fn host_that_only_dns_vouches_for_is_looked_up_each_time() {
        let endpoint = |identity: &str| Endpoint {
            host: "imap.provider.example".into(),
            port: 993,
            security: Security::Tls,
            identity: identity.into(),
        };
        assert!(discovered(endpoint("example.org")).upstream.is_none());
        let upstream = discovered(endpoint("imap.provider.example")).upstream.unwrap();
        assert_eq!(upstream.to_string(), "imaps://imap.provider.example:993");
    }
}
