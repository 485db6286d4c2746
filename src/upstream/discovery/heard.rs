//! The servers of domains as other nodes have found them: one that starts, or takes over accounts, need not ask again, and goes on
//! with them while nobody answers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::route::Terms;
use super::super::server_fact::{DomainFact, ServerOffer};
use super::{
    DiscoveredServer, Discovery, DiscoveryError, DiscoveryKey, KnownServer, LONGEST, REMEMBERED,
    Trusted,
};
use crate::config::Security;
use crate::dns::Reach;

/// A domain, and the hash of the terms under which its servers are looked for.
pub(super) type HeardKey = (Arc<str>, u64);

impl Discovery {
    /// Servers that this process has found since, and how long ago each was found.
    pub(in crate::upstream) async fn learned_since(
        &self,
        since: Instant,
    ) -> Vec<(DomainFact, Duration)> {
        let entries: Vec<_> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.iter().map(|(key, (entry, _))| (key.clone(), Arc::clone(entry))).collect()
        };
        let mut learned = Vec::new();
        for (key, entry) in entries {
            let known = entry.lock().await;
            if let Some(known) = known.as_ref().filter(|known| known.noted >= Some(since)) {
                learned.extend(fact(&key, known).map(|fact| (fact, known.found.elapsed())));
            }
        }
        learned
    }

    /// Another node found this so long ago.
    pub(in crate::upstream) fn hear(&self, fact: DomainFact, age: Duration) {
        let DomainFact { domain, terms, servers, lasts } = fact;
        let Some(found) = Instant::now().checked_sub(age) else { return };
        let until = found.checked_add(lasts.min(LONGEST)).unwrap_or(found);
        let known = KnownServer {
            result: Ok(servers.into_iter().map(Trusted::from).collect()),
            found,
            looked: found,
            until,
            unusable: Vec::new(),
            noted: None,
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::from(domain), terms);
        if heard.len() >= REMEMBERED && !heard.contains_key(&key) {
            let oldest = heard.iter().min_by_key(|(_, known)| known.found);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.and_then(|oldest| heard.remove(&oldest));
        }
        heard.insert(key, known);
    }

    /// Servers that another node has found later than this one, or at any time if this one could not ask.
    pub(super) fn heard_since(
        &self,
        (domain, terms, reach): &DiscoveryKey,
        known: Option<&KnownServer>,
    ) -> Option<KnownServer> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = heard.remove(&(Arc::clone(domain), hash(terms, *reach)))?;
        let counts = |known: &KnownServer| match known.result {
            Err(DiscoveryError::Failed { .. } | DiscoveryError::Unusable(_)) => true,
            Ok(_) | Err(DiscoveryError::Absent(_) | DiscoveryError::NotOffered(_)) => {
                known.found < heard.found
            }
        };
        known.is_none_or(counts).then_some(heard)
    }
}

fn hash(terms: &Terms, reach: Reach) -> u64 {
    let mut hasher = DefaultHasher::new();
    (terms, reach).hash(&mut hasher);
    hasher.finish()
}

/// None without servers: others look for themselves then.
fn fact((domain, terms, reach): &DiscoveryKey, known: &KnownServer) -> Option<DomainFact> {
    let servers = known.result.as_ref().ok()?;
    Some(DomainFact {
        domain: domain.to_string(),
        terms: hash(terms, *reach),
        servers: servers.iter().map(offer).collect::<Option<_>>()?,
        lasts: known.until.saturating_duration_since(known.found),
    })
}

/// None for a server without TLS, which no domain can name.
fn offer(Trusted { offer, identity }: &Trusted) -> Option<ServerOffer> {
    Some(ServerOffer {
        host: offer.host.to_string(),
        port: offer.port,
        is_tls: match offer.security {
            Security::Tls => true,
            Security::StartTls => false,
            Security::Plain => return None,
        },
        priority: offer.priority,
        weight: offer.weight,
        by_local_part: offer.by_local_part,
        identity: identity.to_string(),
    })
}

