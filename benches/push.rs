//! The delay of a push after mail was delivered: a real Dovecot that is watched, with and without NOTIFY (RFC 5465), or tells of its
//! deliveries; the real program, a notification server on loopback.
//!
//! deltapush's own share is told apart by a relay between it and Dovecot, which notes when each byte passes: from the
//! arrival of the EXISTS line to the POST's first byte, less the time in which Dovecot had the word. The relay's own
//! wake-ups and what is written to disk meanwhile are part of it.
//!
//! `cargo bench --bench push` makes 200 deliveries each; `-- --short` a few, as does `cargo test --bench push`. The exit code is
//! 1 if a push is missing, and does not depend on times.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

// Cargo compiles benchmarks as tests, and the test lints are the right ones for what only measures.
#[cfg(test)]
#[path = "push/measure.rs"]
mod measure;
#[cfg(test)]
#[path = "common/notifications.rs"]
mod notifications;
#[cfg(test)]
#[path = "push/relay.rs"]
mod relay;
#[cfg(test)]
#[path = "../tests/integration/support/mod.rs"]
#[expect(dead_code, reason = "it is made for the integration tests, which need more of it")]
mod support;

use std::env;
use std::process::ExitCode;

/// Deliveries for a figure that means something, and to see that the benchmark works.
const DELIVERIES: usize = 200;
const SHORT: usize = 5;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    // Cargo says `--bench` for `cargo bench` only.
    let deliveries = if has("--bench") && !has("--short") { DELIVERIES } else { SHORT };
    match measure::all(deliveries).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
