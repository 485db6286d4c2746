//! What one stranger may take from the others: places, and tries at passwords. Sans-IO: addresses and time in, verdicts out.
//!
//! [`slot_table`]: who may connect. [`failed_logins`]: whose login is tried; [`known`] is what it recognizes after a restart. [`connection_slots`] and
//! [`login_limiter`] are the two for tasks.

mod bounded;
pub mod connection_slots;
pub mod failed_logins;
mod fair_map;
pub mod invented;
pub mod key;
pub mod known;
pub mod login_limiter;
mod prefix;
pub mod remember;
mod repeats;
pub mod report;
pub mod slot_table;
mod window;

pub(crate) use bounded::Bounded;
pub use fair_map::EntryOrigin;
pub use prefix::Prefix;
