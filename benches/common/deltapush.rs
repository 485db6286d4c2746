//! The real program as a process that outlives nobody: it is killed when this value, or this program, ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::process::Process;

/// The program with the configuration `config.yaml` of a folder.
pub(crate) struct Deltapush {
    program: PathBuf,
    folder: PathBuf,
    child: Option<Child>,
}

impl Deltapush {
    /// The program of this build. Nothing runs yet.
    pub(crate) fn new(folder: &Path) -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_deltapush")), folder)
    }

    /// The same with another program.
    pub(crate) fn of(program: &Path, folder: &Path) -> Self {
        Self { program: program.to_owned(), folder: folder.to_owned(), child: None }
    }

    /// Starts it. The caller's thread must be the main one: the kernel kills the program at that thread's end.
    pub(crate) fn start(&mut self) -> Result<()> {
        // Also after a SIGKILL of this program.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.program);
        command.arg("--config").arg(self.folder.join("config.yaml")).arg("run");
        self.child = Some(command.stdin(Stdio::null()).spawn()?);
        Ok(())
    }

    /// Runs another of its commands to the end.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.join("config.yaml")).args(arguments);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(())
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, as an operator ends it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            Command::new("sh").args(["-c", r#"kill "$0""#, &pid]).status()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    /// Its process.
    pub(crate) fn process(&self) -> Result<Process> {
        Ok(Process::of(self.pid()?))
    }
}

impl Drop for Deltapush {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.kill();
    }
}
