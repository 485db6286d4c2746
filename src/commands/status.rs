//! `deltapush status`: the status of the running server and its accounts.

use std::io::Read;

use anyhow::Context;
use clap::Args;

use crate::admin::control;
use crate::admin::layout::Layout;
use crate::admin::question::ControlQuestion;
use crate::admin::report::StatusReport;
use crate::admin::table;
use crate::config::Config;

/// Arguments of `deltapush status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArguments {
    /// Show only accounts whose name or server contains one of these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show every account in full, regardless of their number
    #[arg(long, conflicts_with = "json")]
    long: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Print nothing: exit with 0 if deltapush answers, as health checks of containers want it
    #[arg(long, conflicts_with_all = ["names", "long", "json"])]
    quiet: bool,
}

/// Asks and prints.
///
/// # Errors
/// [`control::AskError`] if no deltapush answers; else if nothing can be printed.
pub fn run(config: &Config, asked: &StatusArguments) -> anyhow::Result<()> {
    if asked.quiet {
        control::ask(&config.startup.storage.directory, &ControlQuestion::Alive)?;
        return Ok(());
    }
    let answer = ask(config, &asked.names)?;
    let text = if asked.json {
        answer + "\n"
    } else {
        table::status(&parse(&answer)?, Layout { long: asked.long, ..Layout::of_terminal() })
    };
    super::print(&text)
}

/// The status of all accounts.
///
/// # Errors
/// As [`run`].
pub(super) fn fetch(config: &Config) -> anyhow::Result<StatusReport> {
    parse(&ask(config, &[])?)
}

fn ask(config: &Config, names: &[String]) -> anyhow::Result<String> {
    let question = ControlQuestion::Status { names: names.to_vec() };
    let mut answer = String::new();
    control::ask(&config.startup.storage.directory, &question)?
        .read_to_string(&mut answer)
        .context("the answer of deltapush is incomplete")?;
    Ok(answer)
}

fn parse(answer: &str) -> anyhow::Result<StatusReport> {
    serde_json::from_str(answer)
        .context("cannot read the answer: the running deltapush is of another version")
}
