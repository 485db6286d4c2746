//! The words of the program, as snapshots: a change of them is seen in review, and all of them can be read in one place.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test --test outputs`, then read `git diff tests/outputs`.
#![expect(clippy::unwrap_used, reason = "a program that cannot be started ends the test")]

mod checks;
mod errors;
mod help;
#[expect(dead_code, reason = "commands wait for no server")]
#[path = "../integration/support/ports.rs"]
mod ports;

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// An empty folder, in which commands run.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With this configuration.
    fn with(config: &str) -> Self {
        let folder = Self::new();
        folder.write("config.yaml", config);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// The command line, its outputs and its exit code. The folder is called FOLDER.
    fn run(&self, arguments: &[&str]) -> String {
        self.run_with(&[], arguments)
    }

    /// The same with variables of the environment.
    fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null()).env_clear();
        let output = command.env("TZ", "UTC").envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(self.path().to_str().unwrap(), "FOLDER")
        };
        let (printed, errors) = (text(&output.stdout), text(&output.stderr));
        let code = output.status.code().unwrap();
        let variables: String =
            variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        format!(
            "$ {variables}deltapush {}\n{printed}{errors}[exit code {code}]\n",
            arguments.join(" ")
        )
    }
}
