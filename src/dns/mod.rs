//! Names to addresses and SRV records, each look-up bounded in time, answers kept for as long as their TTL says.
//!
//! All look-ups are asynchronous: a slow DNS server takes no thread, however many logins wait for it.

mod public_address;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

pub use public_address::is_public;

/// One question to one server, and how often it is asked.
const QUESTION: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// A look-up as a whole.
pub(crate) const LOOKUP: Duration = Duration::from_secs(10);
/// Look-ups at once; further ones wait for their turn, no longer than a look-up may take.
const AT_ONCE: usize = 512;
/// Answers that are remembered.
const REMEMBERED: u64 = 4096;
/// For how long an answer counts at most, whatever its TTL says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Interval between checks if the system's files have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// PTR records of one answer that are read.
const MAX_PTR: usize = 5;
/// SRV records of one answer that are read.
const MAX_SRV: usize = 20;

/// The files that configure the system's resolver.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The addresses to which a name may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Anywhere: the operator wrote the name.
    Anywhere,
    /// To the public Internet only: a login or a stranger's DNS chose the name.
    PublicOnly,
}

/// Why a name led nowhere.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DnsError {
    /// The name, or a record of this kind under it, is not there.
    #[error("DNS knows no {what} of {name}")]
    Absent {
        /// The kind of record that was requested.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// There are addresses, none of which may be connected to.
    #[error("{name} has no address on the public internet, and its route allows no other")]
    NotPublic {
        /// The name.
        name: String,
    },
    /// The DNS server is out of reach, or out of order.
    #[error("DNS gives no answer about {name}: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// The problem.
        reason: String,
    },
}

impl From<DnsError> for io::Error {
    fn from(error: DnsError) -> Self {
        Self::other(error)
    }
}

/// A service record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Lower comes first.
    pub priority: u16,
    /// Relative frequency of the first place among those of the same priority.
    pub weight: u16,
    /// The TCP port.
    pub port: u16,
    /// The host in lower case, without a dot at its end; empty if the service is not offered.
    pub target: String,
}

/// The resolver.
pub struct DnsResolver {
    server: Option<SocketAddr>,
    current: Mutex<Option<CurrentResolver>>,
    places: Semaphore,
}

struct CurrentResolver {
    resolver: TokioResolver,
    files: [Option<SystemTime>; 2],
    looked: Instant,
}

impl fmt::Debug for DnsResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("server", &self.server).finish_non_exhaustive()
    }
}

impl DnsResolver {
    /// A resolver that asks `server`, or those of the system; `/etc/hosts` goes before either.
    #[must_use]
    pub fn new(server: Option<SocketAddr>) -> Self {
        Self { server, current: Mutex::new(None), places: Semaphore::new(AT_ONCE) }
    }

    /// The addresses of `host`, a name or an IP address, IPv6 and IPv4 as they came. Never empty.
    ///
    /// # Errors
    /// [`DnsError`] if there is none, or none within `reach`.
    pub async fn addresses(&self, host: &str, reach: Reach) -> Result<Vec<IpAddr>, DnsError> {
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.look_up_addresses(host, reach).await?,
        };
        let allowed: Vec<_> = found
            .into_iter()
            .filter(|address| reach == Reach::Anywhere || is_public(*address))
            .collect();
        if allowed.is_empty() {
            return Err(DnsError::NotPublic { name: host.to_owned() });
        }
        Ok(allowed)
    }

    /// The names that DNS has for an address (PTR records), without the dot at their end; none if it has none, or does not answer.
    /// The owner of the address chose them: they count only if they lead back to it.
    pub async fn names_of(&self, address: IpAddr) -> Vec<String> {
        let Ok(resolver) = self.resolver() else { return vec![] };
        let Ok(Ok(found)) = self.bounded("", resolver.reverse_lookup(address)).await else {
            return vec![];
        };
        let names = found.answers().iter().filter_map(|record| match &record.data {
            RData::PTR(name) => Some(name.to_utf8().trim_end_matches('.').to_lowercase()),
            _ => None,
        });
        names.take(MAX_PTR).collect()
    }

    async fn look_up_addresses(&self, host: &str, reach: Reach) -> Result<Vec<IpAddr>, DnsError> {
        let failed = |error| refused(error, "address", host);
        let mut name = Name::from_utf8(host).map_err(|error| failed(error.into()))?;
        // A name that a stranger chose is whole: the system's search list would put it into the local network.
        name.set_fqdn(reach == Reach::PublicOnly);
        let resolver = self.resolver().map_err(failed)?;
        let found = self.bounded(host, resolver.lookup_ip(name)).await?.map_err(failed)?;
        let addresses: Vec<_> = found.iter().collect();
        if addresses.is_empty() {
            return Err(DnsError::Absent { what: "address", name: host.to_owned() });
        }
        Ok(addresses)
    }

    /// The SRV records of `service` (`_imaps._tcp`) at `domain`, and how long they hold. Never empty.
    ///
    /// # Errors
    /// [`DnsError`] if there is none, or no answer.
    pub async fn services(
        &self,
        service: &str,
        domain: &str,
    ) -> Result<(Vec<Srv>, Duration), DnsError> {
        let host = format!("{service}.{domain}.");
        let failed = |error| refused(error, "service", &host);
        let name = Name::from_ascii(&host).map_err(|error| failed(error.into()))?;
        let resolver = self.resolver().map_err(failed)?;
        let found = self.bounded(&host, resolver.srv_lookup(name)).await?.map_err(failed)?;
        let lasts = found.valid_until().saturating_duration_since(std::time::Instant::now());
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
            }),
            _ => None,
        });
        let records: Vec<_> = records.take(MAX_SRV).collect();
        if records.is_empty() {
            return Err(DnsError::Absent { what: "service", name: host });
        }
        Ok((records, lasts))
    }

    async fn bounded<T>(
        &self,
        name: &str,
        looked_up: impl Future<Output = T>,
    ) -> Result<T, DnsError> {
        let one = async {
            // The semaphore is never closed.
            let _place = self.places.acquire().await;
            looked_up.await
        };
        let late = || DnsError::Failed {
            name: name.to_owned(),
            reason: "the time limit has passed".to_owned(),
        };
        // Boxed: the resolver's futures are large.
        timeout(LOOKUP, Box::pin(one)).await.map_err(|_| late())
    }

    /// The resolver as the system's files have it now; what it remembers is lost when they change.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) =
            current.as_ref().filter(|current| current.looked.elapsed() < LOOK_AGAIN)
        {
            return Ok(current.resolver.clone());
        }
        let files = SYSTEM_FILES
            .map(|file| Path::new(file).metadata().and_then(|file| file.modified()).ok());
        if let Some(current) = current.as_mut().filter(|current| current.files == files) {
            current.looked = Instant::now();
            return Ok(current.resolver.clone());
        }
        let resolver = self.build()?;
        *current =
            Some(CurrentResolver { resolver: resolver.clone(), files, looked: Instant::now() });
        Ok(resolver)
    }

    fn build(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.server {
            None => TokioResolver::builder_tokio()?,
            Some(server) => asking(server),
        };
        set(builder.options_mut());
        builder.build()
    }
}

