//! The time until others work for a node's accounts: up to the announcement of what was delivered to them meanwhile.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::super::super::faults::ledger::Delivered;
use super::super::super::faults::notifications::Accepted;
use super::books::Books;

/// Bound on the takeover of a dead node's accounts: 15 s (docs/cluster.md), and the pace at the mail server, 50 sessions a second
/// in all, for a hundred accounts.
pub(super) const TAKEN_OVER: Duration = Duration::from_secs(17);

/// Bound on the announcement of a message while accounts move without a gap: what a busy machine takes at any time.
pub(super) const ANNOUNCED: Duration = Duration::from_secs(5);

/// The instant from which a takeover is timed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// The end of the node: it announces nothing any more.
    At(Instant),
    /// The arrival of each message: there is no gap.
    WithEach,
}

/// A change of owner, and the mail for some of the accounts.
struct Takeover {
    name: &'static str,
    node: String,
    begin: Begin,
    probes: Vec<Delivered>,
    /// None in the storm, where other faults hold it up.
    bound: Option<Duration>,
}

/// All takeovers of a run.
#[derive(Default)]
pub(super) struct Takeovers(Mutex<Vec<Takeover>>);

/// Time of a takeover.
#[derive(Debug)]
pub(super) struct TakeoverTime {
    name: &'static str,
    node: String,
    messages: usize,
    took: Duration,
    bound: Option<Duration>,
}

impl TakeoverTime {
    pub(super) fn is_late(&self) -> bool {
        self.bound.is_some_and(|bound| self.took > bound)
    }
}

impl Takeover {
    /// The time that it took. A message that is not announced counts as announced now.
    fn time(&self, books: &Books, accepted: &[Accepted], now: Instant) -> Duration {
        let took = |probe: &Delivered| {
            let at = self.announced(probe, books, accepted).unwrap_or(now);
            at.saturating_duration_since(match self.begin {
                Begin::At(began) => began,
                Begin::WithEach => probe.at,
            })
        };
        self.probes.iter().map(took).max().unwrap_or_default()
    }

    /// The time at which all devices of an account were told of a message, by another node than the one that has ended.
    fn announced(
        &self,
        probe: &Delivered,
        books: &Books,
        accepted: &[Accepted],
    ) -> Option<Instant> {
        let is_by_other = |post: &&Accepted| match self.begin {
            Begin::At(_) => post.from != self.node,
            Begin::WithEach => true,
        };
        let tokens = books.accounts[probe.account].tokens.iter();
        let first = |token: &String| {
            let posts = accepted.iter().filter(|post| post.token == *token).filter(is_by_other);
            posts.map(|post| post.at).filter(|at| *at >= probe.at).min()
        };
        tokens.map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

impl Takeovers {
    pub(super) fn add(
        &self,
        name: &'static str,
        node: &str,
        begin: Begin,
        probes: Vec<Delivered>,
        bound: Option<Duration>,
    ) {
        let takeover = Takeover { name, node: node.to_owned(), begin, probes, bound };
        self.0.lock().unwrap().push(takeover);
    }

    /// Reports if all messages of those with a bound are announced.
    pub(super) fn are_over(&self, books: &Books) -> bool {
        let accepted = books.accepted();
        let all = self.0.lock().unwrap();
        all.iter().filter(|takeover| takeover.bound.is_some()).all(|takeover| {
            let mut probes = takeover.probes.iter();
            probes.all(|probe| takeover.announced(probe, books, &accepted).is_some())
        })
    }

    pub(super) fn times(&self, books: &Books) -> Vec<TakeoverTime> {
        let (accepted, now) = (books.accepted(), Instant::now());
        let time = |takeover: &Takeover| TakeoverTime {
            name: takeover.name,
            node: takeover.node.clone(),
            messages: takeover.probes.len(),
            took: takeover.time(books, &accepted, now),
            bound: takeover.bound,
        };
        self.0.lock().unwrap().iter().map(time).collect()
    }
}

/// The lines of a report.
pub(super) fn table(times: &[TakeoverTime]) -> String {
    let mut lines = String::new();
    for TakeoverTime { name, node, messages, took, bound } in times {
        let bound = bound.map_or_else(
            || "in the storm".to_owned(),
            |bound| format!("calm, {} s at most", bound.as_secs()),
        );
        let took = took.as_secs_f32();
        writeln!(lines, "| {name} ({node}, {messages} messages; {bound}) | {took:>4.1} s |")
            .unwrap();
    }
    lines
}
