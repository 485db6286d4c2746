//! The settings that clients need to use deltapush: as a login code for Delta Chat, as autoconfig XML, on the public
//! page. Only [`outgoing`], which finds the SMTP server, opens connections.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

pub mod dclogin;
pub mod outgoing;
pub mod qr;
pub mod xml;

use std::collections::BTreeMap;

use crate::config::{Listener, ListenerTls, LiveConfig, LoginTemplate, Route, Submission};

/// The IMAP server for clients: one of deltapush's listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The host name or IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The TLS mode; never [`ListenerTls::None`].
    pub tls: ListenerTls,
}

/// The SMTP server for clients: the provider's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The server.
    pub server: Submission,
    /// The login name for it.
    pub login: LoginTemplate,
}

/// The addresses that settings are for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// All addresses of this domain, in lower case.
    Domain(String),
    /// This address alone, in lower case.
    Address(String),
}

impl Whose {
    /// The domain, or the whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Domain(text) | Self::Address(text) => text,
        }
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.as_str().rsplit_once('@').map_or(self.as_str(), |(_, domain)| domain)
    }
}

/// The listeners that a client of `route` may use, the preferred one first. Listeners on loopback count only if there
/// are no others. Listeners for IPv4 and IPv6 with the same settings are returned once.
#[must_use]
pub fn incoming(config: &LiveConfig, route: Option<&Route>) -> Vec<Incoming> {
    let host = route
        .and_then(|route| route.host.as_deref())
        .map_or(config.hostname.as_str(), String::as_str);
    let on_listener = route.and_then(|route| route.listener.as_deref());
    let is_public = config.listeners.iter().any(|listener| !listener.is_on_loopback());
    let is_met = |listener: &&Listener| {
        listener.tls != ListenerTls::None
            && !(is_public && listener.is_on_loopback())
            && on_listener.is_none_or(|name| listener.is_called(name))
    };
    let mut found: Vec<Incoming> = Vec::new();
    for listener in config.listeners.iter().filter(is_met) {
        let incoming =
            Incoming { host: host.to_owned(), port: listener.address.port(), tls: listener.tls };
        if !found.contains(&incoming) {
            found.push(incoming);
        }
    }
    // Implicit TLS first (RFC 8314 section 3), then the usual port. Stable: otherwise the order of the file.
    found.sort_by_key(|incoming| (incoming.tls != ListenerTls::Implicit, incoming.port != 993));
    found
}

/// True if clients must accept any certificate: it is self-signed, and the host name does not start with an
/// underscore, for which Delta Chat accepts that.
#[must_use]
pub fn needs_any_certificate(config: &LiveConfig, host: &str) -> bool {
    let certificate = &config.certificate;
    certificate.chain.is_none() && certificate.acme.is_none() && !host.starts_with('_')
}

/// The addresses and domains that routes name, each with the most general route: one for all listeners and host names
/// before one for particular ones. Logins that `allow` refuses are omitted.
#[must_use]
pub fn served(config: &LiveConfig) -> BTreeMap<Whose, &Route> {
    let mut served: BTreeMap<Whose, &Route> = BTreeMap::new();
    for route in &config.routes {
        let whose = match (&route.address, route.named_domain()) {
            (Some(address), _) => Whose::Address(address.as_str().to_owned()),
            (None, Some(domain)) => Whose::Domain(domain.to_owned()),
            (None, None) => continue,
        };
        let is_better =
            served.get(&whose).is_none_or(|known| conditions(route) < conditions(known));
        if is_better {
            served.insert(whose, route);
        }
    }
    served.retain(|whose, _| match whose {
        Whose::Address(address) => config.allow.allows(address),
        // `allow` may list addresses of the domain, or the domain.
        Whose::Domain(domain) => config.allow.allows_some_of(domain),
    });
    served
}

/// The most general route for all domains.
#[must_use]
pub fn catch_all(config: &LiveConfig) -> Option<&Route> {
    let routes = config.routes.iter().filter(|route| route.named_domain().is_none());
    routes.min_by_key(|route| conditions(route))
}

