//! Discovery of a domain's submission server: SRV records (RFC 8314 section 5.1, RFC 6186 section 3.3), then
//! autoconfig.
//!
//! The result is shown to people, who send their password there. So a host that only DNS names must be within the domain,
//! or be named by the route (`targets`), be the IMAP server's own, or be named by autoconfig too, for which the domain's
//! certificate vouches.

use std::sync::{Arc, Mutex};

use super::autoconfig::{self, DocumentFlaw, ServerKind};
use super::srv::{self, Service};
use super::{DiscoveredServer, Search, documents};
use crate::config::{LoginTemplate, Security, Submission};
use crate::dns::{DnsError, DnsResolver, Reach};
use crate::tls::client::ClientConfigs;
use crate::upstream::route::Terms;

/// The question, and those who are asked.
#[derive(Clone, Copy)]
pub struct SubmissionQuestion<'a> {
    /// The domain, in lower case.
    pub domain: &'a Arc<str>,
    /// The terms of its route.
    pub terms: &'a Terms,
    /// The addresses to which the domain's own names may lead.
    pub reach: Reach,
    /// The IMAP server, where its name is known.
    pub imap: Option<&'a str>,
    /// deltapush's own name: autoconfig that leads to it is its own and says nothing new.
    pub own: &'a str,
    /// The resolver.
    pub dns: &'a Arc<DnsResolver>,
    /// Verifying certificates.
    pub tls: &'a ClientConfigs,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmissionAnswer {
    /// The domain names this server, and what it wants as login.
    Server(Submission, LoginTemplate),
    /// DNS names this host alone, which nothing vouches for.
    Unproved(String),
    /// The domain names none.
    Nothing,
    /// Somebody does not answer; why.
    Failed(String),
}

/// Looks for the submission server of a domain. Bounded in time, as each of its steps is.
pub async fn submission(question: SubmissionQuestion<'_>) -> SubmissionAnswer {
    let SubmissionQuestion { domain, terms, reach, dns, tls, .. } = question;
    let search = Search { domain, terms, reach, dns, tls, unusable: Mutex::default() };
    let records = by_srv(dns, domain).await;
    let (offers, silent) = match records {
        Ok(offers) => (offers, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let is_expected = |offer: &&DiscoveredServer| {
        search.is_expected(&offer.host) || question.imap == Some(&*offer.host)
    };
    if let Some(offer) = offers.iter().find(is_expected) {
        return server(offer);
    }
    let named = documents(&search, |document| of_document(document, domain, question.own)).await;
    match (named, offers.first(), silent) {
        (Ok(Some(named)), _, _) => {
            let both =
                offers.iter().find(|offer| named.iter().any(|other| other.host == offer.host));
            both.or(named.first()).map_or(SubmissionAnswer::Nothing, server)
        }
        (_, Some(offer), _) => SubmissionAnswer::Unproved(offer.host.to_string()),
        (Err(trouble), _, _) => SubmissionAnswer::Failed(trouble.to_string()),
        (_, _, Some(reason)) => SubmissionAnswer::Failed(reason),
        (Ok(None), _, _) => SubmissionAnswer::Nothing,
    }
}

fn server(offer: &DiscoveredServer) -> SubmissionAnswer {
    let login = if offer.by_local_part { LoginTemplate::local() } else { LoginTemplate::default() };
    SubmissionAnswer::Server(
        Submission::new(offer.security, offer.host.to_string(), offer.port),
        login,
    )
}

/// TLS from the first byte is preferred. In the order in which they are to be tried.
async fn by_srv(dns: &DnsResolver, domain: &str) -> Result<Vec<DiscoveredServer>, String> {
    for (service, security) in
        [("_submissions._tcp", Security::Tls), ("_submission._tcp", Security::StartTls)]
    {
        match dns.services(service, domain).await {
            Ok((records, _)) => {
                if let Service::Offered(offers) = srv::service(&records, security) {
                    return Ok(srv::in_order(&offers, |most| fastrand::u32(0..=most)));
                }
            }
            Err(DnsError::Absent { .. } | DnsError::NotPublic { .. }) => {}
            // That TLS is not there is not known: the other is not taken in its place.
            Err(error @ DnsError::Failed { .. }) => return Err(error.to_string()),
        }
    }
    Ok(Vec::new())
}

/// The submission servers of a document that is not deltapush's own.
fn of_document(
    document: &str,
    domain: &str,
    own: &str,
) -> Result<Option<Vec<DiscoveredServer>>, DocumentFlaw> {
    // IMAP servers that cannot be used are no obstacle here.
    let imap = autoconfig::servers(document, domain, ServerKind::Imap).unwrap_or_default();
    let found = autoconfig::servers(document, domain, ServerKind::Smtp)?;
    let is_own = imap.iter().any(|offer| *offer.host == *own);
    Ok((!is_own && !found.is_empty()).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_setup::{Incoming, Outgoing, xml};

    #[test]
    fn document_of_deltapush_itself_says_nothing_new() {
        let incoming = [Incoming {
            host: "push.example.org".into(),
            port: 993,
            tls: crate::config::ListenerTls::Implicit,
        }];
        let outgoing = Outgoing {
            server: "smtps://smtp.example.org".parse().unwrap(),
            login: LoginTemplate::local(),
        };
        let document = xml::document("example.org", &incoming, Some(&outgoing));
        assert_eq!(of_document(&document, "example.org", "push.example.org"), Ok(None));
        let found = of_document(&document, "example.org", "other.example.org").unwrap().unwrap();
        assert_eq!(
            server(&found[0]),
            SubmissionAnswer::Server(
                "smtps://smtp.example.org".parse().unwrap(),
                LoginTemplate::local()
            )
        );
        assert_eq!(
            of_document(&xml::document("example.org", &incoming, None), "example.org", "x.example"),
            Ok(None)
        );
    }
}
