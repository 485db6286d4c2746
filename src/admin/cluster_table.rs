//! Renders the nodes that share the state as text for a terminal: problems first.

use std::fmt::Write;

use jiff::Timestamp;

use super::cluster_report::{ClusterReport, NodeReport};
use super::format::{ago, brief, counted, delay, tame};
use super::layout::Layout;

const HEADER: [&str; 12] = [
    "NODE",
    "STATE",
    "SLOTS",
    "ACCOUNTS",
    "WATCHED",
    "PROBLEMS",
    "CLIENTS",
    "LEASE AGE",
    "LOG LAG",
    "DATABASE",
    "WORST",
    "UP",
];

/// Problems, a sentence each.
pub(super) fn push_problems(text: &mut String, report: &ClusterReport) {
    for problem in report.problems() {
        let _ = writeln!(text, "{}", tame(&problem.words));
    }
}

/// The table of nodes.
pub(super) fn nodes(report: &ClusterReport, now: Timestamp, layout: Layout) -> String {
    let nodes = counted(report.nodes.len() as u64, "node");
    let mut text = format!("{nodes}, seen from {}", tame(&report.node));
    match report.seen {
        Some(seen) => _ = writeln!(text, " {}", ago(seen, now)),
        None => text.push('\n'),
    }
    for words in report.left() {
        let _ = writeln!(text, "{}", tame(&words));
    }
    let mut table = layout.table(&HEADER);
    for node in &report.nodes {
        table.add_row(row(node, now));
    }
    let _ = writeln!(text, "{}", layout.render(table));
    let mut versions: Vec<&str> = report.nodes.iter().map(|node| node.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let of = |node: &NodeReport| format!("{} {}", tame(&node.name), tame(&node.version));
        let _ = writeln!(
            text,
            "versions differ: {}",
            report.nodes.iter().map(of).collect::<Vec<_>>().join(", ")
        );
    }
    text
}

fn row(node: &NodeReport, now: Timestamp) -> [String; HEADER.len()] {
    let some = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let count = |count: Option<usize>| some(count.map(|count| count as u64));
    let counts = node.counts.as_ref();
    [
        tame(&node.name),
        node.state.as_str().into(),
        node.slots.to_string(),
        count(counts.map(|counts| counts.accounts)),
        count(counts.map(|counts| counts.watched)),
        count(node.problems()),
        some(counts.map(|counts| counts.clients)),
        delay(node.lease_age_milliseconds),
        milliseconds(node.log_lag_microseconds),
        milliseconds(node.database_microseconds),
        milliseconds(node.database_worst_microseconds),
        brief(now.duration_since(node.started).max(jiff::SignedDuration::ZERO).unsigned_abs()),
    ]
}

fn milliseconds(microseconds: Option<u64>) -> String {
    microseconds.map_or("-".into(), short)
}

/// A duration of some milliseconds.
fn short(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!(
            "{}.{} ms",
            microseconds.div_euclid(1000),
            microseconds.rem_euclid(1000).div_euclid(100)
        ),
        _ => delay(microseconds.div_euclid(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_a_digit_more() {
        let words: Vec<String> = [0, 940, 3_260, 12_900, 2_000_000].map(short).into();
        assert_eq!(words, ["0.0 ms", "0.9 ms", "3.2 ms", "12 ms", "2.0 s"]);
    }
}
