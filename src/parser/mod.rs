//! IMAP as bytes. Knows no socket, no clock and no runtime.
//!
//! [`framer`] finds where lines and literals end, whatever the chunks they come in. On top of it stand [`command`] (the few
//! commands that deltapush reads), [`sasl`] (who logs in), [`response`] (the lines that it must understand; everything else passes),
//! [`data`] (what a server says of messages and mailboxes, read with tolerance) and [`grammar`] (the same by the grammar alone),
//! [`metadata`] (RFC 5464) and [`capability`] (what is added to and stripped from a server's list). [`outgoing_command`] writes
//! commands for a server.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

pub mod capability;
pub mod command;
pub mod data;
pub mod framer;
pub mod grammar;
pub mod id;
pub mod metadata;
pub mod outgoing_command;
pub mod proxy_protocol;
pub mod quote;
pub mod reader;
pub mod response;
pub mod sasl;
pub mod syntax;
pub mod utf7;
