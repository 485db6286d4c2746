//! Connections to the database: the first of its servers that takes writes, over TLS with a verified certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Connection, Socket};

use super::postgres_settings::{PasswordError, PostgresSettings};
use crate::config::PostgresHost;
use crate::dns::{DnsError, DnsResolver, Reach};
use crate::secret::Secret;
use crate::tls::client::TrustError;
use crate::tls::postgres::{Connector, Stream};

/// Time limit for one address of one server: connection, TLS, login and the question whether it takes writes.
const ADDRESS: Duration = Duration::from_secs(6);

/// Opens connections to one database.
#[derive(Debug, Clone)]
pub struct PostgresConnector {
    settings: PostgresSettings,
    tls: Connector,
    dns: Arc<DnsResolver>,
}

/// Failure to reach a database.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The authorities of `storage.postgres.ca` cannot be read.
    #[error("storage.postgres.ca: {0}")]
    Trust(#[from] TrustError),
    /// The password cannot be read.
    #[error("the database's password: {0}")]
    Password(#[from] PasswordError),
    /// No server of the database took the connection.
    #[error("{}", joined(.0))]
    Servers(Vec<ServerError>),
}

/// Failure to reach one server of a database.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {reason}")]
pub struct ServerError {
    /// The server.
    pub host: PostgresHost,
    /// The problem.
    pub reason: Reason,
}

/// Why a server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Its name leads nowhere.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// It refused the connection, or is of no use.
    #[error("{}", explain(.0))]
    Server(#[from] tokio_postgres::Error),
    /// It did not answer in time.
    #[error("no answer within {} s", ADDRESS.as_secs())]
    Late,
}

/// A connection, to be driven by a task.
pub(super) type Driven = Connection<Socket, Stream<Socket>>;

/// A connection and its handle.
pub type Connected = (Client, Connection<Socket, Stream<Socket>>);

impl PostgresConnector {
    /// Reads the trusted authorities, if a server needs them. Blocks on files.
    ///
    /// # Errors
    /// [`ConnectError`]: the operator's to mend.
    pub fn new(settings: PostgresSettings) -> Result<Self, ConnectError> {
        let has_tls = settings.url.hosts().iter().any(|host| host.tls);
        let tls =
            if has_tls { Connector::new(&settings.ca)? } else { Connector::trusting_nobody()? };
        // The system's own look-up loads shared libraries, which a static program must not.
        Ok(Self { settings, tls, dns: Arc::new(DnsResolver::new(None)) })
    }

    /// Connects to the first server that takes writes. Bounded in time for each address of each server.
    ///
    /// # Errors
    /// [`ConnectError`], with what is wrong with each server.
    pub async fn connect(&self) -> Result<Connected, ConnectError> {
        let mut errors = Vec::new();
        for host in self.settings.url.hosts() {
            let password = self.settings.password(host)?;
            match self.connect_to(host, password.as_ref()).await {
                Ok(connected) => return Ok(connected),
                Err(reason) => errors.push(ServerError { host: host.clone(), reason }),
            }
        }
        Err(ConnectError::Servers(errors))
    }

    async fn connect_to(
        &self,
        host: &PostgresHost,
        password: Option<&Secret>,
    ) -> Result<Connected, Reason> {
        let addresses = match &host.host {
            Host::Tcp(name) => {
                self.dns.addresses(name, Reach::Anywhere).await?.into_iter().map(Some).collect()
            }
            Host::Unix(_) => vec![None],
        };
        let mut last = Reason::Late;
        for address in addresses {
            let config = self.parameters(host, address, password);
            match timeout(ADDRESS, Box::pin(config.connect(self.tls.clone()))).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = Reason::Late,
            }
        }
        Err(last)
    }

    fn parameters(
        &self,
        host: &PostgresHost,
        address: Option<IpAddr>,
        password: Option<&Secret>,
    ) -> tokio_postgres::Config {
        let mut config = self.settings.url.parameters().clone();
        match &host.host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(folder) => config.host_path(folder),
        };
        config.port(host.port).user(self.settings.user());
        config.ssl_mode(if host.tls { SslMode::Require } else { SslMode::Disable });
        address.map(|address| config.hostaddr(address));
        password.map(|password| config.password(password.expose()));
        config
    }
}

fn joined(errors: &[ServerError]) -> String {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// The error with its causes, which its own text leaves out.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        return format!("{} ({})", refusal.message(), refusal.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
