//! Discovery of a domain's IMAP server: SRV records (RFC 6186, RFC 8314), then autoconfig XML. Results are cached, and
//! a cached one counts for a while longer where no newer one can be had.
//!
//! Trust: autoconfig comes over HTTPS from the domain, whose certificate vouches for it. SRV records come from
//! anywhere. So a host that only these name must show a certificate for the login's domain, unless it is within that
//! domain, or the route or autoconfig names it too.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod autoconfig;
mod document;
mod fetch;
mod heard;
mod srv;
mod submission;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;
use tracing::debug;

use super::route::{Endpoint, Terms};
use crate::config::Security;
use crate::dns::{DnsError, DnsResolver, Reach};
use crate::tls::client::ClientConfigs;
use autoconfig::ServerKind;
pub use document::UnusableDocument;
use document::{DocumentTrouble, documents};
use heard::HeardKey;
use srv::Service;
pub use submission::{SubmissionAnswer, SubmissionQuestion, submission};

/// Domains that are looked for at once; further ones wait for their turn.
const AT_ONCE: usize = 128;
/// Domains that are remembered.
const REMEMBERED: usize = 1024;
/// Lifetime of an answer: at least, at most, and where the source does not name one.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const UNSAID: Duration = Duration::from_secs(6 * 3600);
/// Lifetime of an answer without a server, and of none at all.
const ABSENT: Duration = Duration::from_secs(5 * 60);
const FAILED: Duration = Duration::from_secs(30);
/// Additional lifetime of an answer while no newer one can be had.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A server as its domain names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DiscoveredServer {
    host: Arc<str>,
    port: u16,
    security: Security,
    priority: u16,
    weight: u16,
    /// It wants the part before the `@` as login name.
    by_local_part: bool,
}

/// Why a domain's server is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The domain says nothing of one.
    #[error("{0} names no IMAP server, neither by SRV records nor by autoconfig")]
    Absent(Arc<str>),
    /// The domain says that it has none.
    #[error("{0} says that it has no IMAP server")]
    NotOffered(Arc<str>),
    /// Nobody answers just now.
    #[error("the IMAP server of {domain} cannot be found at the moment: {reason}")]
    Failed {
        /// The domain.
        domain: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// The domain has an autoconfig document that cannot be used, and nothing else names the server.
    #[error("{0}; have it corrected, or name the server by `upstream` in the route")]
    Unusable(Arc<UnusableDocument>),
}

type DiscoveryKey = (Arc<str>, Arc<Terms>, Reach);
type CachedDiscovery = Arc<AsyncMutex<Option<KnownServer>>>;
type DiscoveryAnswer = Result<(Vec<Trusted>, Duration), DiscoveryError>;

/// An offer, and the name that its certificate must be made out for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trusted {
    offer: DiscoveredServer,
    identity: Arc<str>,
}

/// The servers of a domain.
#[derive(Debug, Clone)]
struct KnownServer {
    result: Result<Vec<Trusted>, DiscoveryError>,
    /// When it was found.
    found: Instant,
    /// When it was last looked for, found or not.
    looked: Instant,
    /// From when on it is looked for again.
    until: Instant,
    /// Documents that could not be used at the last look; a few at most.
    unusable: Vec<Arc<UnusableDocument>>,
    /// When this process learned of it, if it has found it itself.
    noted: Option<Instant>,
}

/// The discovery, with what it remembers.
#[derive(Debug)]
pub struct Discovery {
    known: Mutex<HashMap<DiscoveryKey, (CachedDiscovery, Instant)>>,
    /// Servers that other nodes have found, until they are asked for.
    heard: Mutex<HashMap<HeardKey, KnownServer>>,
    places: Semaphore,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { known: Mutex::default(), heard: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }
}

impl Discovery {
    /// The servers of `domain` in the order in which they are to be tried; never empty. A caller waits for a look-up that is
    /// under way already.
    ///
    /// # Errors
    /// [`DiscoveryError`] if none is known.
    pub async fn servers(
        &self,
        domain: &Arc<str>,
        terms: &Arc<Terms>,
        reach: Reach,
        dns: &Arc<DnsResolver>,
        tls: &ClientConfigs,
    ) -> Result<Vec<Endpoint>, DiscoveryError> {
        let key = (Arc::clone(domain), Arc::clone(terms), reach);
        let entry = self.entry(key.clone());
        let mut known = entry.lock().await;
        let now = Instant::now();
        if known.as_ref().is_none_or(|known| known.until <= now || known.result.is_err())
            && let Some(heard) = self.heard_since(&key, known.as_ref())
        {
            *known = Some(heard);
        }
        if known.as_ref().is_none_or(|known| known.until <= now) {
            let search = Search { domain, terms, reach, dns, tls, unusable: Mutex::default() };
            // The semaphore is never closed.
            let place = self.places.acquire().await;
            let answer = search.run().await;
            drop(place);
            debug!(%domain, "looked for the IMAP server: {answer:?}");
            let unusable = search.unusable.into_inner().unwrap_or_else(PoisonError::into_inner);
            let noted = answer.is_ok().then(Instant::now);
            let next = remembered(known.take(), answer, now);
            *known = Some(KnownServer { unusable, noted: noted.or(next.noted), ..next });
        }
        let result = known.as_ref().map_or(Ok(Vec::new()), |known| known.result.clone());
        drop(known);
        Ok(endpoints(&result?))
    }

