//! From a login to the server that holds its mailbox. Pure: no lookup, no connection.
//!
//! The login name comes from a stranger, so what it may do to the host that deltapush connects to is narrow: it can only
//! select a route, and fill in `{domain}`, or have looked up, what has the form of a public DNS name.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};

use crate::config::{
    self, AutoconfigUrl, DOMAIN_PLACEHOLDER, HostPattern, Listener, LoginTemplate, NewsSource,
    ProxyProtocol, Security, Trust, is_dns_name,
};
use crate::dns::Reach;

/// The replacement of the port in the name of a discovered server.
const DISCOVERED: &str = ":discovered";

/// All routes, in the order in which they are tried. Cheap to clone, and never changed: a new configuration makes new ones.
#[derive(Debug, Clone, Default)]
pub struct Routes(Arc<[CompiledRoute]>);

/// The facts of a login by which its route is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The login name.
    pub login: &'a str,
    /// The listener to which the client connected.
    pub listener: Option<&'a Listener>,
    /// The name that the client asked for in TLS, in lower case.
    pub host: Option<&'a str>,
}

#[derive(Debug)]
struct CompiledRoute {
    conditions: config::Route,
    terms: Arc<Terms>,
}

/// A server to connect to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    name: Arc<str>,
    /// Its place.
    pub servers: Servers,
    /// The other terms of its route.
    pub terms: Arc<Terms>,
    /// The addresses to which the names of its hosts may lead.
    pub reach: Reach,
    /// The login itself has named the server, and not the configuration.
    is_open: bool,
    login: LoginTemplate,
}

/// The place of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// There.
    Fixed(Endpoint),
    /// The server that this domain, in lower case, names.
    Discovered(Arc<str>),
}

/// One host and port, and how to be safe there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A DNS name in lower case, or an IP address without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
    /// The kind of encryption.
    pub security: Security,
    /// The name that the certificate must have: the host, or the login's domain where only DNS vouches for the host.
    pub identity: Arc<str>,
}

/// A route's terms for the connection to its server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Trust anchors for the certificate: [`crate::tls::client::ClientConfigs::get`].
    pub trust: Trust,
    /// Hosts that DNS may name although they are outside of the login's domain.
    pub targets: Vec<HostPattern>,
    /// The URL of autoconfig, if not in the usual places.
    pub autoconfig: Option<AutoconfigUrl>,
    /// The header that tells the server who connects.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// True to send it by ID.
    pub originating_ip: bool,
    /// The source of news of new mail.
    pub news: NewsSource,
}

impl Routes {
    /// Takes over what the configuration says: the most specific first, those alike in the order of the file.
    #[must_use]
    pub fn new(routes: &[config::Route]) -> Self {
        let mut all: Vec<_> = routes.iter().map(CompiledRoute::new).collect();
        // Stable: those of the same rank never fit the same login.
        all.sort_by_key(|route| std::cmp::Reverse(route.conditions.rank()));
        Self(all.into())
    }

    /// The server of a login: its domain is what follows the last `@`, without regard to case. `None` if no route is for the
    /// login, and then no connection may be made for it.
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>) -> Option<Target> {
        self.find_route(asked)?.target(asked.login)
    }

    /// The route that [`find`](Self::find) goes by, as the configuration has it.
    #[must_use]
    pub fn explain(&self, asked: &Asked<'_>) -> Option<&config::Route> {
        Some(&self.find_route(asked)?.conditions)
    }

    fn find_route(&self, asked: &Asked<'_>) -> Option<&CompiledRoute> {
        if asked.login.contains(['\0', '\r', '\n']) {
            return None;
        }
        self.0.iter().find(|route| route.is_for(asked.login) && route.is_met(asked))
    }

    /// The server of an account that is known: where and as whom it logged in through any of the routes, listener and TLS name
    /// aside, and as whom the client did. `None` if no route leads to it any more.
    #[must_use]
    pub fn find_again(&self, upstream: &str, applied: &str) -> Option<(Target, String)> {
        let found: Vec<_> =
            self.0.iter().filter_map(|route| route.find_again(upstream, applied)).collect();
        // Two routes may differ in encryption alone: a watch takes the safer one.
        let safe = found.iter().position(|(target, _)| !target.is_plain()).unwrap_or(0);
        found.into_iter().nth(safe)
    }

    /// The mail servers to which routes lead `login`, listener and TLS name aside, and the login name for each.
    pub fn applied<'a>(&'a self, login: &'a str) -> impl Iterator<Item = (Arc<str>, String)> + 'a {
        let targets = self.0.iter().filter(|route| route.is_for(login));
        targets.filter_map(|route| route.target(login)).map(|target| {
            let user = target.login_for(login);
            (target.name, user)
        })
    }

    /// In the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &config::Route> {
        self.0.iter().map(|route| &route.conditions)
    }
}

impl CompiledRoute {
    fn new(route: &config::Route) -> Self {
        let terms = Terms {
            trust: Trust::clone(&route.ca),
            targets: route.targets.clone(),
            autoconfig: route.autoconfig.as_deref().cloned(),
            proxy_protocol: route.proxy_protocol,
            originating_ip: route.originating_ip,
            news: route.news,
        };
        Self { conditions: route.clone(), terms: Arc::new(terms) }
    }

    /// Reports if the login itself fits.
    fn is_for(&self, login: &str) -> bool {
        let login = login.to_lowercase();
        let domain = login.rsplit_once('@').map(|(_, domain)| domain);
        self.conditions.address.as_ref().is_none_or(|address| address.as_str() == login)
            && self.conditions.named_domain().is_none_or(|named| Some(named) == domain)
    }

