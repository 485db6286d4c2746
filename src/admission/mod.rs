//! What one stranger may take from the others: places, and tries at passwords. Sans-IO: addresses and time in, verdicts out.
//!
//! [`places`]: who may connect. [`logins`]: whose login is tried; [`known`] is what it recognizes after a restart. [`door`] and
//! [`gate`] are the two for tasks.

mod bounded;
pub mod door;
mod fair_map;
pub mod gate;
pub mod invented;
pub mod key;
pub mod known;
pub mod logins;
pub mod places;
mod prefix;
pub mod remember;
mod repeats;
pub mod report;
mod window;

pub(crate) use bounded::Bounded;
pub use fair_map::EntryOrigin;
pub use prefix::Prefix;