    /// The autoconfig documents of `domain` that could not be used when it was last asked for its servers.
    pub async fn unusable(
        &self,
        domain: &Arc<str>,
        terms: &Arc<Terms>,
        reach: Reach,
    ) -> Vec<Arc<UnusableDocument>> {
        let entry = self.entry((Arc::clone(domain), Arc::clone(terms), reach));
        let known = entry.lock().await;
        known.as_ref().map(|known| known.unusable.clone()).unwrap_or_default()
    }

    /// None of the servers that were found can be reached: they are looked for again, though not more often than
    /// `SHORTEST`, before the answer's time is over.
    pub async fn doubt(&self, domain: &Arc<str>, terms: &Arc<Terms>, reach: Reach) {
        let entry = self.entry((Arc::clone(domain), Arc::clone(terms), reach));
        if let Some(known) = entry.lock().await.as_mut() {
            let soonest = known.looked.checked_add(SHORTEST).unwrap_or(known.looked);
            known.until = known.until.min(soonest);
        }
    }

    fn entry(&self, key: DiscoveryKey) -> CachedDiscovery {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if known.len() >= REMEMBERED && !known.contains_key(&key) {
            let oldest =
                known.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let (entry, used) = known.entry(key).or_insert_with(|| (CachedDiscovery::default(), now));
        *used = now;
        Arc::clone(entry)
    }
}

/// The servers known after an answer: still the old ones, if nobody answers.
fn remembered(before: Option<KnownServer>, answer: DiscoveryAnswer, now: Instant) -> KnownServer {
    let after = |time: Duration| now.checked_add(time).unwrap_or(now);
    let known = |result, time| KnownServer {
        result,
        found: now,
        looked: now,
        until: after(time),
        unusable: Vec::new(),
        noted: None,
    };
    match answer {
        Ok((servers, lasts)) => known(Ok(servers), lasts.clamp(SHORTEST, LONGEST)),
        Err(error @ (DiscoveryError::Failed { .. } | DiscoveryError::Unusable(_))) => {
            let still_good =
                |known: &KnownServer| known.result.is_ok() && known.found.elapsed() < STALE;
            let lasts =
                if matches!(error, DiscoveryError::Failed { .. }) { FAILED } else { ABSENT };
            match before.filter(still_good) {
                Some(before) => KnownServer { looked: now, until: after(SHORTEST), ..before },
                None => known(Err(error), lasts),
            }
        }
        Err(error) => known(Err(error), ABSENT),
    }
}

fn endpoints(servers: &[Trusted]) -> Vec<Endpoint> {
    let offers: Vec<_> = servers.iter().map(|server| server.offer.clone()).collect();
    let ordered = srv::in_order(&offers, |most| fastrand::u32(0..=most));
    let endpoint = |offer: DiscoveredServer| {
        let identity = servers
            .iter()
            .find(|server| server.offer == offer)
            .map(|server| Arc::clone(&server.identity));
        let DiscoveredServer { host, port, security, .. } = offer;
        identity.map(|identity| Endpoint { host, port, security, identity })
    };
    ordered.into_iter().filter_map(endpoint).collect()
}

/// One look.
struct Search<'a> {
    domain: &'a Arc<str>,
    terms: &'a Terms,
    reach: Reach,
    dns: &'a Arc<DnsResolver>,
    tls: &'a ClientConfigs,
    /// Documents that were there and could not be used.
    unusable: Mutex<Vec<Arc<UnusableDocument>>>,
}

/// The answer of one source.
enum SourceAnswer {
    Offers(Vec<DiscoveredServer>, Duration),
    NotOffered,
    Absent,
    Trouble(DocumentTrouble),
}

