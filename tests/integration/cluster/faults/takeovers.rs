//! The time that takeovers take: from the death of a node to the announcement of what was delivered to its accounts just after.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::super::super::faults::ledger::Delivered;
use super::books::Books;
use super::outages::{Outage, Outages, Part};

/// Bound on the takeover of a dead node's accounts: docs/cluster.md.
const BOUND: Duration = Duration::from_secs(15);

/// The pace at the mail server, 50 sessions a second in all, for a hundred accounts.
const PACE: Duration = Duration::from_secs(2);

/// What a busy machine adds.
const BUSY: Duration = Duration::from_secs(5);

/// After the database was away, each node has a whole lease to renew.
const AFTER_DATABASE: Duration = Duration::from_secs(9);

/// After a way to the mail server broke, watches begin again.
const AFTER_MAIL: Duration = Duration::from_secs(3);

/// A node that cannot work for its accounts any more, and the mail for some of them.
struct Takeover {
    name: &'static str,
    node: String,
    began: Instant,
    probes: Vec<Delivered>,
}

/// All takeovers of a run.
#[derive(Default)]
pub(super) struct Takeovers(Mutex<Vec<Takeover>>);

/// Time of a takeover.
#[derive(Debug)]
pub(super) struct TakeoverTime {
    name: &'static str,
    node: String,
    accounts: usize,
    took: Duration,
    /// The part of it in which other faults, or what follows them, held it up.
    excused: Duration,
}

impl TakeoverTime {
    pub(super) fn is_late(&self) -> bool {
        self.took - self.excused > BOUND + PACE + BUSY
    }
}

impl Takeovers {
    /// A fault of this name began, and then this was delivered to accounts that the node owned.
    pub(super) fn add(
        &self,
        name: &'static str,
        node: &str,
        began: Instant,
        probes: Vec<Delivered>,
    ) {
        let takeover = Takeover { name, node: node.to_owned(), began, probes };
        self.0.lock().unwrap().push(takeover);
    }

    /// The times of all. A message that is not announced counts as announced now.
    pub(super) fn times(&self, books: &Books, outages: &Outages) -> Vec<TakeoverTime> {
        let (accepted, now) = (books.accepted(), Instant::now());
        let announced = |probe: &Delivered| {
            let tokens = &books.accounts[probe.account].tokens;
            let first = |token: &String| {
                let posts = accepted.iter().filter(|post| post.token == *token);
                posts.map(|post| post.at).filter(|at| *at >= probe.at).min().unwrap_or(now)
            };
            tokens.iter().map(first).max().unwrap_or(now)
        };
        let time = |takeover: &Takeover| {
            let end = takeover.probes.iter().map(announced).max().unwrap_or(takeover.began);
            TakeoverTime {
                name: takeover.name,
                node: takeover.node.clone(),
                accounts: takeover.probes.len(),
                took: end - takeover.began,
                excused: excused(takeover, end, outages),
            }
        };
        self.0.lock().unwrap().iter().map(time).collect()
    }
}

/// For how much of the takeover other faults lasted, each with what follows it. Another node that fails meanwhile may be the one
/// that had taken over.
fn excused(takeover: &Takeover, end: Instant, outages: &Outages) -> Duration {
    let is_itself = |outage: &Outage| {
        let apart = outage.from.max(takeover.began) - outage.from.min(takeover.began);
        outage.part == Part::Node(takeover.node.clone()) && apart < Duration::from_millis(500)
    };
    let mut times: Vec<(Instant, Instant)> = outages
        .all()
        .iter()
        .filter(|outage| !is_itself(outage))
        .map(|outage| {
            let after = match outage.part {
                Part::Node(_) => BOUND,
                Part::Database => AFTER_DATABASE,
                Part::Mail(_) => AFTER_MAIL,
            };
            (outage.from, outage.to.map_or(end, |to| to + after))
        })
        .collect();
    times.sort_unstable();
    let (mut excused, mut at) = (Duration::ZERO, takeover.began);
    for (from, to) in times {
        excused += to.min(end).saturating_duration_since(from.max(at));
        at = at.max(to);
    }
    excused
}

/// The lines of a report.
pub(super) fn table(times: &[TakeoverTime]) -> String {
    let mut lines = String::new();
    for time in times {
        let TakeoverTime { name, node, accounts, took, excused } = time;
        writeln!(
            lines,
            "| {name} ({node}, {accounts} accounts): all announced after | {:>4.1} s, {:.1} s of them held up by other faults |",
            took.as_secs_f32(),
            excused.as_secs_f32()
        )
        .unwrap();
    }
    lines
}
