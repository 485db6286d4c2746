//! The routes in the output of `deltapush check`: their order, and the route of one login.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::super::capability_words::{self, CapabilitySource};
use super::super::{CommandError, Fault, findings};
use crate::config::{Allow, DOMAIN_PLACEHOLDER, LiveConfig, Route};
use crate::dns::Reach;
use crate::upstream::discovery::DiscoveryError;
use crate::upstream::failure_cause::FailureCause;
use crate::upstream::route::{Asked, Endpoint, Routes, Servers, Target};
use crate::upstream::{Upstreams, providers};

/// Writes the routes in the order in which they are tried, and who may use them.
///
/// # Errors
/// If `out` does not take it.
pub fn describe(out: &mut impl Write, config: &LiveConfig) -> io::Result<()> {
    for route in Routes::new(&config.routes).iter() {
        writeln!(out, "route        {}", in_words(route))?;
    }
    if config
        .routes
        .iter()
        .any(|route| route.upstream.as_ref().is_some_and(|upstream| upstream.has_placeholder()))
    {
        writeln!(out, "             {DOMAIN_PLACEHOLDER} is the part of the login after the @")?;
    }
    restrictions(out, "", &config.allow)?;
    for listener in &config.listeners {
        restrictions(out, &format!(" on {}", listener.address), &listener.allow)?;
    }
    if let Some(server) = config.dns.server {
        writeln!(out, "dns          {server}")?;
    }
    Ok(())
}

fn restrictions(out: &mut impl Write, place: &str, allow: &Allow) -> io::Result<()> {
    if let Some(networks) = &allow.networks {
        writeln!(out, "allow{place}        clients from {}", joined(networks))?;
    }
    if let Some(logins) = &allow.logins {
        writeln!(out, "allow{place}        logins of {}", joined(logins))?;
    }
    Ok(())
}

fn joined(list: &[impl ToString]) -> String {
    let list: Vec<_> = list.iter().map(ToString::to_string).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn in_words(route: &Route) -> String {
    let mut notes = format!("CA: {}", route.ca);
    if !route.login.is_identity() {
        // Writing to a string does not fail.
        let _ = write!(notes, ", login: {}", route.login);
    }
    if let Some(smtp) = &route.smtp {
        let _ = write!(notes, ", SMTP: {}", **smtp);
    }
    for (is_so, note) in [
        (route.private, "private"),
        (route.proxy_protocol.is_some(), "PROXY protocol"),
        (route.originating_ip, "originating IP"),
        (route.open, "open"),
        (route.insecure, "insecure"),
    ] {
        if is_so {
            notes.push_str(", ");
            notes.push_str(note);
        }
    }
    format!("{route} to {} ({notes})", route.destination())
}

/// The question of which route a login takes.
#[derive(Debug, Clone, Copy)]
pub struct RouteQuestion<'a> {
    /// The login name.
    pub login: &'a str,
    /// The client's listener, by name or address.
    pub listener: Option<&'a str>,
    /// The name that the client requests in TLS.
    pub host: Option<&'a str>,
    /// Also connect to the mail server.
    pub connect: bool,
}