impl Search<'_> {
    async fn run(&self) -> DiscoveryAnswer {
        let by_srv = self.by_srv().await;
        if let SourceAnswer::Offers(offers, lasts) = by_srv {
            let confirmed = if offers.iter().all(|offer| self.is_expected(&offer.host)) {
                Vec::new()
            } else {
                match self.by_autoconfig().await {
                    SourceAnswer::Offers(offers, _) => offers,
                    _ => Vec::new(),
                }
            };
            return Ok((
                offers.into_iter().map(|offer| self.trusted(offer, &confirmed)).collect(),
                lasts,
            ));
        }
        if matches!(by_srv, SourceAnswer::NotOffered) {
            return Err(DiscoveryError::NotOffered(Arc::clone(self.domain)));
        }
        let failed = |reason: String| DiscoveryError::Failed {
            domain: Arc::clone(self.domain),
            reason: reason.into(),
        };
        match (self.by_autoconfig().await, by_srv) {
            (SourceAnswer::Offers(offers, lasts), _) => {
                let by_host =
                    |offer: DiscoveredServer| Trusted { identity: Arc::clone(&offer.host), offer };
                Ok((offers.into_iter().map(by_host).collect(), lasts))
            }
            // It may pass that DNS fails.
            (
                SourceAnswer::Trouble(DocumentTrouble::Unusable(document)),
                SourceAnswer::Trouble(DocumentTrouble::Failed(reason)),
            ) => Err(failed(format!("{reason}; {document}"))),
            (SourceAnswer::Trouble(DocumentTrouble::Unusable(document)), _) => {
                Err(DiscoveryError::Unusable(document))
            }
            (SourceAnswer::Trouble(trouble), _) | (_, SourceAnswer::Trouble(trouble)) => {
                Err(failed(trouble.to_string()))
            }
            _ => Err(DiscoveryError::Absent(Arc::clone(self.domain))),
        }
    }

    /// TLS from the first byte is preferred (RFC 8314 section 5.1), STARTTLS taken where that is not offered.
    async fn by_srv(&self) -> SourceAnswer {
        let mut denied = Vec::new();
        for (service, security) in
            [("_imaps._tcp", Security::Tls), ("_imap._tcp", Security::StartTls)]
        {
            match self.dns.services(service, self.domain).await {
                Ok((records, lasts)) => match srv::service(&records, security) {
                    Service::Offered(offers) => return SourceAnswer::Offers(offers, lasts),
                    Service::NotOffered => denied.push(service),
                },
                Err(DnsError::Absent { .. } | DnsError::NotPublic { .. }) => {}
                // That TLS is not there is not known: the other is not taken in its place.
                Err(error @ DnsError::Failed { .. }) => {
                    return SourceAnswer::Trouble(DocumentTrouble::Failed(error.to_string()));
                }
            }
        }
        if denied.len() == 2 { SourceAnswer::NotOffered } else { SourceAnswer::Absent }
    }

    async fn by_autoconfig(&self) -> SourceAnswer {
        match documents(self, |document| {
            let offers = autoconfig::servers(document, self.domain, ServerKind::Imap)?;
            Ok((!offers.is_empty()).then_some(offers))
        })
        .await
        {
            Ok(Some(offers)) => SourceAnswer::Offers(offers, UNSAID),
            Ok(None) => SourceAnswer::Absent,
            Err(trouble) => SourceAnswer::Trouble(trouble),
        }
    }

    /// Reports if DNS may name this host without more proof.
    fn is_expected(&self, host: &str) -> bool {
        let is_within = host
            .strip_suffix(&**self.domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        is_within || self.terms.targets.iter().any(|pattern| pattern.fits(host))
    }

    fn trusted(&self, offer: DiscoveredServer, confirmed: &[DiscoveredServer]) -> Trusted {
        let is_confirmed = confirmed.iter().any(|other| other.host == offer.host);
        let by_name = is_confirmed || self.is_expected(&offer.host);
        Trusted { identity: Arc::clone(if by_name { &offer.host } else { self.domain }), offer }
    }
}

#[cfg(test)]
mod testing {
    use super::*;

    pub(super) fn offer(host: &str) -> DiscoveredServer {
        DiscoveredServer {
            host: host.into(),
            port: 993,
            security: Security::Tls,
            priority: 0,
            weight: 0,
            by_local_part: false,
        }
    }

    pub(super) fn failed() -> DiscoveryError {
        DiscoveryError::Failed { domain: "example.org".into(), reason: "timeout".into() }
    }

