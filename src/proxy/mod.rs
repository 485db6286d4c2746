//! One client connection, from accept to close.

pub mod certificate;
mod connection;
mod leaf;
pub mod listener;
mod peer;
pub mod preauth;
pub mod relay;
pub mod session;
pub mod tls;
