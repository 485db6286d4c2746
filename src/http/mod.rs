//! The two HTTP services: the public page with autoconfig, and the operator's page with metrics.

pub mod admin;
pub(crate) mod public;

/// A version of HTTP, as ALPN has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}
