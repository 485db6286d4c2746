//! The operator's commands on the server side: control socket, status, history and actions.

mod actions;
pub mod clock;
pub mod cluster_report;
mod cluster_table;
pub mod control;
pub mod control_server;
mod fetching;
pub mod format;
mod latency_report;
pub mod layout;
mod lookup;
mod news;
pub mod question;
pub mod remote;
mod reply;
pub mod report;
pub(crate) mod selection;
pub mod status;
pub mod table;
pub mod timeline;
mod trace;
mod watch_report;

#[cfg(test)]
pub(crate) mod snapshot_tests;
