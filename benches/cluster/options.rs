//! The extent of the measurement.

use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::RangedU64ValueParser;

/// Several nodes with one PostgreSQL, and what they take.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
pub(crate) struct Options {
    /// Nodes, two at least; default: 3
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(2..=20))]
    nodes: Option<usize>,
    /// Accounts; default: 9000, 150 in a short run
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    accounts: Option<usize>,
    /// Messages whose way is measured, one after the other; default: 200, 20 in a short run
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    messages: Option<usize>,
    /// Seconds in which nothing happens; default: 60, 5 in a short run
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    idle: Option<u64>,
    /// Another deltapush, whose tables are the same
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Less of everything
    #[arg(long)]
    short: bool,
    /// Said by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.unwrap_or(3)
    }

    pub(crate) fn accounts(&self) -> usize {
        self.accounts.unwrap_or(if self.is_short() { 150 } else { 9000 })
    }

    /// The accounts of a node, about.
    pub(crate) fn share(&self) -> usize {
        self.accounts().div_ceil(self.nodes())
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages.unwrap_or(if self.is_short() { 20 } else { 200 })
    }

    pub(crate) fn idle(&self) -> u64 {
        self.idle.unwrap_or(if self.is_short() { 5 } else { 60 })
    }

    pub(crate) fn program(&self) -> &Path {
        self.program.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_deltapush")))
    }

    fn is_short(&self) -> bool {
        self.short || !self.bench
    }
}
