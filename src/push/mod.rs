//! From new mail to a waking phone: who has a token, and when it is posted.

mod backoff;
pub mod board;
mod breaker;
mod duplicates;
pub mod encrypted_only;
pub mod eye;
pub mod gate;
mod http;
pub mod idle;
pub mod latest;
pub mod notifier;
pub mod push_test;
pub mod registry;
pub mod schedule;
pub mod standing;
pub mod verdict;
pub mod watcher;
