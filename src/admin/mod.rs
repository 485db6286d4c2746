//! What a running deltapush tells its operator.

pub mod control;
pub mod status;
