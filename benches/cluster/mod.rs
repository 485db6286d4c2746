//! Several nodes, their peers, and the measurements.

mod database;
pub(crate) mod mail_servers;
pub(crate) mod measure;
mod nodes;
pub(crate) mod options;