impl From<ServerOffer> for Trusted {
    fn from(offer: ServerOffer) -> Self {
        let ServerOffer { host, port, is_tls, priority, weight, by_local_part, identity } = offer;
        let security = if is_tls { Security::Tls } else { Security::StartTls };
        let host = host.into();
        let offer = DiscoveredServer { host, port, security, priority, weight, by_local_part };
        Self { offer, identity: identity.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{failed, no_terms, offer};
    use super::super::{SHORTEST, STALE, UNSAID, remembered};
    use super::*;

    fn found_by(key: &DiscoveryKey, host: &str) -> KnownServer {
        let servers = vec![Trusted { offer: offer(host), identity: host.into() }];
        let known = remembered(None, Ok((servers, UNSAID)), Instant::now());
        assert!(fact(key, &known).is_some());
        KnownServer { noted: Some(Instant::now()), ..known }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_node_finds_another_uses() {
        let (one, two) = (Discovery::default(), Discovery::default());
        let key: DiscoveryKey = ("example.org".into(), no_terms(), Reach::PublicOnly);
        let begin = Instant::now();
        *one.entry(key.clone()).lock().await = Some(found_by(&key, "imap.example.org"));
        tokio::time::advance(Duration::from_secs(60)).await;
        let learned = one.learned_since(begin).await;
        assert_eq!((learned.len(), learned[0].1), (1, Duration::from_secs(60)));
        assert!(one.learned_since(Instant::now()).await.is_empty(), "told once");
        for (fact, age) in learned.clone() {
            two.hear(fact, age);
        }
        let heard = two.heard_since(&key, None).unwrap();
        let known = one.entry(key.clone()).lock().await.take().unwrap();
        assert_eq!(
            (&heard.result, heard.found, heard.until),
            (&known.result, known.found, known.until)
        );
        *two.entry(key.clone()).lock().await = Some(heard.clone());
        assert!(two.learned_since(begin).await.is_empty(), "it is not the one that found it");
        // Nobody answers when it is over: it goes on, as if this node had found it.
        tokio::time::advance(UNSAID).await;
        let later = remembered(Some(heard.clone()), Err(failed()), Instant::now());
        assert_eq!((later.result, later.until - Instant::now()), (heard.result.clone(), SHORTEST));
        tokio::time::advance(STALE).await;
        let gone = remembered(Some(heard), Err(failed()), Instant::now());
        assert_eq!(gone.result, Err(failed()));
    }

    #[tokio::test(start_paused = true)]
    async fn later_finding_counts_under_the_same_terms() {
        let discovery = Discovery::default();
        let key: DiscoveryKey = ("example.org".into(), no_terms(), Reach::PublicOnly);
        tokio::time::advance(SHORTEST).await;
        let own = found_by(&key, "imap.example.org");
        let hear = |age| discovery.hear(fact(&key, &own).unwrap(), age);
        hear(Duration::from_secs(1));
        assert!(discovery.heard_since(&key, Some(&own)).is_none(), "this node's is newer");
        hear(Duration::ZERO);
        let elsewhere = (Arc::clone(&key.0), Arc::clone(&key.1), Reach::Anywhere);
        assert!(discovery.heard_since(&elsewhere, None).is_none());
        let unknown = |error| KnownServer { result: Err(error), ..own.clone() };
        assert!(discovery.heard_since(&key, Some(&unknown(failed()))).is_some());
        hear(Duration::from_secs(1));
        let absent = unknown(DiscoveryError::Absent("example.org".into()));
        assert!(discovery.heard_since(&key, Some(&absent)).is_none(), "it is gone since");
        for number in 0..REMEMBERED + 10 {
            let domain = format!("d{number}.example");
            let fact = DomainFact { domain, ..fact(&key, &own).unwrap() };
            discovery.hear(fact, Duration::ZERO);
        }
        assert_eq!(discovery.heard.lock().unwrap().len(), REMEMBERED);
    }
}
