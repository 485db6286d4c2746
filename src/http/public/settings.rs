//! The settings that the public page and autoconfig give out, for the addresses and domains that routes name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use tracing::debug;

use super::lookup_limit::LookupLimit;
use crate::client_setup::{self, Incoming, Outgoing, Whose, outgoing, xml};
use crate::config::{Allow, LiveConfig, Route};
use crate::upstream::Upstreams;

/// Concurrent lookups of SMTP servers.
const AT_ONCE: usize = 8;

/// Validity of a lookup, and time until failed lookups are repeated.
pub(crate) const KNOWN: Duration = Duration::from_secs(6 * 3600);
pub(crate) const UNKNOWN: Duration = Duration::from_secs(600);

/// The content of the public site for one configuration.
pub(crate) struct PublicSite {
    /// A listener shows it.
    pub(crate) is_shown: bool,
    hostname: String,
    /// The settings for addresses that no route names, the preferred one first.
    incoming: Vec<Incoming>,
    any_certificate: bool,
    served: BTreeMap<Whose, ServedDomain>,
    /// The logins of a route for all domains; `None` if there is no such route.
    catch_all: Option<Allow>,
    /// Lookup results, with the route of each.
    found: Mutex<BTreeMap<Whose, (Route, Outgoing)>>,
    limit: Arc<Mutex<LookupLimit>>,
}

/// The settings for one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetUp {
    pub(super) coverage: Coverage,
    pub(super) incoming: Incoming,
    /// The SMTP server, if it is known.
    pub(super) outgoing: Option<Outgoing>,
    /// Delta Chat must accept any certificate.
    pub(super) any_certificate: bool,
}

/// The relation of an address to routes and `allow`. It depends on its domain, and on the address only if a route has
/// it: the page is no list of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// A route or `allow` names it.
    Named,
    /// All domains are served, so that a misspelled one cannot be noticed.
    CatchAll,
    /// A login would be refused.
    Absent,
}

struct ServedDomain {
    route: Route,
    incoming: Vec<Incoming>,
    /// The SMTP server, if it is known without a lookup.
    outgoing: Option<Outgoing>,
}

impl fmt::Debug for PublicSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicSite").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

impl PublicSite {
    /// The content for `config`.
    pub(crate) fn new(config: &LiveConfig) -> Self {
        let served = client_setup::served(config).into_iter().map(|(whose, route)| {
            let outgoing = outgoing::at_once(route, whose.domain()).map(|found| found.outgoing);
            let incoming = client_setup::incoming(config, Some(route));
            (whose, ServedDomain { route: route.clone(), incoming, outgoing })
        });
        let catch_all = client_setup::catch_all(config);
        Self {
            is_shown: config.listeners.iter().any(|listener| listener.web),
            hostname: config.hostname.to_string(),
            incoming: client_setup::incoming(config, catch_all),
            any_certificate: client_setup::needs_any_certificate(config, config.hostname.as_str()),
            served: served.collect(),
            catch_all: catch_all.map(|_| config.allow.clone()),
            found: Mutex::default(),
            limit: Arc::default(),
        }
    }

    /// The content for another configuration, with the lookup results of unchanged routes.
    pub(crate) fn renewed(&self, config: &LiveConfig) -> Self {
        let new = Self::new(config);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.retain(|whose, (route, _)| {
            new.served.get(whose).is_some_and(|served| served.route == *route)
        });
        Self { found: Mutex::new(found), limit: Arc::clone(&self.limit), ..new }
    }