/// Writes the route of a login and its mail server. Looks the server up; connects to nothing but DNS and autoconfig, unless asked to.
///
/// # Errors
/// If `out` does not take it. The inner error says why clients cannot log in so.
pub async fn run(
    out: &mut impl Write,
    config: &LiveConfig,
    question: &RouteQuestion<'_>,
) -> io::Result<Result<(), CommandError>> {
    let upstreams = match Upstreams::new(config) {
        Ok(upstreams) => upstreams,
        Err(error) => return Ok(Err(Fault::Configuration.because(error.to_string()))),
    };
    let (route, target) = match find(config, &upstreams, question) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    writeln!(out, "route        {}", in_words(route))?;
    writeln!(out, "account      {} at {target}", target.login_for(question.login))?;
    let found = upstreams.servers(&target).await;
    for document in upstreams.unusable_documents(&target).await {
        writeln!(out, "note         {document}")?;
    }
    let unavailable = |why: String| Ok(Err(Fault::Unavailable.because(why)));
    let servers = match found {
        Ok(servers) => servers,
        Err(DiscoveryError::Unusable(_)) => {
            return unavailable(
                "no other source names the mail server; have the document corrected, or set `upstream` in the route".into(),
            );
        }
        Err(error) => return unavailable(format!("no mail server: {error}")),
    };
    let how = if matches!(target.servers, Servers::Discovered(_)) { ", discovered" } else { "" };
    let mut failure = None;
    for server in &servers {
        let (text, error) = about(&upstreams, server, target.reach).await;
        writeln!(out, "server       {text}{how}")?;
        failure = failure.or(error);
    }
    match servers.first() {
        Some(server) if question.connect && failure.is_none() => {
            connect(out, &upstreams, &target, server).await
        }
        _ => Ok(failure.map_or(Ok(()), |why| {
            Err(Fault::Unavailable.because(format!("{} cannot log in: {why}", question.login)))
        })),
    }
}

/// The route of the login, if it may log in.
fn find<'a>(
    config: &LiveConfig,
    upstreams: &'a Upstreams,
    question: &RouteQuestion<'_>,
) -> Result<(&'a Route, Target), CommandError> {
    let RouteQuestion { login, listener, host, .. } = *question;
    let called = |name| config.listeners.iter().find(|listener| listener.is_called(name));
    let listener = match listener {
        None => None,
        Some(name) => Some(called(name).ok_or_else(|| {
            Fault::Usage.because(format!(
                "no listener is called {name}: give the `name` or the `address` of one"
            ))
        })?),
    };
    let host = host.map(str::to_ascii_lowercase);
    let asked = Asked { login, listener, host: host.as_deref() };
    let refused = |why: &str| Fault::Configuration.because(format!("{login} is refused: {why}"));
    if !config.allow.allows(login) || listener.is_some_and(|listener| !listener.allow.allows(login))
    {
        return Err(refused("`allow` does not list it"));
    }
    upstreams
        .routes
        .explain(&asked)
        .zip(upstreams.routes.find(&asked))
        .ok_or_else(|| refused("no route matches it; add a route with its `domain` or `address`"))
}

/// Connects to the server without a login, and writes what it can do.
async fn connect(
    out: &mut impl Write,
    upstreams: &Upstreams,
    target: &Target,
    server: &Endpoint,
) -> io::Result<Result<(), CommandError>> {
    let found = findings::route::connect(upstreams, target, server).await;
    match found {
        Ok(capabilities) => {
            writeln!(out, "connection   works; the certificate is valid")?;
            let source = CapabilitySource::Before;
            let provider = providers::of_host(&server.host);
            for line in capabilities
                .iter()
                .flat_map(|found| capability_words::lines(found, source, provider))
            {
                writeln!(out, "           {line}")?;
            }
            Ok(Ok(()))
        }
        Err(error) => {
            let remedy = FailureCause::of(&error).map(|cause| format!("; {}", cause.remedy()));
            Ok(Err(Fault::Unavailable
                .because(format!("{server}: {error}{}", remedy.unwrap_or_default()))))
        }
    }
}

/// The server with its addresses, and why it cannot be reached if it has none.
async fn about(upstreams: &Upstreams, server: &Endpoint, reach: Reach) -> (String, Option<String>) {
    let scheme = server.security.scheme();
    let identity = if server.identity == server.host {
        String::new()
    } else {
        format!(", certificate for {}", server.identity)
    };
    let (addresses, failure) = match upstreams.dns.addresses(&server.host, reach).await {
        Ok(addresses) => (joined(&addresses), None),
        Err(error) => (format!("not reachable: {error}"), Some(error.to_string())),
    };
    (format!("{scheme}://{server}{identity} ({addresses})"), failure)
}
