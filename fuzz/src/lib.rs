//! Properties that hold for any bytes: a function for each part of deltapush that reads what comes from outside. A violated
//! property is a panic.
//!
//! The fuzz targets call them with what the fuzzer makes up; `tests/corpora.rs` of the parent package includes this file and
//! calls them with what is kept in `corpus/` and `regressions/`, so that the ordinary tests need no fuzzer.

mod capability;
mod command;
mod compression;
mod config;
mod dialogue;
mod dict;
mod events;
mod framer;
mod id;
mod idle;
mod keeping;
mod metadata;
mod news;
mod preauth;
mod proxy_protocol;
mod redaction;
mod response;
mod sasl;
mod session;
mod tls;

/// A property of all inputs.
pub type Property = fn(&[u8]);

macro_rules! targets {
    ($($name:ident)*) => {
        /// All of them, by the name of their target.
        pub const TARGETS: &[(&str, Property)] = &[$((stringify!($name), $name)),*];

        $(
            /// The property of that name. A target that calls it has nothing of the others in it: libFuzzer looks through all
            /// code of a program after each execution.
            pub fn $name(data: &[u8]) {
                $name::check(data);
            }
        )*
    };
}

targets!(framer command response capability metadata session redaction preauth dialogue idle config sasl id compression proxy_protocol keeping tls news dict);

/// Checks the property of this name.
///
/// # Panics
/// If it does not hold for `data`, or there is none of this name.
pub fn check(target: &str, data: &[u8]) {
    let (_, property) =
        TARGETS.iter().find(|(name, _)| *name == target).expect("a target of that name");
    property(data);
}
