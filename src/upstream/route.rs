//! From a login name to the server that holds its mailbox. Pure: no lookup, no connection.
//!
//! The login name comes from a stranger, so what it may do to the host that deltapush connects to is narrow: it can only
//! select a route, and fill in `{domain}` with what has the form of a public DNS name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};

use crate::config::{self, DOMAIN_PLACEHOLDER, Domain, Security, Trust, is_dns_name};

/// All routes, ready to be asked at every login.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// Routes for one domain each, by its lower-case name.
    named: HashMap<String, Upstream>,
    /// The route for all others.
    any: Option<Upstream>,
}

#[derive(Debug, Clone)]
struct Upstream {
    /// May contain the placeholder only where the domain comes from the login.
    host: String,
    port: u16,
    security: Security,
    trust: Trust,
}

/// A server to connect to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// A DNS name in lower case, or an IP address without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
    /// How TLS comes in.
    pub security: Security,
    /// What the certificate is verified against: [`super::tls::ClientConfigs::get`].
    pub trust: Trust,
}

impl Routes {
    /// Takes over what the configuration says.
    #[must_use]
    pub fn new(routes: &[config::Route]) -> Self {
        let mut all = Self::default();
        for route in routes {
            let upstream = Upstream::new(route);
            match &*route.domain {
                Domain::Any => all.any = Some(upstream),
                Domain::Named(domain) => {
                    let host = upstream.host.replace(DOMAIN_PLACEHOLDER, domain);
                    all.named.insert(domain.clone(), Upstream { host, ..upstream });
                }
            }
        }
        all
    }

    /// The server of `login`: its domain is what follows the last `@`, without regard to case. `None` if no route allows
    /// the login, and then no connection may be made for it.
    #[must_use]
    pub fn resolve(&self, login: &str) -> Option<Target> {
        if login.contains(['\0', '\r', '\n']) {
            return None;
        }
        let domain = login.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
        let named = domain.as_ref().and_then(|domain| self.named.get(domain));
        match named {
            Some(upstream) => Some(upstream.target(&upstream.host)),
            None => self.any.as_ref()?.target_for(domain.as_deref()),
        }
    }
}

impl Upstream {
    fn new(route: &config::Route) -> Self {
        let upstream = &route.upstream;
        Self {
            host: upstream.host.clone(),
            port: upstream.port,
            security: upstream.security,
            trust: Trust::clone(&route.ca),
        }
    }

    fn target_for(&self, domain: Option<&str>) -> Option<Target> {
        if !self.host.contains(DOMAIN_PLACEHOLDER) {
            return Some(self.target(&self.host));
        }
        let domain = domain.filter(|domain| is_public_name(domain))?;
        let host = self.host.replace(DOMAIN_PLACEHOLDER, domain);
        // The whole may be too long for a name although its part was not.
        is_dns_name(&host).then(|| self.target(&host))
    }

    fn target(&self, host: &str) -> Target {
        Target { host: host.into(), port: self.port, security: self.security, trust: self.trust.clone() }
    }
}

