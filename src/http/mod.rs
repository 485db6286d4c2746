//! HTTP: the public page with autoconfig, the admin listener with the operator's page, metrics and health, the listener for an
//! authority's challenges, and the hook for news of mail servers. `server` serves connections of all; a site is a function from a
//! request to its response behind it. `listen` accepts connections on listeners for HTTP alone; those of the public page come
//! from the listeners for IMAP.

pub mod admin;
mod authorization;
pub(crate) mod challenge;
mod html;
mod listen;
pub mod listening;
pub mod metrics;
pub mod news;
pub(crate) mod public;
mod response;
pub(crate) mod server;
mod throttle;

/// A version of HTTP, as ALPN has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}
