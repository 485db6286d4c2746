//! Admission control: connection slots and limits on login attempts, so that one peer cannot use up what all share.
//! Sans-IO: addresses and time in, decisions out.
//!
//! [`slot_table`]: connection slots. [`failed_logins`]: limits on login attempts; [`known`] is what they recognize after a
//! restart. [`connection_slots`] and [`login_limiter`] are their async sides, for tasks.

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

pub use fair_map::EntryOrigin;
pub use prefix::Prefix;
