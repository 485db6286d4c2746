//! Prints the progress of a long action line by line.

use std::io::{BufRead, BufReader};

use anyhow::Context;

use super::Unfulfilled;
use crate::admin::control;
use crate::admin::format::tame;
use crate::admin::question::{ControlQuestion, TaskProgress};
use crate::config::Config;

/// Sends the request and prints the progress until the outcome is known.
///
/// # Errors
/// [`control::AskError`] if no deltapush answers; [`Unfulfilled`] if the action did not succeed.
pub fn follow(config: &Config, question: &ControlQuestion) -> anyhow::Result<()> {
    let answer = BufReader::new(control::ask(&config.startup.storage.directory, question)?);
    for line in answer.lines() {
        let line = line.context("the answer of deltapush is incomplete")?;
        let progress: TaskProgress = serde_json::from_str(&line)
            .context("cannot read the answer: the running deltapush is of another version")?;
        match progress.done {
            Some(false) => return Err(Unfulfilled(tame(&progress.words)).into()),
            _ => super::print(&(tame(&progress.words) + "\n"))?,
        }
        if progress.done.is_some() {
            return Ok(());
        }
    }
    Err(Unfulfilled("deltapush ended before the action was complete".into()).into())
}
