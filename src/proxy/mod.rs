//! One client connection, from accept to close.

pub mod certificate;
mod connection;
mod conversation;
pub mod guard;
mod handle;
mod leaf;
pub mod listener;
mod peer;
pub mod preauth;
mod probes;
pub mod relay;
pub mod session;
pub mod tls;
