//! One client connection, from accept to close.

pub mod acme;
mod announced;
mod attempt;
pub mod certificate;
pub mod certificates;
pub mod challenges;
pub mod compress;
mod connection;
mod conversation;
pub mod files;
pub mod guard;
mod handle;
mod handshake;
mod leaf;
mod legacy;
pub mod listener;
mod login;
mod peer;
pub mod preauth;
mod probes;
mod refused;
pub mod relay;
mod rest;
mod sasl;
pub mod session;
pub mod tls;
pub(crate) mod web;
