//! The Python environment that scripts/test makes, and programs from it.

use std::path::PathBuf;
use std::process::Command;

/// A program of the environment: `python`, `deltachat-rpc-server`.
pub(crate) fn program(name: &str) -> Command {
    let path = root().join(".venv/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test once, it makes the Python environment",
        path.display()
    );
    Command::new(path)
}

/// Python, about to run one of the scripts in `tests/integration/python`.
pub(crate) fn script(name: &str) -> Command {
    let mut command = program("python");
    command.arg(root().join("tests/integration/python").join(name));
    command
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