    pub(super) fn no_terms() -> Arc<Terms> {
        Arc::new(Terms {
            trust: Default::default(),
            targets: vec![],
            autoconfig: None,
            proxy_protocol: None,
            originating_ip: false,
            news: Default::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{failed, no_terms, offer};
    use super::*;

    fn identity(host: &str, targets: &[&str], confirmed: &[&str]) -> String {
        let (domain, dns) = ("example.org".into(), Arc::new(DnsResolver::new(None)));
        let terms = Terms {
            trust: Default::default(),
            targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
            autoconfig: None,
            proxy_protocol: None,
            originating_ip: false,
            news: Default::default(),
        };
        let tls = ClientConfigs::new(&[]).unwrap();
        let (reach, unusable) = (Reach::PublicOnly, Mutex::default());
        let search =
            Search { domain: &domain, terms: &terms, reach, dns: &dns, tls: &tls, unusable };
        let confirmed: Vec<_> = confirmed.iter().copied().map(offer).collect();
        search.trusted(offer(host), &confirmed).identity.to_string()
    }

    #[test]
    fn host_that_dns_alone_names_must_be_certified_for_the_domain() {
        assert_eq!(identity("imap.example.org", &[], &[]), "imap.example.org");
        assert_eq!(identity("example.org", &[], &[]), "example.org");
        assert_eq!(identity("evil.example", &[], &[]), "example.org");
        assert_eq!(identity("evilexample.org", &[], &[]), "example.org");
        assert_eq!(
            identity("imap.provider.example", &["*.provider.example"], &[]),
            "imap.provider.example"
        );
        assert_eq!(
            identity("imap.provider.example", &[], &["imap.provider.example"]),
            "imap.provider.example"
        );
        assert_eq!(
            identity("evil.example", &["*.provider.example"], &["imap.provider.example"]),
            "example.org"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn old_answer_goes_on_while_nobody_answers() {
        let now = Instant::now();
        let servers =
            vec![Trusted { offer: offer("imap.example.org"), identity: "imap.example.org".into() }];
        let known = remembered(None, Ok((servers.clone(), Duration::from_secs(1))), now);
        assert_eq!(known.until - now, SHORTEST);
        let still = remembered(Some(known.clone()), Err(failed()), now);
        assert_eq!((still.result.clone(), still.found), (Ok(servers), known.found));
        let spoilt =
            UnusableDocument { url: "https://example.org/".into(), line: 3, problem: "x".into() };
        let spoilt = DiscoveryError::Unusable(spoilt.into());
        let spoilt_later = remembered(Some(known.clone()), Err(spoilt.clone()), now);
        assert!(
            spoilt_later.result.is_ok(),
            "a document that somebody spoilt ends nothing at once"
        );
        let spoilt_at_first = remembered(None, Err(spoilt.clone()), now);
        assert_eq!((spoilt_at_first.result, spoilt_at_first.until - now), (Err(spoilt), ABSENT));
        tokio::time::advance(STALE).await;
        let gone = remembered(Some(still), Err(failed()), Instant::now());
        assert_eq!(gone.result, Err(failed()));
        let absent = DiscoveryError::Absent("example.org".into());
        let denied = remembered(Some(known), Err(absent.clone()), Instant::now());
        assert_eq!(denied.result, Err(absent));
    }

    #[tokio::test(start_paused = true)]
    async fn useless_answer_is_looked_up_again_before_it_expires() {
        let (discovery, domain, terms) =
            (Discovery::default(), Arc::from("example.org"), no_terms());
        let entry = discovery.entry((Arc::clone(&domain), Arc::clone(&terms), Reach::PublicOnly));
        let servers =
            vec![Trusted { offer: offer("imap.example.org"), identity: "imap.example.org".into() }];
        let found = Instant::now();
        *entry.lock().await = Some(remembered(None, Ok((servers, UNSAID)), found));
        tokio::time::advance(Duration::from_secs(60)).await;
        // Over and over: it does not move on.
        for _ in 0..3 {
            discovery.doubt(&domain, &terms, Reach::PublicOnly).await;
        }
        assert_eq!(entry.lock().await.as_ref().unwrap().until, found + SHORTEST);
        assert!(
            entry.lock().await.as_ref().unwrap().result.is_ok(),
            "it counts until there is another answer"
        );
        // Nobody answers then: the old answer goes on, and is not asked about at each login.
        let known = entry.lock().await.take();
        let later = found + SHORTEST;
        tokio::time::advance(SHORTEST).await;
        *entry.lock().await = Some(remembered(known, Err(failed()), later));
        discovery.doubt(&domain, &terms, Reach::PublicOnly).await;
        assert_eq!(entry.lock().await.as_ref().unwrap().until, later + SHORTEST);
    }

    #[test]
    fn memory_of_the_schedule_is_bounded() {
        let (discovery, terms) = (Discovery::default(), no_terms());
        for number in 0..REMEMBERED + 10 {
            discovery.entry((
                format!("d{number}.example").into(),
                Arc::clone(&terms),
                Reach::PublicOnly,
            ));
        }
        assert_eq!(discovery.known.lock().unwrap().len(), REMEMBERED);
    }
}
