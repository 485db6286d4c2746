//! What one stranger may take from the others: places, and tries at passwords. Sans-IO: addresses and time in, verdicts out.
//!
//! [`places`]: who may connect. [`logins`]: whose login is tried. [`door`] and [`gate`] are the two for tasks.

mod bounded;
pub mod door;
pub mod gate;
pub mod logins;
pub mod places;
mod prefix;
pub mod report;

pub(crate) use bounded::Bounded;
pub use prefix::Prefix;
