//! One client connection, from accept to close.

pub mod acme;
mod announced;
pub mod certificate;
pub mod certificates;
pub mod challenges;
mod connection;
pub mod files;
mod handle;
mod handshake;
mod leaf;
pub mod listener;
mod peer;
pub mod preauth;
mod probes;
pub mod relay;
pub mod session;
pub mod tls;
mod web;
