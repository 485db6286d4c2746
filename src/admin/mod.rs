//! What a running deltapush tells its operator.

pub mod answers;
pub mod control;
pub mod question;
pub mod status;
mod trace;