fn asking(server: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let servers = vec![NameServerConfig::new(server.ip(), true, connections.into())];
    TokioResolver::builder_with_config(
        ResolverConfig::from_parts(None, vec![], servers),
        TokioRuntimeProvider::default(),
    )
}

fn set(options: &mut ResolverOpts) {
    options.timeout = QUESTION;
    options.attempts = ATTEMPTS;
    options.cache_size = REMEMBERED;
    options.positive_max_ttl = Some(LONGEST);
    options.negative_max_ttl = Some(Duration::from_secs(300));
    options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv6AndIpv4;
}

fn refused(error: NetError, what: &'static str, name: &str) -> DnsError {
    if error.is_no_records_found() {
        return DnsError::Absent { what, name: name.to_owned() };
    }
    DnsError::Failed { name: name.to_owned(), reason: error.to_string() }
}

/// The same, for fetches by HTTP: an address that is not within reach is never connected to, whichever name or redirection
/// led to it.
#[derive(Debug, Clone)]
pub struct HttpDns {
    /// The resolver.
    pub dns: Arc<DnsResolver>,
    /// The addresses to which names may lead.
    pub reach: Reach,
}

impl HttpDns {
    /// The servers of the system and `/etc/hosts`, for names that the operator wrote. Takes the place of the C library's look-up,
    /// which loads shared libraries of the system: a static program must not.
    #[must_use]
    pub fn of_system() -> Self {
        Self { dns: Arc::new(DnsResolver::new(None)), reach: Reach::Anywhere }
    }
}

impl reqwest::dns::Resolve for HttpDns {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let Self { dns, reach } = self.clone();
        Box::pin(async move {
            let found = dns.addresses(name.as_str(), reach).await?;
            let addresses: reqwest::dns::Addrs =
                Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn address_needs_no_look_up_and_is_filtered_all_the_same() {
        let dns = DnsResolver::new(Some("127.0.0.1:9".parse().unwrap()));
        let here = ["127.0.0.1".parse::<IpAddr>().unwrap()];
        assert_eq!(dns.addresses("127.0.0.1", Reach::Anywhere).await.unwrap(), here);
        assert!(matches!(
            dns.addresses("127.0.0.1", Reach::PublicOnly).await,
            Err(DnsError::NotPublic { .. })
        ));
        assert!(matches!(
            dns.addresses("::ffff:10.0.0.1", Reach::PublicOnly).await,
            Err(DnsError::NotPublic { .. })
        ));
    }

    #[tokio::test]
    async fn hosts_file_counts() {
        let dns = DnsResolver::new(Some("127.0.0.1:9".parse().unwrap()));
        assert!(
            dns.addresses("localhost", Reach::Anywhere)
                .await
                .unwrap()
                .iter()
                .all(IpAddr::is_loopback)
        );
        assert!(matches!(
            dns.addresses("localhost", Reach::PublicOnly).await,
            Err(DnsError::NotPublic { .. })
        ));
    }
}
