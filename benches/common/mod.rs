//! The base of several benchmarks: a mail server that costs little, a client, the yardstick, a look at processes.

pub(crate) mod bare;
pub(crate) mod client;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod server;
mod session;
pub(crate) mod tls;
