//! The faults of a run, with their times.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The part that a fault concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A node, or its way to the database.
    Node(String),
    /// The database, for all nodes.
    Database,
    /// A node's way to the mail server.
    Mail(String),
}

/// A fault.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) name: &'static str,
    pub(super) part: Part,
    pub(super) from: Instant,
    /// None while it lasts.
    pub(super) to: Option<Instant>,
}

impl Outage {
    /// Reports if it was there at any time between these, `slack` more or less.
    pub(super) fn meets(&self, from: Instant, to: Instant, slack: Duration) -> bool {
        self.from <= to + slack && self.to.is_none_or(|end| end + slack >= from)
    }
}

/// All faults of a run.
#[derive(Default)]
pub(super) struct Outages(Mutex<Vec<Outage>>);

impl Outages {
    /// One begins. Returns its number.
    pub(super) fn begin(&self, name: &'static str, part: Part) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push(Outage { name, part, from: Instant::now(), to: None });
        all.len() - 1
    }

    pub(super) fn end(&self, number: usize) {
        self.0.lock().unwrap()[number].to = Some(Instant::now());
    }

    pub(super) fn all(&self) -> Vec<Outage> {
        self.0.lock().unwrap().clone()
    }
}

impl fmt::Display for Outages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all();
        let Some(first) = all.iter().map(|outage| outage.from).min() else { return Ok(()) };
        let at = |time: Instant| (time - first).as_secs_f32();
        for Outage { name, part, from, to } in &all {
            writeln!(f, "{:>7.2} – {:>7.2} {part:?}: {name}", at(*from), at(to.unwrap_or(*from)))?;
        }
        Ok(())
    }
}
