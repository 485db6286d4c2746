//! Facts about mail servers that nodes tell one another: login methods, the servers of domains, and the servers that push by
//! themselves. A node that starts, or takes over accounts, need not find them out again.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Proxy;
use crate::reloadable::Reloadable;
use crate::store::{StoreError, StoredFact, UnixTime, change};
use crate::upstream::server_fact::{LearnedFact, ServerFact};

/// Interval at which facts are stored and read.
const EVERY: Duration = Duration::from_secs(30);

/// Facts of other nodes may be stored so late, by clocks that differ.
const LATE: Duration = Duration::from_secs(300);

/// The exchange of facts with the other nodes.
pub struct FactExchange {
    proxy: Reloadable<Proxy>,
    /// Facts that were learned before this are told.
    told: Instant,
    /// Facts that were stored before this are known.
    heard: UnixTime,
}

impl FactExchange {
    /// Takes in what the others know, before clients come.
    pub async fn begin(proxy: Reloadable<Proxy>) -> Self {
        let mut exchange = Self { proxy, told: Instant::now(), heard: UnixTime(i64::MIN) };
        exchange.hear().await;
        exchange
    }

    /// Goes on until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                sleep(EVERY).await;
                self.hear().await;
                self.tell().await;
            }
        })
        .await;
    }

    async fn hear(&mut self) {
        let now = UnixTime::now();
        match self.proxy.get().hear_since(self.heard).await {
            Ok(()) => self.heard = now.before(LATE),
            Err(error) => debug!("cannot read what other nodes know of mail servers: {error}"),
        }
    }

    async fn tell(&mut self) {
        let now = Instant::now();
        match self.proxy.get().tell_since(self.told).await {
            Ok(()) => self.told = now,
            Err(error) => {
                debug!("cannot store what is known of mail servers, tries again: {error}")
            }
        }
    }
}

impl Proxy {
    async fn hear_since(&self, since: UnixTime) -> Result<(), StoreError> {
        let now = UnixTime::now();
        for StoredFact { value, found, .. } in
            self.registry.store().server_facts_since(since).await?
        {
            let Some(fact) = ServerFact::decode(&value) else { continue };
            match fact {
                ServerFact::Pushes { server, pushes } => {
                    self.probes.hear(server, pushes, found.age(now));
                }
                fact => self.upstreams.hear(LearnedFact { fact, age: found.age(now) }),
            }
        }
        Ok(())
    }

    async fn tell_since(&self, since: Instant) -> Result<(), StoreError> {
        let mut learned = self.upstreams.learned_since(since).await;
        learned.extend(self.probes.learned_since(since));
        if learned.is_empty() {
            return Ok(());
        }
        let now = UnixTime::now();
        let stored = |LearnedFact { fact, age }: LearnedFact| StoredFact {
            name: fact.name(),
            value: fact.encode(),
            found: now.before(age),
        };
        let facts = learned.into_iter().map(stored).collect();
        self.registry.commit(change::share_server_facts(facts, now)).await
    }
}
