//! Mail servers of accounts: routes, discovery, connections and logins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::LiveConfig;
use crate::dns::DnsResolver;
use crate::tls::client::{ClientConfigs, TrustError};
use server_fact::{LearnedFact, ServerFact};

pub mod capabilities;
pub mod connect;
mod connect_error;
pub mod discovery;
pub mod failure_cause;
mod happy_eyeballs;
pub mod id;
mod late_addresses;
mod login;
pub mod login_machine;
mod login_progress;
mod mechanism;
pub mod method_memory;
pub mod originating;
pub mod outages;
pub mod permit;
pub mod probe;
pub mod providers;
mod proxy_header;
pub mod refusal;
pub mod route;
pub mod server_fact;

/// All that is needed to reach the servers that the configuration names.
#[derive(Debug)]
pub struct Upstreams {
    /// The routes to the servers.
    pub routes: route::Routes,
    /// Verifying their certificates.
    pub tls: ClientConfigs,
    /// Time limit of a connection with its login.
    pub time: Duration,
    /// Finding their addresses.
    pub dns: Arc<DnsResolver>,
    /// Finding the servers of domains.
    pub discovery: Arc<discovery::Discovery>,
    /// Addresses that are tried last.
    pub late: Arc<late_addresses::LateAddresses>,
    /// Login methods that worked where the usual one did not.
    pub methods: Arc<method_memory::MethodMemory>,
    /// Servers at which nobody can log in.
    pub outages: Arc<outages::Outages>,
}

impl Upstreams {
    /// As `config` wants it. Blocks on files of certificate authorities.
    ///
    /// # Errors
    /// [`TrustError`] if one of these files does not serve.
    pub fn new(config: &LiveConfig) -> Result<Self, TrustError> {
        Ok(Self {
            routes: route::Routes::new(&config.routes),
            tls: ClientConfigs::new(&config.routes)?,
            time: config.limits.upstream_time,
            dns: Arc::new(DnsResolver::new(config.dns.server)),
            discovery: Arc::default(),
            late: Arc::default(),
            methods: Arc::default(),
            outages: Arc::default(),
        })
    }

    /// Applies another configuration. Look-ups stay known, unless `dns` or `routes` changed.
    ///
    /// # Errors
    /// [`TrustError`] if a file of certificate authorities does not serve.
    pub fn renewed(&self, before: &LiveConfig, config: &LiveConfig) -> Result<Self, TrustError> {
        let new = Self {
            late: Arc::clone(&self.late),
            methods: Arc::clone(&self.methods),
            outages: Arc::clone(&self.outages),
            ..Self::new(config)?
        };
        if before.dns != config.dns || before.routes != config.routes {
            return Ok(new);
        }
        Ok(Self { dns: Arc::clone(&self.dns), discovery: Arc::clone(&self.discovery), ..new })
    }

    /// Facts about mail servers that this process has learned since, for the other nodes.
    pub async fn learned_since(&self, since: Instant) -> Vec<LearnedFact> {
        let methods = self.methods.learned_since(since).into_iter();
        let methods = methods.map(|(fact, at)| (ServerFact::Method(fact), at.elapsed()));
        let domains = self.discovery.learned_since(since.into()).await.into_iter();
        let domains = domains.map(|(fact, age)| (ServerFact::Servers(fact), age));
        methods.chain(domains).map(|(fact, age)| LearnedFact { fact, age }).collect()
    }

    /// Another node has learned this. What this one has learned later counts more.
    pub fn hear(&self, LearnedFact { fact, age }: LearnedFact) {
        match fact {
            ServerFact::Method(fact) => {
                if let Some(since) = Instant::now().checked_sub(age) {
                    self.methods.hear(fact, since);
                }
            }
            ServerFact::Servers(fact) => self.discovery.hear(fact, age),
            // Of interest to clients' sessions alone.
            ServerFact::Pushes { .. } => {}
        }
    }

    /// The servers of a target in the order in which they are to be tried. Never empty.
    ///
    /// # Errors
    /// [`discovery::DiscoveryError`] if they are looked up and not found.
    pub async fn servers(
        &self,
        target: &route::Target,
    ) -> Result<Vec<route::Endpoint>, discovery::DiscoveryError> {
        match &target.servers {
            route::Servers::Fixed(endpoint) => Ok(vec![endpoint.clone()]),
            route::Servers::Discovered(domain) => {
                self.discovery
                    .servers(domain, &target.terms, target.reach, &self.dns, &self.tls)
                    .await
            }
        }
    }

    /// The autoconfig documents that could not be used when a target's servers were last looked up.
    pub async fn unusable_documents(
        &self,
        target: &route::Target,
    ) -> Vec<Arc<discovery::UnusableDocument>> {
        match &target.servers {
            route::Servers::Fixed(_) => Vec::new(),
            route::Servers::Discovered(domain) => {
                self.discovery.unusable(domain, &target.terms, target.reach).await
            }
        }
    }

    /// No server of a target can be reached: it may have moved.
    pub async fn doubt(&self, target: &route::Target) {
        if let route::Servers::Discovered(domain) = &target.servers {
            self.discovery.doubt(domain, &target.terms, target.reach).await;
        }
    }
}
