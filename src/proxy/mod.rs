//! One client connection, from accept to close.

mod announced;
mod attempt;
pub mod compress;
mod connection;
mod conversation;
mod handle;
pub(crate) mod handshake;
mod legacy;
pub mod listener;
mod login;
mod login_answer;
mod own_lines;
mod own_refusals;
mod peer;
pub mod preauth;
mod probes;
mod refused;
pub mod relay;
mod rest;
mod sasl;
pub mod session;
pub mod submission_lookup;
mod turn;
