//! The cost of a large message that passes: throughput, and growth of memory.
//!
//! A message goes from upstream to client (FETCH) and back (APPEND), TLS on both sides, through the real program. The same
//! is done with the least that could stand in its place, a program that copies bytes from one TLS connection to another.
//!
//! Then, what an idle session takes, with compression and without (docs/performance.md).
//!
//! `cargo bench --bench relay` takes the largest message that a big provider accepts, and a thousand sessions of each kind;
//! `-- --short` less of both, as does `cargo test --bench relay`. The exit code is 1 if deltapush's memory grows too much.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

// Cargo compiles benchmarks as tests, and the test lints are the right ones for what only measures.
#[cfg(test)]
#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other benchmarks need more of it")]
mod common;
#[cfg(test)]
#[path = "relay/idle.rs"]
mod idle;
#[cfg(test)]
#[path = "relay/measure.rs"]
mod measure;
#[cfg(test)]
#[path = "../tests/integration/support/ports.rs"]
#[expect(dead_code, reason = "it is made for the integration tests, which need more of it")]
mod ports;
#[cfg(test)]
#[path = "relay/proxy.rs"]
mod proxy;

use std::env;
use std::process::ExitCode;

use common::bare;

const MIB: u64 = 1024 * 1024;

/// The largest message that a big provider accepts (Microsoft 365).
const LARGE: u64 = 150 * MIB;
/// Enough to see whether a message is held.
const SHORT: u64 = 16 * MIB;

/// Sessions of each kind that are opened to see what one costs that says nothing: in the full form, and in the short one.
const IDLE_SESSIONS: usize = 1000;
const FEW_IDLE_SESSIONS: usize = 400;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [bare::COMMAND, folder, port, upstream] => bare::run(folder, port, upstream).map(|()| true),
        // Cargo says `--bench` for `cargo bench` only.
        arguments => {
            let is_full = arguments.contains(&"--bench") && !arguments.contains(&"--short");
            let (size, sessions) =
                if is_full { (LARGE, IDLE_SESSIONS) } else { (SHORT, FEW_IDLE_SESSIONS) };
            measure::all(size, sessions)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
