//! HTTP: the public page with autoconfig, and the admin listener with the operator's page, metrics and health.
//! `server` serves connections of both; a site is a function from a request to its response behind it. `listen`
//! accepts connections on the admin listener; those of the public page come from the listeners for IMAP.

pub mod admin;
mod html;
mod listen;
pub mod listening;
pub mod metrics;
pub(crate) mod public;
mod response;
pub(crate) mod server;

/// A version of HTTP, as ALPN has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}
