//! The mail servers of the routes: reach, certificate, IDLE.

use futures_util::future::join_all;

use super::super::Fault;
use super::Finding;
use crate::config::{LiveConfig, Route};
use crate::upstream::capabilities::Capabilities;
use crate::upstream::connect::{self, ConnectError};
use crate::upstream::failure_cause::FailureCause;
use crate::upstream::route::{Asked, Endpoint, Target};
use crate::upstream::{Upstreams, probe};

const SUBJECT: &str = "route";

/// Mail servers that are tried.
const MAX_SERVERS: usize = 10;

/// The part before the @ of a login that only selects a route: postmaster exists in each domain (RFC 5321 section 4.5.1).
const ANYBODY: &str = "postmaster";
/// The domain of a login for a route of all domains (RFC 2606).
const ANYWHERE: &str = "example.org";

/// Facts about a mail server.
#[derive(Debug)]
pub(in super::super) struct ServerFacts {
    /// Its name as `status` has it, or the login for which there is none.
    pub(in super::super) name: String,
    /// Its capabilities before a login, as far as they can be asked for.
    pub(in super::super) result: Result<Option<Capabilities>, ConnectError>,
    /// An account is watched there now.
    pub(in super::super) is_watched: bool,
}

/// Connects to a server of `target` without a login. Behind a PROXY header its capabilities are not asked for.
///
/// # Errors
/// Why it cannot be used.
pub(in super::super) async fn connect(
    upstreams: &Upstreams,
    target: &Target,
    server: &Endpoint,
) -> Result<Option<Capabilities>, ConnectError> {
    // The probe for capabilities sends no PROXY header.
    if target.terms.proxy_protocol.is_some() {
        return connect::reach(target, upstreams).await.map(|()| None);
    }
    probe::capabilities(upstreams, server, &target.terms.trust, target.reach).await.map(Some)
}

/// Connects to the mail servers of all routes that name a domain or a server, and to those of `logins`. `watched` are servers at
/// which an account is watched.
pub(in super::super) async fn look(
    config: &LiveConfig,
    upstreams: &Upstreams,
    logins: &[String],
    watched: &[String],
) -> Vec<ServerFacts> {
    let named = config.routes.iter().filter_map(example);
    let mut targets: Vec<(String, Target)> = Vec::new();
    for login in logins.iter().cloned().chain(named) {
        let asked = Asked { login: &login, listener: None, host: None };
        let Some(target) = upstreams.routes.find(&asked) else { continue };
        if targets.iter().all(|(_, known)| known.name() != target.name()) {
            targets.push((login, target));
        }
    }
    targets.truncate(MAX_SERVERS);
    join_all(targets.iter().map(|(login, target)| look_at(upstreams, login, target, watched))).await
}

/// A login that leads to the route; `None` for a route whose server depends on the login.
fn example(route: &Route) -> Option<String> {
    if let Some(address) = route.address.as_ref().map(|address| address.as_str().to_owned()) {
        return (!address.contains('*')).then_some(address);
    }
    let is_one = route.upstream.as_ref().is_some_and(|upstream| !upstream.has_placeholder());
    let domain = route.named_domain().or(is_one.then_some(ANYWHERE))?;
    Some(format!("{ANYBODY}@{domain}"))
}

async fn look_at(
    upstreams: &Upstreams,
    login: &str,
    target: &Target,
    watched: &[String],
) -> ServerFacts {
    let name = target.name();
    let is_watched = watched.contains(&name);
    match upstreams.servers(target).await {
        Err(error) => {
            let name = format!("{login} to {name}");
            ServerFacts { name, result: Err(error.into()), is_watched }
        }
        Ok(servers) => {
            let Some(server) = servers.first() else {
                return ServerFacts { name, result: Ok(None), is_watched };
            };
            let result = connect(upstreams, target, server).await;
            ServerFacts { name: server.to_string(), result, is_watched }
        }
    }
}

/// Judges a mail server.
pub(in super::super) fn judge(facts: &ServerFacts) -> Finding {
    let name = &facts.name;
    let capabilities = match &facts.result {
        Ok(capabilities) => capabilities,
        Err(error) => {
            let remedy = FailureCause::of(error).map_or(
                "`deltapush check --login NAME --connect` shows the route",
                FailureCause::remedy,
            );
            return Finding::fail(Fault::Unavailable, SUBJECT, format!("{name}: {error}"), remedy);
        }
    };
    let idle = match capabilities {
        _ if facts.is_watched => "IDLE works",
        Some(found) if found.has("IDLE") => "IDLE: yes",
        _ => "IDLE is known only after a login",
    };
    Finding::ok(SUBJECT, format!("{name} answers, its certificate is valid, {idle}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn facts(result: Result<Option<Capabilities>, ConnectError>) -> ServerFacts {
        ServerFacts { name: "imap.example.org:993".into(), result, is_watched: false }
    }

    #[test]
    fn server_is_told_with_its_idle() {
        let has = |names: &[&[u8]]| Ok(Some(Capabilities::from_names(names.iter().copied())));
        assert!(judge(&facts(has(&[b"IDLE"]))).words.ends_with("IDLE: yes"));
        assert!(judge(&facts(has(&[]))).words.ends_with("only after a login"));
        let watched = ServerFacts { is_watched: true, ..facts(has(&[])) };
        assert!(judge(&watched).words.ends_with("IDLE works"));
        let refused = ConnectError::Unreachable(std::io::ErrorKind::ConnectionRefused.into());
        let refused = judge(&facts(Err(refused)));
        assert!(refused.is_failure() && refused.remedy.unwrap().contains("its port"));
    }

    #[test]
    fn route_with_one_server_has_an_example() {
        let text = "routes:\n  - {domain: example.org, discover: true}\n  - {address: a@b.example, upstream: imaps://b.example}\n  - {domain: c.example, host: c.example, upstream: imaps://c.example}\n  - {domain: \"*\", upstream: \"imaps://imap.{domain}\"}\n";
        let config = Config::parse(text, Path::new(""), "test").unwrap();
        let examples: Vec<_> = config.live.routes.iter().map(example).collect();
        assert_eq!(
            examples,
            [
                Some("postmaster@example.org".to_owned()),
                Some("a@b.example".to_owned()),
                Some("postmaster@c.example".to_owned()),
                None
            ]
        );
    }

    #[test]
    fn route_of_all_domains_to_one_server_has_an_example() {
        let text = "routes:\n  - {domain: \"*\", upstream: imaps://imap.example.net}\n";
        let config = Config::parse(text, Path::new(""), "test").unwrap();
        assert_eq!(example(&config.live.routes[0]).as_deref(), Some("postmaster@example.org"));
    }
}
