//! Several nodes with one PostgreSQL: how long until all accounts are watched, what memory an account takes, what the database
//! does while nothing happens and for a message, what it adds to the way from the mail server to the POST, beside one node with
//! SQLite in the same run, and how long the takeover of a killed node takes.
//!
//! The mail servers are simulated ones, in processes of their own, since a process may open a limited number of files; TLS on all
//! connections to them. The nodes are the real program, the database is Debian's, all on this machine.
//!
//! `cargo bench --bench cluster` takes 3 nodes and 9,000 accounts, `-- --nodes 6 --accounts 90000` others, `-- --short` a few
//! hundred, as does `cargo test --bench cluster`; `-- --help` says what else there is. The exit code is 1 if an account is not
//! watched or a message not announced in the end.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

// Cargo compiles benchmarks as tests, and the test lints are the right ones for what only measures.
#[cfg(test)]
#[path = "cluster/mod.rs"]
mod cluster;
#[cfg(test)]
#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other benchmarks need more of it")]
mod common;
#[cfg(test)]
#[path = "common/notifications.rs"]
mod notifications;
#[cfg(test)]
#[path = "../tests/integration/support/mod.rs"]
#[expect(dead_code, reason = "it is made for the integration tests, which need more of it")]
mod support;

use std::env;
use std::process::ExitCode;

use clap::Parser as _;
use cluster::{mail_servers, measure, options::Options};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [mail_servers::COMMAND, folder, accounts] => mail_servers::run(folder, accounts),
        _ => measure::all(&Options::parse()).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
