//! The account's own server: whose it is, and how it is reached.

use std::time::Duration;

pub mod connect;
pub mod dialogue;
pub mod id;
pub mod refusal;
pub mod route;
pub mod tls;

/// All that is needed to reach the servers that the configuration names.
#[derive(Debug)]
pub struct Upstreams {
    /// Whose server is which.
    pub routes: route::Routes,
    /// Verifying their certificates.
    pub tls: tls::ClientConfigs,
    /// How long a connection with its login may take.
    pub time: Duration,
}
