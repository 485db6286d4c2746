//! A family on its first evening.

mod family;
