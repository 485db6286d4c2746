//! What the commands beside `run` do, and what they say of it.

pub mod account;
pub mod progress;
pub mod push_test;
pub mod route;
pub mod state;
pub mod status;
pub mod trace;

/// What was asked for was tried, and did not come about; for this reason in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfulfilled(pub(crate) String);
