//! Commands of the system that only answer, within a time limit.

use std::ffi::OsStr;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Time limit of a command that only asks.
const ASKED: Duration = Duration::from_secs(10);

/// The output of a command that succeeds.
pub(in super::super) async fn asked(program: &str, arguments: &[&str]) -> Option<String> {
    let output = run(program, arguments, ASKED).await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command.
///
/// # Errors
/// Why it cannot be run, or that it took longer than `limit`.
pub(in super::super) async fn run(
    program: &str,
    arguments: &[impl AsRef<OsStr>],
    limit: Duration,
) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    timeout(limit, command.output()).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}
