//! TLS: certificates and where they come from, the server's side of handshakes, and connections that own no buffer while idle.

pub mod acme;
pub mod certs;
pub mod client;
mod compression;
pub(crate) mod inspect;
pub mod server;
pub mod stream;