impl Target {
    /// `host:port`, with brackets around an IPv6 address: the upstream's name in [`crate::account::AccountId`] and logs.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// The name that the certificate must be made out for: a DNS name or an IP address.
    ///
    /// # Errors
    /// If the host is neither. The configuration allows no such host, so this is our own fault.
    pub fn server_name(&self) -> Result<ServerName<'static>, InvalidDnsNameError> {
        ServerName::try_from(self.host.to_string())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether a stranger may name this domain as part of a host to connect to: two labels at least, and none of the names that
/// mean this machine or its own network (RFC 6761, RFC 6762, RFC 9476 and the reserved `internal`). Where the name leads is
/// up to DNS all the same.
fn is_public_name(domain: &str) -> bool {
    const LOCAL: [&str; 9] =
        ["localhost", "localdomain", "local", "internal", "intranet", "lan", "home", "alt", "arpa"];
    let Some((_, last)) = domain.rsplit_once('.') else { return false };
    is_dns_name(domain) && !LOCAL.contains(&last)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn routes(yaml: &str) -> Routes {
        Routes::new(&Config::parse(&format!("routes:\n{yaml}"), Path::new(""), "test").unwrap().routes)
    }

    fn resolved(routes: &Routes, login: &str) -> Option<String> {
        routes.resolve(login).map(|target| target.name())
    }

    #[test]
    fn the_domain_decides_and_the_exact_route_comes_first() {
        let routes = routes(concat!(
            "  - domain: \"*\"\n    upstream: imaps://imap.{domain}:994\n",
            "  - domain: Example.org\n    upstream: imap://mail.example.net\n    ca: system\n",
            "  - domain: six.example\n    upstream: imap+plain://[::1]:1143\n",
            "  - domain: own.example\n    upstream: imaps://mx.{domain}\n",
        ));
        let target = routes.resolve("bob@EXAMPLE.org").unwrap();
        assert_eq!(
            target,
            Target { host: "mail.example.net".into(), port: 143, security: Security::StartTls, trust: Trust::System }
        );
        let target = routes.resolve("bob@Else.example").unwrap();
        let host = "imap.else.example".into();
        assert_eq!(target, Target { host, port: 994, security: Security::Tls, trust: Trust::WebPki });
        assert_eq!(resolved(&routes, "bob@six.example").unwrap(), "[::1]:1143");
        assert_eq!(resolved(&routes, "bob@own.example").unwrap(), "mx.own.example:993");
        assert_eq!(resolved(&routes, "bob@evil.example@example.org").unwrap(), "mail.example.net:143");
        assert_eq!(resolved(&routes, "@example.org").unwrap(), "mail.example.net:143");
    }

    #[test]
    fn without_a_default_route_others_are_refused() {
        let routes = routes("  - domain: example.org\n    upstream: imaps://mail.example.org\n");
        assert_eq!(resolved(&routes, "bob@example.org").unwrap(), "mail.example.org:993");
        for login in ["bob@example.com", "bob@sub.example.org", "bob", "", "example.org", "bob@", "bob@example.org."] {
            assert_eq!(resolved(&routes, login), None, "{login}");
        }
    }

    #[test]
    fn a_fixed_default_host_takes_every_login() {
        let routes = routes("  - domain: \"*\"\n    upstream: imaps://mail.example.org\n");
        for login in ["bob", "bob@example.com", "bob@localhost", "bob@[127.0.0.1]", "bob@bücher.de"] {
            assert_eq!(resolved(&routes, login).unwrap(), "mail.example.org:993", "{login}");
        }
        for login in ["bob\0@example.org", "bob@example.org\r\n", "b\nob"] {
            assert_eq!(resolved(&routes, login), None, "{login:?}");
        }
    }

    #[test]
    fn a_login_cannot_choose_a_host_inside() {
        for upstream in ["imaps://{domain}", "imaps://imap.{domain}"] {
            let routes = routes(&format!("  - domain: \"*\"\n    upstream: {upstream}\n"));
            assert!(routes.resolve("bob@a-1.example").is_some());
            let too_long = format!("bob@{}.org", vec!["a".repeat(62); 4].join("."));
            for login in [
                "bob",
                "bob@",
                "bob@localhost",
                "bob@a.localhost",
                "bob@router",
                "bob@printer.local",
                "bob@db.internal",
                "bob@nas.lan",
                "bob@127.0.0.1",
                "bob@127.1",
                "bob@0x7f.1",
                "bob@[127.0.0.1]",
                "bob@[::1]",
                "bob@::1",
                "bob@1.0.0.127.in-addr.arpa",
                "bob@example.org.",
                "bob@.example.org",
                "bob@a..b",
                "bob@a.b:25",
                "bob@a.b/c",
                "bob@a b.de",
                "bob@bücher.de",
                "bob@{domain}",
                "bob@{domain}.org",
                "bob@-a.org",
                "bob@a.b\0",
                "bob@a.b\r\n",
                &too_long,
            ] {
                assert_eq!(resolved(&routes, login), None, "{login:?}");
            }
        }
    }

    #[test]
    fn a_name_that_only_the_prefix_makes_too_long_is_refused() {
        let routes = routes("  - domain: \"*\"\n    upstream: imaps://imap.{domain}\n");
        let domain = [&*"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &"d".repeat(57), "org"].join(".");
        assert!(is_dns_name(&domain));
        assert_eq!(resolved(&routes, &format!("bob@{domain}")), None);
    }

    #[test]
    fn certificates_are_checked_for_names_and_addresses() {
        let target = |host: &str| Target { host: host.into(), port: 1, security: Security::Tls, trust: Trust::WebPki };
        assert!(matches!(target("_imap.example.org").server_name(), Ok(ServerName::DnsName(_))));
        assert!(matches!(target("::1").server_name(), Ok(ServerName::IpAddress(_))));
        assert!(matches!(target("192.0.2.1").server_name(), Ok(ServerName::IpAddress(_))));
    }
}