    pub(super) fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Counts a look-up by a client. `Some` if it is refused: the time to wait for the next.
    pub(super) fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).wait(client, now)
    }

    /// The settings for an address; `None` if no listener has TLS. The answer depends on routes and `allow`, not on whether
    /// the account exists.
    pub(super) fn set_up(&self, address: &str) -> Option<SetUp> {
        let address = address.to_lowercase();
        let (coverage, incoming, outgoing) = match self.find(&address) {
            Some((_, served, outgoing)) => (Coverage::Named, served.incoming.first(), outgoing),
            None => (self.coverage_of_unnamed(&address), self.incoming.first(), None),
        };
        let incoming = incoming?.clone();
        let any_certificate = self.any_certificate && !incoming.host.starts_with('_');
        Some(SetUp { coverage, incoming, outgoing, any_certificate })
    }

    /// The coverage of an address in lower case that no route names.
    fn coverage_of_unnamed(&self, address: &str) -> Coverage {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        match &self.catch_all {
            Some(allow) if !allow.allows_some_of(domain) => Coverage::Absent,
            Some(allow) if allow.logins.is_some() => Coverage::Named,
            Some(_) => Coverage::CatchAll,
            None => Coverage::Absent,
        }
    }

    /// The entry for an address in lower case: its own, or that of its domain.
    fn find(&self, address: &str) -> Option<(&Whose, &ServedDomain, Option<Outgoing>)> {
        let (_, domain) = address.rsplit_once('@')?;
        self.entry(&Whose::Address(address.to_owned()))
            .or_else(|| self.entry(&Whose::Domain(domain.to_owned())))
    }

    fn entry(&self, whose: &Whose) -> Option<(&Whose, &ServedDomain, Option<Outgoing>)> {
        let (whose, served) = self.served.get_key_value(whose)?;
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let looked_up = || found.get(whose).map(|(_, outgoing)| outgoing);
        Some((whose, served, served.outgoing.as_ref().or_else(looked_up).cloned()))
    }

    /// The autoconfig document for a request to `host` (without port, in lower case), optionally with an address.
    /// `None` if neither is served here.
    pub(super) fn autoconfig(&self, host: &str, address: Option<&str>) -> Option<String> {
        let (whose, served, outgoing) = match address {
            Some(address) => self.find(&address.to_lowercase())?,
            None => {
                let domain = host.strip_prefix(AUTOCONFIG).unwrap_or(host);
                self.entry(&Whose::Domain(domain.to_owned()))?
            }
        };
        Some(xml::document(whose.domain(), &served.incoming, outgoing.as_ref()))
    }

    /// The protocol to expect of a client that requests `host` in TLS, without ALPN.
    pub(super) fn expects(&self, host: &str) -> Expected {
        if host == self.hostname && !self.has_domain(host) {
            return Expected::Imap;
        }
        match host.strip_prefix(AUTOCONFIG) {
            Some(domain) if self.has_domain(domain) => Expected::Http,
            _ if self.has_domain(host) => Expected::Either,
            _ => Expected::Imap,
        }
    }

    fn has_domain(&self, domain: &str) -> bool {
        self.served.contains_key(&Whose::Domain(domain.to_owned()))
    }

    /// Looks up unknown SMTP servers. Returns whether all are known now.
    pub(crate) async fn look_up(&self, upstreams: &Upstreams, again: bool) -> bool {
        let is_known = |whose: &Whose| {
            !again && self.found.lock().unwrap_or_else(PoisonError::into_inner).contains_key(whose)
        };
        let asked = self
            .served
            .iter()
            .filter(|(whose, served)| served.outgoing.is_none() && !is_known(whose));
        let asked: Vec<_> =
            asked.map(|(whose, served)| (whose.clone(), served.route.clone())).collect();
        let answers: Vec<_> = stream::iter(asked)
            .map(|(whose, route)| self.ask(upstreams, whose, route))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut is_complete = true;
        for (whose, route, answer) in answers {
            match answer {
                Ok(found) => {
                    debug!(
                        domain = whose.domain(),
                        "SMTP server {}: {}", found.outgoing.server, found.how
                    );
                    let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(whose, (route, found.outgoing));
                }
                Err(error) => {
                    is_complete = false;
                    debug!(
                        "{error}: the page and autoconfig contain no SMTP server; set `smtp` in its route"
                    );
                }
            }
        }
        is_complete
    }

    async fn ask(
        &self,
        upstreams: &Upstreams,
        whose: Whose,
        route: Route,
    ) -> (Whose, Route, Result<outgoing::SubmissionServer, outgoing::NotFound>) {
        let address = match &whose {
            Whose::Address(address) => address.clone(),
            Whose::Domain(domain) => format!("postmaster@{domain}"),
        };
        let answer = outgoing::find(upstreams, &route, &address, &self.hostname).await;
        (whose, route, answer)
    }
}

/// The host below a domain at which mail programs ask first.
const AUTOCONFIG: &str = "autoconfig.";

