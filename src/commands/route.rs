//! The routes in the output of `deltapush check`: their order, and the route of one login.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::config::{Allow, DOMAIN_PLACEHOLDER, LiveConfig, Route};
use crate::tls::client::TrustError;
use crate::upstream::Upstreams;
use crate::upstream::discovery::DiscoveryError;
use crate::upstream::dns::Reach;
use crate::upstream::route::{Asked, Endpoint, Routes, Servers};

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

/// Describes the route of `login`: for a client of `listener`, by name or address, that requests `host` in
/// TLS. Looks the server up, and connects to nothing but DNS and autoconfig.
///
/// # Errors
/// [`TrustError`] if a route's list of authorities does not serve.
pub async fn where_to(
    config: &LiveConfig,
    login: &str,
    listener: Option<&str>,
    host: Option<&str>,
) -> Result<String, TrustError> {
    let upstreams = Upstreams::new(config)?;
    if let Some(unknown) =
        listener.filter(|name| !config.listeners.iter().any(|listener| listener.is_called(name)))
    {
        return Ok(format!(
            "no listener is called {unknown}: give the `name` or the `address` of one\n"
        ));
    }
    let listener =
        listener.and_then(|name| config.listeners.iter().find(|listener| listener.is_called(name)));
    let host = host.map(str::to_ascii_lowercase);
    let asked = Asked { login, listener, host: host.as_deref() };
    if !config.allow.allows(login) || listener.is_some_and(|listener| !listener.allow.allows(login))
    {
        return Ok(format!("{login} is refused: `allow` does not list it\n"));
    }
    let (Some(route), Some(target)) =
        (upstreams.routes.explain(&asked), upstreams.routes.find(&asked))
    else {
        return Ok(format!("{login} is refused: no route matches it\n"));
    };
    let mut said = format!(
        "route        {}\naccount      {} at {target}\n",
        in_words(route),
        target.login_for(login)
    );
    let how = if matches!(target.servers, Servers::Discovered(_)) { ", discovered" } else { "" };
    let found = upstreams.servers(&target).await;
    for document in upstreams.unusable_documents(&target).await {
        let _ = writeln!(said, "note         {document}");
    }
    match found {
        Err(DiscoveryError::Unusable(_)) => said.push_str(
            "server       none: no other source names it; have the document corrected, or set `upstream` in the route\n",
        ),
        Err(error) => {
            let _ = writeln!(said, "server       none: {error}");
        }
        Ok(servers) => {
            for server in servers {
                let _ = writeln!(said, "server       {}{how}", about(&upstreams, &server, target.reach).await);
            }
        }
    }
    Ok(said)
}

async fn about(upstreams: &Upstreams, server: &Endpoint, reach: Reach) -> String {
    let scheme = server.security.scheme();
    let identity = if server.identity == server.host {
        String::new()
    } else {
        format!(", certificate for {}", server.identity)
    };
    let addresses = match upstreams.dns.addresses(&server.host, reach).await {
        Ok(addresses) => joined(&addresses),
        Err(error) => format!("not reachable: {error}"),
    };
    format!("{scheme}://{server}{identity} ({addresses})")
}
