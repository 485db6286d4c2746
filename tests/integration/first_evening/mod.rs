//! docs/first-evening.md, typed as a newcomer types it, and a family at the same evening.
//!
//! `walk` is the test: it takes the commands from the page (`page`), in an internet of its own (`internet`) with a VPS
//! (`vps`), which begins as a copy of this machine and has a systemd of its own. All of it is inside namespaces (`namespace`).
//! `evening` has the steps after the installation, `phone` the apps. `package` takes the same steps after README's installation, on a
//! VPS that is another Debian.

mod evening;
mod family;
pub(crate) mod internet;
pub(crate) mod namespace;
mod package;
pub(crate) mod page;
pub(crate) mod phone;
pub(crate) mod vps;
mod walk;