/// The conditions of a route besides the login; fewer are more general.
fn conditions(route: &Route) -> (bool, bool) {
    (route.host.is_some(), route.listener.is_some())
}

/// The route of `address` (any case): its own, or that of its domain, or the default.
#[must_use]
pub fn route_of<'a>(config: &'a LiveConfig, address: &str) -> Option<&'a Route> {
    let address = address.to_lowercase();
    if !config.allow.allows(&address) {
        return None;
    }
    let (_, domain) = address.rsplit_once('@')?;
    let domain = Whose::Domain(domain.to_owned());
    let served = served(config);
    let own = served.get(&Whose::Address(address.clone())).or_else(|| served.get(&domain)).copied();
    own.or_else(|| catch_all(config))
}

/// True for a text with a local part, an @ and a domain, without spaces and control characters.
#[must_use]
pub fn is_mail_address(text: &str) -> bool {
    let has_parts = text
        .rsplit_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    has_parts && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn config(yaml: &str) -> LiveConfig {
        Config::parse(yaml, Path::new(""), "test").unwrap().live
    }

    fn shown(config: &LiveConfig, route: Option<&Route>) -> Vec<String> {
        incoming(config, route)
            .iter()
            .map(|one| format!("{} {} {}", one.host, one.port, one.tls))
            .collect()
    }

    #[test]
    fn listeners_that_can_be_reached_come_once_and_in_order() {
        let config = config(concat!(
            "hostname: push.example.org\nlisteners:\n",
            "  - {address: \"0.0.0.0:143\", tls: starttls}\n  - {address: \"0.0.0.0:443\", tls: implicit}\n",
            "  - {address: \"0.0.0.0:993\", tls: implicit, name: main}\n  - {address: \"[::]:993\", tls: implicit}\n",
            "  - {address: \"127.0.0.1:1143\", tls: none}\n  - {address: \"127.0.0.1:1993\", tls: implicit}\n",
            "routes:\n  - {domain: a.example, upstream: imaps://a.example, host: imap.a.example, listener: main}\n",
        ));
        assert_eq!(
            shown(&config, None),
            [
                "push.example.org 993 implicit",
                "push.example.org 443 implicit",
                "push.example.org 143 starttls"
            ]
        );
        assert_eq!(shown(&config, config.routes.first()), ["imap.a.example 993 implicit"]);
        assert_eq!(
            shown(&LiveConfig::default(), None),
            ["localhost 1993 implicit", "localhost 1143 starttls"]
        );
    }

    #[test]
    fn whom_routes_name_is_served_and_nobody_else() {
        let config = config(concat!(
            "routes:\n  - {domain: a.example, upstream: imaps://one.example, host: imap.a.example}\n",
            "  - {domain: a.example, upstream: imaps://two.example}\n",
            "  - {address: bob@b.example, upstream: imaps://b.example}\n",
            "  - {domain: c.example, upstream: imaps://c.example}\n",
            "  - {domain: \"*\", upstream: \"imaps://imap.{domain}\"}\n",
            "allow:\n  logins: [a.example, bob@b.example, eve@d.example]\n",
        ));
        let served: Vec<_> =
            served(&config).keys().map(|whose| whose.as_str().to_owned()).collect();
        assert_eq!(served, ["a.example", "bob@b.example"]);
        let upstream =
            |address: &str| Some(route_of(&config, address)?.upstream.as_ref()?.host.clone());
        assert_eq!(upstream("Alice@A.example").as_deref(), Some("two.example"));
        assert_eq!(upstream("bob@b.example").as_deref(), Some("b.example"));
        assert_eq!(upstream("eve@d.example").as_deref(), Some("imap.{domain}"));
        for address in ["carol@b.example", "carol@c.example", "nobody"] {
            assert_eq!(upstream(address), None, "{address}");
        }
    }

    #[test]
    fn only_a_self_signed_certificate_has_to_be_waved_through() {
        let mut config = LiveConfig::default();
        assert!(
            needs_any_certificate(&config, "localhost")
                && !needs_any_certificate(&config, "_imap.example.org")
        );
        config.certificate.acme = Some(crate::config::Acme::default().into());
        assert!(!needs_any_certificate(&config, "imap.example.org"));
    }
}
