//! Several nodes with one PostgreSQL: how long until all accounts are watched, what memory an account takes, how long the takeover
//! of a killed node takes, what the database does while nothing happens and for a message, and what it adds to the way from the
//! mail server to the POST, beside one node with SQLite in the same run.
//!
//! The mail server is a simulated one in this process; the nodes are the real program, the database is Debian's, all on this
//! machine.
//!
//! `cargo bench --bench cluster` takes 3 nodes and 9,000 accounts; `-- --nodes 5 --accounts 15000` takes others: this process
//! needs an open file for each account; `-- --short` takes a few hundred accounts, as does `cargo test --bench cluster`. The exit code is
//! 1 if an account is not watched or a message not announced in the end.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

// Cargo compiles benchmarks as tests, and the test lints are the right ones for what only measures.
#[cfg(test)]
#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other benchmarks need more of it")]
mod common;
#[cfg(test)]
#[path = "cluster/measure.rs"]
mod measure;
#[cfg(test)]
#[path = "cluster/nodes.rs"]
mod nodes;
#[cfg(test)]
#[path = "common/notifications.rs"]
mod notifications;
#[cfg(test)]
#[path = "../tests/integration/support/mod.rs"]
#[expect(dead_code, reason = "it is made for the integration tests, which need more of it")]
mod support;

use std::env;
use std::process::ExitCode;

/// The size of a run.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    accounts: usize,
    /// Messages whose way is measured, one after the other.
    messages: usize,
    /// Seconds in which nothing happens.
    idle: u64,
}

const LONG: Size = Size { nodes: 3, accounts: 9_000, messages: 200, idle: 60 };
const SHORT: Size = Size { nodes: 3, accounts: 150, messages: 20, idle: 5 };

fn size(arguments: &[String]) -> Size {
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    let number = |wanted: &str| {
        let place = arguments.iter().position(|argument| argument == wanted)?;
        arguments.get(place + 1)?.parse().ok()
    };
    // Cargo says `--bench` for `cargo bench` only.
    let size = if has("--bench") && !has("--short") { LONG } else { SHORT };
    Size {
        nodes: number("--nodes").unwrap_or(size.nodes),
        accounts: number("--accounts").unwrap_or(size.accounts),
        ..size
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    match measure::all(size(&arguments)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
