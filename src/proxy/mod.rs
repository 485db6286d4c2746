//! One client connection, from accept to close.

mod attempt;
pub mod certificate;
pub mod compress;
mod connection;
mod conversation;
pub mod guard;
mod handle;
mod leaf;
pub mod listener;
mod login;
mod peer;
pub mod preauth;
mod probes;
mod refused;
pub mod relay;
mod sasl;
pub mod session;
pub mod tls;
