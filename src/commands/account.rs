//! `deltapush account NAME`: the recent history of an account, and the actions on it.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{Unfulfilled, progress};
use crate::admin::control;
use crate::admin::format::{counted, tame};
use crate::admin::layout::Layout;
use crate::admin::question::{AccountName, ControlQuestion};
use crate::admin::table;
use crate::admin::timeline::AccountHistory;
use crate::config::Config;

/// Arguments of `deltapush account`.
#[derive(Debug, Clone, Args)]
pub struct AccountArguments {
    /// Login name of the account, as `deltapush status` shows it
    #[arg(value_name = "NAME")]
    name: String,
    /// Mail server, if the login name exists on several of them (or write NAME@SERVER)
    #[arg(long, value_name = "HOST[:PORT]", global = true)]
    server: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<AccountCommand>,
}

#[derive(Debug, Clone, Subcommand)]
enum AccountCommand {
    /// Erase the account: its tokens, stored credentials, watch and history
    Forget {
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Restart the watch now, also after a refused login or while it waits for its next attempt
    Rewatch,
}

/// Shows the account, or executes the action.
///
/// # Errors
/// [`control::AskError`] if no deltapush answers; [`Unfulfilled`] if the action did not succeed.
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
    let text = if json {
        answer + "\n"
    } else {
        table::account(&history(&answer)?, Layout::of_terminal())
    };
    super::print(&text)
}

fn forget(config: &Config, named: &AccountName, yes: bool) -> anyhow::Result<()> {
    // Exactly the one that was asked about is forgotten, not another that comes meanwhile.
    let account = history(&answer(config, &ControlQuestion::Account(named.clone()))?)?.account;
    let exactly = AccountName { name: account.name.clone(), server: Some(account.server.clone()) };
    if !yes {
        if !io::stdin().is_terminal() {
            let words =
                "nothing was erased: there is no terminal to confirm on; confirm with --yes";
            return Err(Unfulfilled(words.into()).into());
        }
        let devices = account.devices.len();
        write!(
            io::stderr(),
            "{} at {}: {} will get no push until the next login. Erase it? [y/N] ",
            tame(&account.name),
            tame(&account.server),
            counted(devices as u64, "device")
        )
        .context("cannot ask")?;
        let mut said = String::new();
        io::stdin().read_line(&mut said).context("cannot read the answer")?;
        if !matches!(said.trim().to_lowercase().as_str(), "y" | "yes") {
            return Err(Unfulfilled("nothing was erased".into()).into());
        }
    }
    let answer = answer(config, &ControlQuestion::Forget(exactly))?;
    super::print(&answer)
}

fn answer(config: &Config, question: &ControlQuestion) -> anyhow::Result<String> {
    let mut answer = String::new();
    control::ask(&config.startup.storage.directory, question)?
        .read_to_string(&mut answer)
        .context("the answer of deltapush is incomplete")?;
    Ok(answer)
}

fn history(answer: &str) -> anyhow::Result<AccountHistory> {
    serde_json::from_str(answer)
        .context("cannot read the answer: the running deltapush is of another version")
}
