//! One client connection, from accept to close.

mod attempt;
pub mod certificate;
pub mod compress;
mod connection;
mod handle;
mod leaf;
pub mod listener;
mod peer;
pub mod preauth;
mod probes;
pub mod relay;
mod sasl;
pub mod session;
pub mod tls;
