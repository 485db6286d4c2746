//! TLS: certificates and where they come from, the server's side of handshakes, connections that own no buffer while idle, and those to a
//! database.

pub mod acme;
pub mod certs;
pub mod client;
mod compression;
pub(crate) mod inspect;
pub mod postgres;
pub mod server;
pub mod stream;
pub mod tickets;
