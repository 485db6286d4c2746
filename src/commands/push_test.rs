//! `deltapush push-test NAME`: tests whether pushes wake the account's devices.

use std::time::Duration;

use clap::Args;

use super::progress;
use crate::admin::question::{AccountName, ControlQuestion, LONGEST_WAIT};
use crate::config::Config;

/// The wait where none is given: that of the argument's default.
const USUAL_WAIT: Duration = Duration::from_secs(120);

/// Arguments of `deltapush push-test`.
#[derive(Debug, Clone, Args)]
pub struct PushTestArguments {
    /// Login name of the account, as `deltapush status` shows it
    #[arg(value_name = "NAME")]
    name: String,
    /// Mail server, if the login name exists on several of them (or write NAME@SERVER)
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<String>,
    /// Wake only this device: the short hash of its token, or its first characters
    #[arg(long, value_name = "HASH")]
    device: Option<String>,
    /// Time to wait until the devices connect, 10m at most; Ctrl-C ends the wait
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = waiting_time)]
    wait: Duration,
}

impl PushTestArguments {
    /// All devices of an account, with the usual wait.
    pub(super) fn of(name: &str) -> Self {
        Self { name: name.to_owned(), server: None, device: None, wait: USUAL_WAIT }
    }
}

fn waiting_time(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|_| "write it as 90s or 2m")?;
    if wait > LONGEST_WAIT { Err("10m at most".into()) } else { Ok(wait) }
}

/// Wakes and waits.
///
/// # Errors
/// [`AskError`](crate::admin::control::AskError) if no deltapush answers; [`Unfulfilled`](super::Unfulfilled) if a device did not
/// connect.
pub fn run(config: &Config, asked: &PushTestArguments) -> anyhow::Result<()> {
    let account = AccountName { name: asked.name.clone(), server: asked.server.clone() };
    let (device, seconds) = (asked.device.clone(), asked.wait.as_secs());
    progress::follow(config, &ControlQuestion::PushTest { account, device, seconds })
}
