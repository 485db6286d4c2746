//! A background fetch of Delta Chat's, from LOGIN to the first message: directly at a real Dovecot, and through the real program in
//! the modes `sealed` (deltapush logs in for it) and `none` (it gets a kept session back). TLS on all connections.
//!
//! Distances are made by relays that hold back what passes: from the phone to the server that it enters, and from deltapush to
//! the mail server.
//!
//! `cargo bench --bench login` makes 50 fetches each; `-- --short` a few, as does `cargo test --bench login`. The exit code is 1
//! if a fetch fails or does not go the way that it is to measure, and does not depend on times.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

// Cargo compiles benchmarks as tests, and the test lints are the right ones for what only measures.
#[cfg(test)]
#[path = "login/distance.rs"]
mod distance;
#[cfg(test)]
#[path = "login/measure.rs"]
mod measure;
#[cfg(test)]
#[path = "../tests/integration/support/mod.rs"]
#[expect(dead_code, reason = "it is made for the integration tests, which need more of it")]
mod support;

use std::env;
use std::process::ExitCode;

/// Fetches for a figure that means something, and to see that the benchmark works.
const FETCHES: usize = 50;
const SHORT: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    // Cargo says `--bench` for `cargo bench` only.
    let is_long = has("--bench") && !has("--short");
    match measure::all(if is_long { FETCHES } else { SHORT }, is_long).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
