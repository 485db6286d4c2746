//! Finds an account's SMTP server: from its route, its known provider, its domain, or by the usual names if a server
//! there has a valid certificate.

use std::sync::Arc;

use super::Outgoing;
use crate::config::{LoginTemplate, Route, Security, Submission, is_dns_name};
use crate::upstream::Upstreams;
use crate::upstream::discovery::{self, SubmissionAnswer};
use crate::upstream::probe;
use crate::upstream::providers::{self, Provider};
use crate::upstream::route::{Asked, Servers};

/// The result of the search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionServer {
    /// The server.
    pub outgoing: Outgoing,
    /// The source of this knowledge, as text.
    pub how: &'static str,
}

/// No SMTP server was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no SMTP server of {domain} was found{detail}")]
pub struct NotFound {
    /// The domain.
    pub domain: String,
    /// Details, with a leading comma or semicolon; may be empty.
    pub detail: String,
}

/// Finds the SMTP server of `address` (in lower case). `route` is its route, `own` deltapush's own name. Takes a few
/// seconds as a rule, less than a minute always.
///
/// # Errors
/// [`NotFound`] if nothing is known.
pub async fn find(
    upstreams: &Upstreams,
    route: &Route,
    address: &str,
    own: &str,
) -> Result<SubmissionServer, NotFound> {
    let (_, domain) = address.rsplit_once('@').unwrap_or(("", address));
    if let Some(found) = configured(route, domain).or_else(|| known(route, domain, None)) {
        return Ok(found);
    }
    let not_found = |detail: String| NotFound { domain: domain.to_owned(), detail };
    if !is_dns_name(domain) {
        return Err(not_found("; set `smtp` in its route".to_owned()));
    }
    let asked =
        Asked { login: address, listener: None, host: route.host.as_deref().map(String::as_str) };
    // Conditions on listeners aside: where the mailbox is, is the same for all of them, as a rule.
    let target = upstreams
        .routes
        .find(&asked)
        .ok_or_else(|| not_found(", and no route matches it".to_owned()))?;
    let imap = match &target.servers {
        Servers::Fixed(endpoint) => Some(endpoint.host.to_string()),
        // Other sources may work without the IMAP server.
        Servers::Discovered(_) => upstreams
            .servers(&target)
            .await
            .ok()
            .and_then(|servers| Some(servers.first()?.host.to_string())),
    };
    if let Some(found) = imap.as_deref().and_then(|host| known(route, domain, Some(host))) {
        return Ok(found);
    }
    let domain: Arc<str> = domain.into();
    let question = discovery::SubmissionQuestion {
        domain: &domain,
        terms: &target.terms,
        reach: target.reach,
        imap: imap.as_deref(),
        own,
        dns: &upstreams.dns,
        tls: &upstreams.tls,
    };
    let named = discovery::submission(question).await;
    if let SubmissionAnswer::Server(server, login) = named {
        let login = route.smtp_login.clone().unwrap_or(login);
        return Ok(SubmissionServer {
            outgoing: Outgoing { server, login },
            how: "published by its domain",
        });
    }
    let candidates = usual(&domain, imap.as_deref());
    if let Some(server) = probe::first_submission(upstreams, &target, &candidates).await {
        return Ok(SubmissionServer {
            outgoing: Outgoing { server, login: login_of(route) },
            how: "found by its usual name",
        });
    }
    Err(not_found(match named {
        SubmissionAnswer::Unproved(host) => format!(
            "; DNS names {host}, which is outside the domain and could belong to anyone: if you trust it, set it as `smtp`"
        ),
        SubmissionAnswer::Failed(reason) => format!(": {reason}"),
        SubmissionAnswer::Server(..) | SubmissionAnswer::Nothing => String::new(),
    }))
}

/// The SMTP server known without a lookup: from the route, or for the provider.
#[must_use]
pub fn at_once(route: &Route, domain: &str) -> Option<SubmissionServer> {
    let upstream = route.upstream.as_deref().map(|upstream| upstream.host.as_str());
    configured(route, domain).or_else(|| known(route, domain, upstream))
}

fn configured(route: &Route, domain: &str) -> Option<SubmissionServer> {
    let server = route.smtp.as_deref()?.of(domain);
    Some(SubmissionServer {
        outgoing: Outgoing { server, login: login_of(route) },
        how: "from the configuration",
    })
}

fn known(route: &Route, domain: &str, imap: Option<&str>) -> Option<SubmissionServer> {
    let provider = providers::of_domain(domain).or_else(|| providers::of_host(imap?))?;
    let login = route.smtp_login.clone().unwrap_or_else(|| login_at(provider));
    Some(SubmissionServer {
        outgoing: Outgoing { server: provider.submission(), login },
        how: "known for its provider",
    })
}

fn login_at(provider: &Provider) -> LoginTemplate {
    if provider.smtp_by_local_part { LoginTemplate::local() } else { LoginTemplate::default() }
}

fn login_of(route: &Route) -> LoginTemplate {
    route.smtp_login.clone().unwrap_or_else(|| route.login.clone())
}

/// Candidate servers, the likeliest first: those that Delta Chat itself would try, and the IMAP server's own host.
fn usual(domain: &str, imap: Option<&str>) -> Vec<Submission> {
    let mut hosts = vec![format!("smtp.{domain}"), format!("mail.{domain}")];
    hosts.extend(imap.map(str::to_owned));
    let mut found: Vec<Submission> = Vec::new();
    for security in [Security::Tls, Security::StartTls] {
        for host in &hosts {
            let candidate =
                Submission::new(security, host.clone(), Submission::usual_port(security));
            if !found.contains(&candidate) {
                found.push(candidate);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn known_at_once(route: &str, domain: &str) -> Option<String> {
        let config =
            Config::parse(&format!("routes:\n  - {route}"), Path::new(""), "test").unwrap();
        let Outgoing { server, login } = at_once(&config.live.routes[0], domain)?.outgoing;
        Some(format!("{server} {login}"))
    }

    #[test]
    fn configuration_goes_before_what_is_known_of_providers() {
        let of = |more: &str| format!("{{domain: web.de, upstream: imaps://imap.web.de{more}}}");
        assert_eq!(known_at_once(&of(""), "web.de").unwrap(), "smtp://smtp.web.de:587 {local}");
        let own = of(", smtp: smtps://smtp.example.org, login: local, smtp_login: \"{login}\"");
        assert_eq!(known_at_once(&own, "web.de").unwrap(), "smtps://smtp.example.org:465 {login}");
        let by_host = "{domain: a.example, upstream: imaps://imap.mailbox.org}";
        assert_eq!(
            known_at_once(by_host, "a.example").unwrap(),
            "smtps://smtp.mailbox.org:465 {login}"
        );
        let pattern = "{domain: a.example, upstream: imaps://a.example, smtp: \"smtps://smtp.{domain}\", login: local}";
        assert_eq!(
            known_at_once(pattern, "a.example").unwrap(),
            "smtps://smtp.a.example:465 {local}"
        );
        assert_eq!(
            known_at_once("{domain: a.example, upstream: imaps://a.example}", "a.example"),
            None
        );
    }

    #[test]
    fn usual_servers_are_tried_with_tls_first() {
        let shown: Vec<_> =
            usual("a.example", Some("mail.a.example")).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "smtps://smtp.a.example:465",
                "smtps://mail.a.example:465",
                "smtp://smtp.a.example:587",
                "smtp://mail.a.example:587"
            ]
        );
    }
}
