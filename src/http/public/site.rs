//! Content of the public page, and autoconfig for the domains that routes name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{self, StreamExt};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tracing::debug;

use super::sealed;
use crate::client_setup::{self, Incoming, Outgoing, Whose, outgoing, xml};
use crate::config::{ListenerTls, LiveConfig, Route};
use crate::upstream::Upstreams;

/// The scripts of the page: a library that makes QR codes (MIT licence, in its head), and our own.
const SCRIPT: &str = concat!(include_str!("qrcodegen.js"), include_str!("script.js"));

/// Concurrent lookups of SMTP servers.
const AT_ONCE: usize = 8;

/// Validity of a lookup, and time until failed lookups are repeated.
pub(crate) const KNOWN: Duration = Duration::from_secs(6 * 3600);
pub(crate) const UNKNOWN: Duration = Duration::from_secs(600);

/// The content of the public site for one configuration.
pub(crate) struct PublicSite {
    /// Whether a listener shows it at all.
    pub(crate) is_shown: bool,
    hostname: String,
    /// The settings for everybody.
    incoming: Vec<Incoming>,
    any_certificate: bool,
    served: BTreeMap<Whose, ServedDomain>,
    /// Lookup results, with the route of each.
    found: Mutex<BTreeMap<Whose, (Route, Outgoing)>>,
    page: Mutex<Option<Bytes>>,
}

struct ServedDomain {
    route: Route,
    incoming: Vec<Incoming>,
    /// The SMTP server, if it is known without a lookup.
    outgoing: Option<Outgoing>,
}

impl fmt::Debug for PublicSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("hostname", &self.hostname).finish_non_exhaustive()
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
        Self {
            is_shown: config.listeners.iter().any(|listener| listener.web),
            hostname: config.hostname.to_string(),
            incoming: client_setup::incoming(config, None),
            any_certificate: client_setup::needs_any_certificate(config, config.hostname.as_str()),
            served: served.collect(),
            found: Mutex::default(),
            page: Mutex::default(),
        }
    }

    /// The content for another configuration, with the lookup results of unchanged routes.
    pub(crate) fn renewed(&self, config: &LiveConfig) -> Self {
        let new = Self::new(config);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.retain(|whose, (route, _)| {
            new.served.get(whose).is_some_and(|served| served.route == *route)
        });
        Self { found: Mutex::new(found), ..new }
    }

    /// The page.
    pub(super) fn page(&self) -> Bytes {
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        page.get_or_insert_with(|| self.render().into()).clone()
    }

    /// The hash source of the page's script (CSP level 3 section 2.3.1).
    pub(super) fn script_hash() -> String {
        format!("sha256-{}", STANDARD.encode(digest(&SHA256, SCRIPT.as_bytes())))
    }

    fn render(&self) -> String {
        let mut rows = String::new();
        for Incoming { host, port, tls } in &self.incoming {
            let security = if *tls == ListenerTls::Implicit { "SSL/TLS" } else { "STARTTLS" };
            rows.push_str(&format!("<tr><td>{host}<td>{port}<td>{security}\n"));
        }
        // A host name is made of letters, digits, hyphens, underscores and dots, or is an address, the rest of base64: nothing
        // to escape. The script comes last: it has braces of its own.
        include_str!("page.html")
            .replace("{hostname}", &self.hostname)
            .replace("{rows}", &rows)
            .replace("{settings}", &self.settings().to_string())
            .replace("{script}", SCRIPT)
    }

    /// The settings for the page's script.
    fn settings(&self) -> Value {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.served.iter().filter_map(|(whose, served)| {
            let looked_up = || found.get(whose).map(|(_, outgoing)| outgoing);
            let outgoing =
                served.outgoing.as_ref().or_else(looked_up).map(|out| sending(out, whose.domain()));
            let incoming = self.reading(served.incoming.first()?);
            Some((whose.as_str(), json!({"incoming": incoming, "outgoing": outgoing})))
        });
        let mut settings = sealed::seal(entries).unwrap_or_else(|| json!({"entries": []}));
        if let Some(object) = settings.as_object_mut() {
            object.insert(
                "incoming".to_owned(),
                self.incoming.first().map_or(Value::Null, |first| self.reading(first)),
            );
        }
        settings
    }

    fn reading(&self, incoming: &Incoming) -> Value {
        let Incoming { host, port, tls } = incoming;
        let security = if *tls == ListenerTls::Implicit { "ssl" } else { "starttls" };
        let any = self.any_certificate && !host.starts_with('_');
        json!({"host": host, "port": port, "security": security, "anyCertificate": any})
    }

    /// The autoconfig document for a request to `host` (without port, in lower case), optionally with an address.
    /// `None` if neither is served here.
    pub(super) fn autoconfig(&self, host: &str, address: Option<&str>) -> Option<String> {
        let address = address.map(str::to_lowercase);
        let own = address.as_ref().map(|address| Whose::Address(address.clone()));
        let domain = match &address {
            Some(address) => address.rsplit_once('@')?.1,
            None => host.strip_prefix(AUTOCONFIG).unwrap_or(host),
        };
        let domain = Whose::Domain(domain.to_owned());
        let (whose, served) =
            own.iter().chain([&domain]).find_map(|whose| self.served.get_key_value(whose))?;
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let outgoing =
            served.outgoing.as_ref().or_else(|| found.get(whose).map(|(_, outgoing)| outgoing));
        Some(xml::document(whose.domain(), &served.incoming, outgoing))
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
        let (mut is_complete, mut has_changed) = (true, false);
        for (whose, route, answer) in answers {
            match answer {
                Ok(found) => {
                    debug!(
                        domain = whose.domain(),
                        "SMTP server {}: {}", found.outgoing.server, found.how
                    );
                    let new = (route, found.outgoing);
                    let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                    has_changed |= found.get(&whose) != Some(&new);
                    found.insert(whose, new);
                }
                Err(error) => {
                    is_complete = false;
                    debug!(
                        "{error}: the page and autoconfig contain no SMTP server; set `smtp` in its route"
                    );
                }
            }
        }
        if has_changed {
            *self.page.lock().unwrap_or_else(PoisonError::into_inner) = None;
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

fn sending(outgoing: &Outgoing, domain: &str) -> Value {
    let server = outgoing.server.of(domain);
    let security = if server.security == crate::config::Security::Tls { "ssl" } else { "starttls" };
    json!({"host": server.host, "port": server.port, "security": security, "login": outgoing.login.to_string()})
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
    fn page_says_what_to_enter_and_lists_no_domains() {
        let page = example().page();
        let text = str::from_utf8(&page).unwrap();
        assert!(text.contains("<tr><td>push.example.org<td>443<td>SSL/TLS\n\n</table>"), "{text}");
        for kept in [
            "smtp.example.org",
            "other.example",
            "gmail",
            "{rows}",
            "{settings}",
            "{hostname}",
            "{script}",
        ] {
            assert!(!text.contains(kept), "{kept}");
        }
        assert!(text.contains(SCRIPT));
        let text = PublicSite::new(&LiveConfig::default()).page();
        let text = str::from_utf8(&text).unwrap();
        assert!(
            text.contains(
                "<tr><td>localhost<td>1993<td>SSL/TLS\n<tr><td>localhost<td>1143<td>STARTTLS"
            ),
            "{text}"
        );
    }

    #[test]
    fn script_cannot_end_its_element() {
        assert!(!SCRIPT.to_lowercase().contains("</script") && !SCRIPT.contains("<!--"));
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
