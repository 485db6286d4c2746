//! Permission to log in at a server, given by the code that counts failed logins there.

use std::net::IpAddr;

use futures_util::future::BoxFuture;

/// Asked once a connection to a server stands, and before anything is said there. A server may have many names; what it counts,
/// and bans for, it counts at its address.
pub trait Permit: Send + Sync {
    /// Waits for leave to log in at `server`; `false`: not for the time being.
    fn ask(&self, server: IpAddr) -> BoxFuture<'_, bool>;

    /// The server is about to get the credentials.
    fn credentials_sent(&self);
}