    /// Reports if the conditions besides the login fit.
    fn is_met(&self, asked: &Asked<'_>) -> bool {
        let Self { conditions, .. } = self;
        let on_listener =
            |name: &str| asked.listener.is_some_and(|listener| listener.is_called(name));
        conditions.host.as_ref().is_none_or(|host| Some(host.as_str()) == asked.host)
            && conditions.listener.as_ref().is_none_or(|name| on_listener(name))
    }

    fn target(&self, login: &str) -> Option<Target> {
        let domain = login.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
        let is_named = self.conditions.named_domain().is_some();
        let domain = domain.filter(|domain| is_named || is_public_name(domain));
        let (name, servers, is_chosen) = match self.conditions.upstream.as_deref() {
            None => {
                let domain = domain?;
                (format!("{domain}{DISCOVERED}"), Servers::Discovered(domain.into()), true)
            }
            Some(upstream) => {
                let endpoint = endpoint(upstream, domain.as_deref())?;
                (
                    endpoint.to_string(),
                    Servers::Fixed(endpoint),
                    upstream.has_placeholder() && !is_named,
                )
            }
        };
        let reach =
            if is_chosen && !self.conditions.private { Reach::PublicOnly } else { Reach::Anywhere };
        let login = self.conditions.login.clone();
        let is_open = is_chosen && !is_named;
        Some(Target {
            name: name.into(),
            servers,
            terms: Arc::clone(&self.terms),
            reach,
            is_open,
            login,
        })
    }

    /// The target, and the client's login, that lead to `upstream` with `applied` as login.
    fn find_again(&self, upstream: &str, applied: &str) -> Option<(Target, String)> {
        let own_domain = applied.rsplit_once('@').map(|(_, domain)| domain);
        let domains = [self.conditions.named_domain(), self.domain_in(upstream), own_domain];
        let solved = domains
            .into_iter()
            .flatten()
            .map(Some)
            .chain([None])
            .filter_map(|domain| self.conditions.login.solve(applied, domain));
        let exact = self.conditions.address.as_ref().map(|address| address.as_str().to_owned());
        exact.into_iter().chain(solved).chain([applied.to_owned()]).find_map(|login| {
            if !self.is_for(&login) || login.contains(['\0', '\r', '\n']) {
                return None;
            }
            let target = self.target(&login).filter(|target| &*target.name == upstream)?;
            // A mailbox's name differs in case only where its owner types it so.
            let leads_back = target.login_for(&login).to_lowercase() == applied.to_lowercase();
            leads_back.then_some((target, login))
        })
    }

    /// The domain that a login must have had to be led to `upstream`.
    fn domain_in<'a>(&self, upstream: &'a str) -> Option<&'a str> {
        let Some(configured) = self.conditions.upstream.as_deref() else {
            return upstream.strip_suffix(DISCOVERED);
        };
        let (before, after) = configured.host.split_once(DOMAIN_PLACEHOLDER)?;
        let (host, _) = upstream.rsplit_once(':')?;
        host.strip_prefix(before)?.strip_suffix(after)
    }
}

fn endpoint(upstream: &config::UpstreamAddress, domain: Option<&str>) -> Option<Endpoint> {
    let host = if upstream.has_placeholder() {
        let host = upstream.host.replace(DOMAIN_PLACEHOLDER, domain?);
        // The whole may be too long for a name although its part was not.
        is_dns_name(&host).then_some(host)?
    } else {
        upstream.host.clone()
    };
    Some(Endpoint::of_host(host, upstream.port, upstream.security))
}

impl Target {
    /// Reports if the login itself, and not the configuration, has named the server: anybody may have such a server.
    #[must_use]
    pub fn is_named_by_login(&self) -> bool {
        self.is_open
    }

    /// The upstream's name in [`crate::account::AccountId`] and logs: `host:port`, with brackets around an IPv6 address; for a
    /// server that is looked up `domain:discovered`, since its host may change while the mailbox stays.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// The login name for the server.
    #[must_use]
    pub fn login_for(&self, login: &str) -> String {
        self.login.apply(login)
    }

    fn is_plain(&self) -> bool {
        matches!(&self.servers, Servers::Fixed(endpoint) if endpoint.security == Security::Plain)
    }
}

impl Endpoint {
    /// A server whose certificate must name its host.
    #[must_use]
    pub fn of_host(host: impl Into<Arc<str>>, port: u16, security: Security) -> Self {
        let host = host.into();
        Self { identity: Arc::clone(&host), host, port, security }
    }

    /// The name that the certificate must be made out for: a DNS name or an IP address.
    ///
    /// # Errors
    /// If the identity is neither. The configuration allows no such host, so this is our own fault.
    pub fn server_name(&self) -> Result<ServerName<'static>, InvalidDnsNameError> {
        ServerName::try_from(self.identity.to_string())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reports if a stranger may name this domain as part of a host to connect to: two labels at least, and none of the names
/// that mean this machine or its own network (RFC 6761, RFC 6762, RFC 9476 and the reserved `internal`). DNS decides where
/// the name leads, hence [`Reach::PublicOnly`].
fn is_public_name(domain: &str) -> bool {
    const LOCAL: [&str; 9] =
        ["localhost", "localdomain", "local", "internal", "intranet", "lan", "home", "alt", "arpa"];
    let Some((_, last)) = domain.rsplit_once('.') else { return false };
    is_dns_name(domain) && !LOCAL.contains(&last)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
