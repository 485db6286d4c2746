//! The extent of the measurement, and its candidates.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

use super::candidate::{Entrant, Kind};

/// deltapush compared with the proxies that people would use instead.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub(crate) struct Options {
    /// Less of everything: within three minutes
    #[arg(long)]
    short: bool,
    /// Only figures whose name contains one of these words, as in `--only noop,login`
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    only: Vec<String>,
    /// Only these programs besides deltapush, as in `--beside bytes,haproxy`; default: all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    beside: Option<Vec<Kind>>,
    /// Another build of deltapush next to this one, as in `--also before=target/before/deltapush`
    #[arg(long, value_name = "NAME=FILE")]
    also: Vec<Build>,
    /// Put the result into docs/performance.md
    #[arg(long)]
    pub(crate) write: bool,
    /// Rounds; the median counts
    #[arg(long)]
    rounds: Option<usize>,
    /// Said by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A build of deltapush.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
}

impl std::str::FromStr for Build {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, file) = text.split_once('=').context("it is NAME=FILE")?;
        Ok(Self { name: name.to_owned(), file: std::path::absolute(file)? })
    }
}

/// The extent of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// For figures that mean something.
    Full,
    /// To see whether a change is worth a full run.
    Short,
    /// To see that the benchmark works.
    Shortest,
}

impl Options {
    pub(crate) fn extent(&self) -> Extent {
        match (self.short, self.bench) {
            (true, _) => Extent::Short,
            (_, true) => Extent::Full,
            _ => Extent::Shortest,
        }
    }

    pub(crate) fn wants(&self, figure: &str) -> bool {
        let figure = figure.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|word| figure.contains(&word.to_lowercase()))
    }

    /// The measured programs, deltapush first.
    pub(crate) fn entrants(&self) -> Vec<Entrant> {
        let beside = self.beside.as_deref().unwrap_or(&Kind::BESIDE);
        let kinds: Vec<Kind> = [Kind::Deltapush].iter().chain(beside).copied().collect();
        let own =
            Build { name: "deltapush".to_owned(), file: env!("CARGO_BIN_EXE_deltapush").into() };
        let builds: Vec<Build> = [own].into_iter().chain(self.also.iter().cloned()).collect();
        Entrant::all(&kinds, &builds)
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(match self.extent() {
            Extent::Full => 5,
            Extent::Short => 3,
            Extent::Shortest => 1,
        })
    }

    /// Time for which one candidate is driven in one round; at least one turn is taken.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_millis(match self.extent() {
            Extent::Full => 700,
            Extent::Short => 250,
            Extent::Shortest => 1,
        })
    }

    /// At which numbers of idle sessions memory is looked at; and how many accounts are watched, the last of them.
    pub(crate) fn crowds(&self) -> &'static [usize] {
        match self.extent() {
            Extent::Full => &[1000, 10_000],
            Extent::Short => &[1000],
            Extent::Shortest => &[20],
        }
    }

    /// Time in which nothing happens while the cost of that is measured.
    pub(crate) fn quiet_time(&self) -> Duration {
        Duration::from_millis(match self.extent() {
            Extent::Full => 5000,
            Extent::Short => 2000,
            Extent::Shortest => 100,
        })
    }

    /// Messages that are delivered to watched accounts.
    pub(crate) fn deliveries(&self) -> usize {
        match self.extent() {
            Extent::Full => 500,
            Extent::Short => 100,
            Extent::Shortest => 3,
        }
    }
}
