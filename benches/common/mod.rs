//! The base of several benchmarks: a mail server that costs little, a client, the yardstick, the real program with its accounts,
//! a look at processes.

pub(crate) mod accounts;
pub(crate) mod bare;
pub(crate) mod client;
pub(crate) mod deltapush;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod server;
mod session;
pub(crate) mod tls;
