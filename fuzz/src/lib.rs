//! What must hold for any bytes whatever: a function for each part of deltapush that reads what comes from outside. A violated
//! property is a panic.
//!
//! The fuzz targets call them with what the fuzzer makes up; `tests/corpora.rs` of the package beside includes this file and
//! calls them with what is kept in `corpus/` and `regressions/`, so that the ordinary tests need no fuzzer.

mod capability;
mod command;
mod compression;
mod config;
mod dialogue;
mod events;
mod framer;
mod id;
mod idle;
mod metadata;
mod preauth;
mod redaction;
mod response;
mod sasl;
mod session;

/// A property of all inputs.
pub type Property = fn(&[u8]);

/// All of them, by the name of their target.
pub const TARGETS: [(&str, Property); 14] = [
    ("framer", framer::check),
    ("command", command::check),
    ("response", response::check),
    ("capability", capability::check),
    ("metadata", metadata::check),
    ("session", session::check),
    ("redaction", redaction::check),
    ("preauth", preauth::check),
    ("dialogue", dialogue::check),
    ("idle", idle::check),
    ("config", config::check),
    ("sasl", sasl::check),
    ("id", id::check),
    ("compression", compression::check),
];

/// Checks the property of this name.
///
/// # Panics
/// If it does not hold for `data`, or there is none of this name.
pub fn check(target: &str, data: &[u8]) {
    let (_, property) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of that name");
    property(data);
}
