//! The nodes that share the state, and what is wrong with them.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use super::ago;
use crate::admin::cluster_report::{ClusterProblem, ClusterReport, NodeReport, NodeState};
use crate::admin::format;

/// Age of a lease that is renewed every three seconds.
const PUNCTUAL: Duration = Duration::from_secs(5);

/// Steps of short times, in microseconds.
const STEPS: [(u64, &str); 4] = [
    (10_000, "below 10 ms"),
    (50_000, "below 50 ms"),
    (200_000, "below 200 ms"),
    (1_000_000, "below 1 s"),
];

/// A problem as a line of its own.
pub(super) fn problem(problem: &ClusterProblem) -> Markup {
    let class = if problem.is_severe { "bad" } else { "warn" };
    html! { p.state.(class) { (format::tame(&problem.words)) "." } }
}

/// The table of nodes.
pub(super) fn nodes(report: &ClusterReport, now: Timestamp) -> Markup {
    html! {
        h2 { "Nodes" }
        p.quiet {
            "Seen from " (format::tame(&report.node))
            @if let Some(seen) = report.seen { " " (ago(seen, now)) }
            "."
            @for words in report.left() { " " (format::tame(&words)) "." }
        }
        table {
            thead {
                tr {
                    th { "Node" } th { "State" } th { "Slots" } th { "Accounts" } th { "Clients" } th { "Lease" }
                    th { "Log lag" } th { "Database" }
                }
            }
            tbody { @for node in &report.nodes { (row(node, now)) } }
        }
    }
}

fn row(node: &NodeReport, now: Timestamp) -> Markup {
    let up = now.duration_since(node.started).as_secs().max(0).unsigned_abs();
    html! {
        tr {
            td {
                (format::tame(&node.name)) br;
                // In minutes: the page changes seldom.
                span.quiet { (format::tame(&node.version)) ", up " (format::brief(Duration::from_secs((up - up % 60).max(60)))) }
            }
            td data-name="State" { span.badge.(class(node.state)) { (node.state.as_str()) } }
            td data-name="Slots" { (node.slots) }
            td data-name="Accounts" {
                @if let Some(counts) = &node.counts {
                    (counts.accounts) br; span.quiet { (counts.watched) " watched" }
                    @if let Some(problems @ 1..) = node.problems() { br; span.badge.warn { (problems) " need attention" } }
                } @else { span.quiet { "not told yet" } }
            }
            td data-name="Clients" {
                @match &node.counts { Some(counts) => (counts.clients), None => span.quiet { "not told yet" } }
            }
            // Values of the last minute: a page that changes with each renewal cannot be read.
            td data-name="Lease" { (lease(node)) }
            td data-name="Log lag" { (slowest(node.log_lag_microseconds)) }
            td data-name="Database" { (slowest(node.database_worst_microseconds)) }
        }
    }
}

fn lease(node: &NodeReport) -> Markup {
    let age = Duration::from_millis(node.lease_age_milliseconds);
    html! {
        @if age <= PUNCTUAL { "renewed in time" }
        @else { span.badge.warn { "renewed " (age.as_secs()) " s before" } }
    }
}

/// A step above the longest time, so that the page changes seldom.
fn slowest(microseconds: Option<u64>) -> Markup {
    let Some(longest) = microseconds else { return html! { span.quiet { "nothing yet" } } };
    let step = STEPS.iter().find(|(limit, _)| longest < *limit);
    html! {
        @match step {
            Some((_, words)) => (words),
            None => span.badge.warn { "1 s or more" }
        }
    }
}

fn class(state: NodeState) -> &'static str {
    match state {
        NodeState::Living => "good",
        NodeState::Leaving => "busy",
        NodeState::Lapsed => "bad",
    }
}