/// The possible protocols of a connection without ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// IMAP: the server speaks first.
    Imap,
    /// HTTP.
    Http,
    /// Either.
    Either,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn site(yaml: &str) -> PublicSite {
        PublicSite::new(&Config::parse(yaml, Path::new(""), "test").unwrap().live)
    }

    fn example() -> PublicSite {
        site(concat!(
            "hostname: push.example.org\nlisteners:\n  - {address: \"0.0.0.0:443\", tls: implicit, web: true}\n",
            "routes:\n  - {domain: example.org, upstream: imaps://imap.example.org, smtp: smtps://smtp.example.org}\n",
            "  - {domain: other.example, upstream: imaps://imap.other.example, host: imap.other.example}\n",
            "  - {address: bob@gmail.com, upstream: imaps://imap.gmail.com}\n",
        ))
    }

    #[test]
    fn autoconfig_is_for_whom_routes_name() {
        let site = example();
        let smtp = |host: &str, address: Option<&str>| {
            let text = site.autoconfig(host, address)?;
            let (_, after) = text.split_once("type=\"smtp\">")?;
            Some(after.split(['<', '>']).nth(2)?.to_owned())
        };
        for (host, address, expected) in [
            ("autoconfig.example.org", None, Some("smtp.example.org")),
            ("example.org", None, Some("smtp.example.org")),
            ("push.example.org", Some("Alice@Example.org"), Some("smtp.example.org")),
            ("push.example.org", Some("bob@gmail.com"), Some("smtp.gmail.com")),
            ("push.example.org", Some("alice@gmail.com"), None),
            ("gmail.com", None, None),
            ("push.example.org", None, None),
            ("example.org", Some("alice"), None),
        ] {
            assert_eq!(smtp(host, address).as_deref(), expected, "{host} {address:?}");
        }
        let other = site.autoconfig("other.example", None).unwrap();
        assert!(
            other.contains("<hostname>imap.other.example</hostname>")
                && !other.contains("outgoingServer"),
            "{other}"
        );
    }

    #[test]
    fn coverage_depends_on_routes_and_the_domains_of_allow() {
        const NAMED: &str = "routes:\n  - {domain: a.example, upstream: imaps://a.example}\n  \
            - {address: bob@b.example, upstream: imaps://b.example}\n";
        const ALL: &str = "  - {domain: \"*\", upstream: \"imaps://imap.{domain}\", open: true}\n";
        const ALLOW: &str = "allow:\n  logins: [a.example, carol@c.example]\n";
        let all = [NAMED, ALL].concat();
        let some = [&*all, ALLOW].concat();
        use Coverage::{Absent, CatchAll, Named};
        for (address, by_routes, with_catch_all, with_allow) in [
            ("Alice@A.example", Named, Named, Named),
            ("bob@b.example", Named, Named, Absent),
            ("eve@b.example", Absent, CatchAll, Absent),
            ("carol@c.example", Absent, CatchAll, Named),
            ("eve@c.example", Absent, CatchAll, Named),
            ("eve@d.example", Absent, CatchAll, Absent),
        ] {
            let coverage = |yaml: &str| site(yaml).set_up(address).unwrap().coverage;
            assert_eq!(coverage(NAMED), by_routes, "{address}");
            assert_eq!(coverage(&all), with_catch_all, "{address}");
            assert_eq!(coverage(&some), with_allow, "{address}");
        }
    }

    #[test]
    fn handshake_without_a_protocol_is_for_imap_but_at_names_of_autoconfig() {
        let site = example();
        for (host, expected) in [
            ("autoconfig.example.org", Expected::Http),
            ("example.org", Expected::Either),
            ("push.example.org", Expected::Imap),
            ("imap.other.example", Expected::Imap),
            ("autoconfig.gmail.com", Expected::Imap),
            ("gmail.com", Expected::Imap),
        ] {
            assert_eq!(site.expects(host), expected, "{host}");
        }
    }

    #[tokio::test]
    async fn submission_server_stays_known_for_an_unchanged_route() {
        let yaml = "routes:\n  - {domain: example.org, upstream: imaps://imap.example.org}\n";
        let config = Config::parse(yaml, Path::new(""), "test").unwrap().live;
        let site = PublicSite::new(&config);
        let found = Outgoing {
            server: "smtps://smtp.example.org".parse().unwrap(),
            login: Default::default(),
        };
        let whose = Whose::Domain("example.org".into());
        site.found.lock().unwrap().insert(whose.clone(), (config.routes[0].clone(), found));
        let has = |site: &PublicSite| {
            site.autoconfig("example.org", None).unwrap().contains("smtp.example.org")
        };
        assert!(has(&site.renewed(&config)));
        let changed = yaml.replace("imap.example.org", "mail.example.org");
        assert!(!has(&site.renewed(&Config::parse(&changed, Path::new(""), "test").unwrap().live)));
    }
}
