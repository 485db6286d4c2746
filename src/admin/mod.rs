//! What a running deltapush tells its operator.

pub mod answers;
pub mod clock;
pub mod control;
mod explanation;
mod fetching;
mod names;
mod orders;
pub mod question;
pub mod report;
pub mod status;
pub mod table;
pub mod timeline;
mod trace;
pub mod words;
