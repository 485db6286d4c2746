//! docs/first-evening.md, typed as a newcomer types it, and a family at the same evening.
//!
//! `walk` is the test: it takes the commands from the page (`page`), in an internet of its own (`internet`) with a VPS
//! (`vps`), on which a stand-in for systemd runs the service (`service`). All of it is inside namespaces (`namespace`).
//! `phone` has the apps.

mod family;
pub(crate) mod internet;
pub(crate) mod namespace;
pub(crate) mod page;
pub(crate) mod phone;
mod service;
pub(crate) mod vps;
mod walk;
