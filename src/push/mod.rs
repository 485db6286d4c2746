//! From new mail to a waking phone: who has a token, and when it is posted.

pub mod account;
mod backoff;
mod breaker;
pub mod cluster;
mod duplicates;
pub mod encrypted_only;
pub mod filter;
mod http;
pub mod idle;
pub mod kept;
pub mod latest;
pub mod notifier;
pub mod pacing;
mod places;
pub mod push_status_line;
pub mod push_test;
pub mod registry;
pub mod schedule;
pub mod server_news;
pub mod settling;
pub mod watch_status;
pub mod watcher;
