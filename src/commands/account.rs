//! `deltapush account NAME`: what happened to an account lately, and what can be done about it.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{Unfulfilled, progress};
use crate::admin::control;
use crate::admin::format::tame;
use crate::admin::question::{AccountName, ControlQuestion};
use crate::admin::table::{self, Layout};
use crate::admin::timeline::AccountHistory;
use crate::config::Config;

/// What may stand behind `deltapush account`.
#[derive(Debug, Clone, Args)]
pub struct AccountArguments {
    /// Its login name, as `deltapush status` shows it
    #[arg(value_name = "NAME")]
    name: String,
    /// Its mail server, where the same login name is on two of them (or write NAME@SERVER)
    #[arg(long, value_name = "HOST[:PORT]", global = true)]
    server: Option<String>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<AccountCommand>,
}

#[derive(Debug, Clone, Subcommand)]
enum AccountCommand {
    /// Erase all that is kept of it: tokens, what it is watched with, its watch, its history
    Forget {
        /// Do not ask whether that is meant
        #[arg(long)]
        yes: bool,
    },
    /// Begin its watch anew now, also one that ended because its login was refused, or that waits for its next attempt
    Rewatch,
}

/// Asks, and does what is wanted.
///
/// # Errors
/// [`control::AskError`] if no deltapush answers; [`Unfulfilled`] if it did not come about.
pub fn run(config: &Config, asked: &AccountArguments) -> anyhow::Result<()> {
    let named = AccountName { name: asked.name.clone(), server: asked.server.clone() };
    match asked.action {
        None => show(config, &named, asked.json),
        Some(AccountCommand::Forget { yes }) => forget(config, &named, yes),
        Some(AccountCommand::Rewatch) => progress::follow(config, &ControlQuestion::Rewatch(named)),
    }
}

fn show(config: &Config, named: &AccountName, json: bool) -> anyhow::Result<()> {
    let answer = answer(config, &ControlQuestion::Account(named.clone()))?;
    let text = if json { answer + "\n" } else { table::account(&history(&answer)?, Layout::of_terminal()) };
    io::stdout().write_all(text.as_bytes()).context("cannot print")
}

fn forget(config: &Config, named: &AccountName, yes: bool) -> anyhow::Result<()> {
    // Exactly the one that was asked about is forgotten, not another that comes meanwhile.
    let account = history(&answer(config, &ControlQuestion::Account(named.clone()))?)?.account;
    let exactly = AccountName { name: account.name.clone(), server: Some(account.server.clone()) };
    if !yes {
        if !io::stdin().is_terminal() {
            let words = "nothing is forgotten without being asked: say --yes where nobody can answer";
            return Err(Unfulfilled(words.into()).into());
        }
        let devices = account.devices.len();
        write!(
            io::stderr(),
            "{} at {}: {devices} devices will get no push until they log in again. Forget it? [y/N] ",
            tame(&account.name),
            tame(&account.server)
        )
        .context("cannot ask")?;
        let mut said = String::new();
        io::stdin().read_line(&mut said).context("cannot read the answer")?;
        if !matches!(said.trim().to_lowercase().as_str(), "y" | "yes") {
            return Err(Unfulfilled("nothing is forgotten".into()).into());
        }
    }
    let answer = answer(config, &ControlQuestion::Forget(exactly))?;
    io::stdout().write_all(answer.as_bytes()).context("cannot print")
}

fn answer(config: &Config, question: &ControlQuestion) -> anyhow::Result<String> {
    let mut answer = String::new();
    control::ask(&config.storage.directory, question)?.read_to_string(&mut answer).context("the answer broke off")?;
    Ok(answer)
}

fn history(answer: &str) -> anyhow::Result<AccountHistory> {
    serde_json::from_str(answer).context("the answer is of another version's deltapush")
}
