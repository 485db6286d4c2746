//! What the commands beside `run` do, and what they say of it.

pub mod route;
pub mod state;
pub mod trace;
