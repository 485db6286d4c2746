//! Ten thousand accounts at one mail server, and everything starts over: how long until all are watched, how hard the server is
//! asked meanwhile, what memory it takes.
//!
//! The server is a simulated one in this process, deltapush the real program with a state made beforehand. It is started, it
//! is killed and started again, and all its connections are cut at once; while they are away every tenth account receives a
//! message, which must be announced.
//!
//! The same number of accounts of which the mail server tells (`news: server`): their memory, and a hundred messages a second while
//! deltapush has one core.
//!
//! `cargo bench --bench restart` takes 10,000 accounts, `-- --tls` puts TLS between; `-- --short` takes a few hundred, as does
//! `cargo test --bench restart`; `-- --news` takes the second part alone. The exit code is 1 if an account is not watched or a message not announced in the end.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

// Cargo compiles benchmarks as tests, and the test lints are the right ones for what only measures.
#[cfg(test)]
#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other benchmarks need more of it")]
mod common;
#[cfg(test)]
#[path = "restart/measure.rs"]
mod measure;
#[cfg(test)]
#[path = "restart/news.rs"]
mod news;
#[cfg(test)]
#[path = "common/program.rs"]
mod program;
#[cfg(test)]
#[path = "../tests/integration/support/mod.rs"]
#[expect(dead_code, reason = "it is made for the integration tests, which need more of it")]
mod support;

use std::env;
use std::process::ExitCode;

const ACCOUNTS: usize = 10_000;
const SHORT: usize = 300;

/// Time in which the mail server tells at a steady pace, in seconds.
const LONG_TIME: usize = 60;
const SHORT_TIME: usize = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    // Cargo says `--bench` for `cargo bench` only.
    let is_long = has("--bench") && !has("--short");
    let accounts = if is_long { ACCOUNTS } else { SHORT };
    let measured = async {
        if !has("--news") {
            measure::all(accounts, has("--tls")).await?;
        }
        news::all(accounts, if is_long { LONG_TIME } else { SHORT_TIME }).await
    };
    match measured.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
