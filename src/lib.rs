//! deltapush: a Delta Chat push proxy for any IMAP server.
//!
//! A client points its IMAP setting at deltapush. [`proxy`] relays to the account's own server and adds what makes the client
//! hand over its push token; [`push`] keeps the token, watches the mailbox with an IDLE session of its own, and posts the
//! token to the notification server when mail arrives. [`parser`] knows IMAP as bytes, [`upstream`] reaches the account's
//! server, [`store`] keeps what must survive a restart, [`trace`] shows the protocol, [`telemetry`] what happens.
//!
//! An embedding program does what the binary does: [`Config::load`](config::Config::load), [`Server::prepare`], [`bind`], and
//! [`Server::run`] with a future that ends it. The caller owns the sockets, the signals and the log. The binary also installs an
//! allocator that wipes freed memory (`zeroizing-alloc`); without it copies of passwords and tokens stay in freed memory.
//!
//! Protocol logic is free of I/O: machines take bytes and time and return actions, and one driver each does the I/O.
//! `proxy::session` is driven by `proxy::relay`, `proxy::preauth` by `proxy::connection`, `push::idle` by `push::watcher`,
//! `push::schedule` by `push::notifier`, `upstream::login_machine` by `upstream::login`, `cluster::lease` by
//! `cluster::membership`.
//!
//! ARCHITECTURE.md has the table of layers and the invariants, docs/threat-model.md the threat model.

mod accept;
pub mod account;
pub mod activation;
pub mod admin;
pub mod admission;
mod backoff;
mod bounded;
mod causes;
pub mod client_setup;
mod clock;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod credentials;
pub mod crypto;
pub mod dict;
pub mod dns;
mod encoding;
mod file_access;
pub mod http;
pub mod logging;
pub mod machine;
pub mod mailbox_name;
pub mod ownership;
pub mod parser;
pub mod pem_file;
pub mod policy;
mod printable;
pub mod proxy;
pub mod push;
pub mod reload;
pub mod reloadable;
mod run;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod trace;
mod unix_socket;
pub mod upstream;

pub use run::{BoundListener, RunError, Server, bind};
