//! One client connection, from accept to close.

mod account_changes;
mod client_stream;
pub mod compress;
mod connection;
mod handover;
pub(crate) mod handshake;
mod incoming_client;
pub mod listener;
mod login;
mod login_answer;
mod login_attempt;
mod login_error_response;
#[cfg(test)]
mod machines_tests;
mod native_push_cache;
mod own_lines;
mod own_refusals;
mod peer;
pub mod preauth;
#[doc(hidden)]
pub mod preauth_dialogue;
mod proxy_header;
pub mod relay;
mod sasl;
pub mod server_facts;
pub mod session;
#[doc(hidden)]
pub mod session_log;
mod session_services;
mod shared;
pub mod submission_lookup;
mod tokenless_client;
mod turn;

pub use shared::Proxy;
