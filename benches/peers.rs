//! deltapush compared with the proxies that people would use instead: nginx (stream, mail), HAProxy, stunnel, Dovecot's
//! login proxy, and the least that could stand in its place, a program that copies bytes from one TLS connection to another.
//!
//! All stand between one load generator (this process) and one mail server that costs little (a process of its own), on
//! loopback, TLS on both sides (nginx mail: to the client only), and are driven in turns. Figures and results:
//! docs/performance.md.
//!
//! `cargo bench --bench peers` takes up to 20 minutes, `-- --short` up to 3; `cargo test --bench peers` only shows that all of
//! it works. The exit code does not depend on times. `-- --help` says what else there is.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

// Cargo compiles benchmarks as tests, and the test lints are the right ones for what only measures.
#[cfg(test)]
#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other benchmarks need more of it")]
mod common;
#[cfg(test)]
#[path = "common/notifications.rs"]
mod notifications;
#[cfg(test)]
#[path = "peers/mod.rs"]
mod peers;
#[cfg(test)]
#[path = "common/program.rs"]
mod program;
#[cfg(test)]
#[path = "../tests/integration/support/mod.rs"]
#[expect(dead_code, reason = "it is made for the integration tests, which need more of it")]
mod support;

use std::env;
use std::process::ExitCode;

use clap::Parser as _;
use common::bare;
use peers::{measure, options::Options, upstream};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [bare::COMMAND, folder, port, upstream] => bare::run(folder, port, upstream),
        [upstream::COMMAND, folder, ports @ ..] => upstream::run(folder, ports),
        _ => measure::all(&Options::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
