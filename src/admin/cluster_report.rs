//! The nodes that share the state, as data: which of them live, what they own, and what is wrong.
//!
//! All of it is what the answering node has in memory: it is there also while the database is away.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::format::{counted, moment, timestamp};
use crate::cluster::{
    ClusterStatus, ClusterView, DatabaseTrouble, LEASE, NodeCounts, SeenEnd, SeenNode,
};

/// Nodes that have left which are shown: containers have another name at each start.
const MAX_LEFT: usize = 5;

/// Nodes that share the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// The name of the node that answers.
    pub node: String,
    /// When it last saw the others: with each renewal of its lease.
    pub seen: Option<Timestamp>,
    /// The nodes, by name.
    pub nodes: Vec<NodeReport>,
    /// Nodes that have ended within a day and have not come back, the latest first.
    pub ended: Vec<EndedNodeReport>,
    /// Slots without a node that lives: nobody watches their accounts.
    pub unowned_slots: usize,
    /// The database does not answer this node.
    pub database: Option<DatabaseReport>,
    /// Since when this node has no lease, if it has lost it: it pushes nothing.
    pub lapsed_since: Option<Timestamp>,
}

/// The condition of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It renews its lease.
    Living,
    /// It is shutting down: the others inherit its slots.
    Leaving,
    /// It has not renewed its lease in time.
    Lapsed,
}

impl NodeState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Living, Self::Leaving, Self::Lapsed];

    /// A short label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Living => "living",
            Self::Leaving => "leaving",
            Self::Lapsed => "lapsed",
        }
    }

    /// The state of a node.
    #[must_use]
    pub fn of(node: &SeenNode) -> Self {
        match (node.status.lives(), node.status.is_leaving) {
            (false, _) => Self::Lapsed,
            (true, true) => Self::Leaving,
            (true, false) => Self::Living,
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its `node.name`.
    pub name: String,
    /// Version of deltapush.
    pub version: String,
    /// When it joined, by the database's clock.
    pub started: Timestamp,
    /// Its condition.
    pub state: NodeState,
    /// Number of slots that it owns, of 1024.
    pub slots: usize,
    /// Time from the last renewal of its lease to the moment at which it was seen, in milliseconds.
    pub lease_age_milliseconds: u64,
    /// The longest time from a change of the event log to the moment at which the node read it, within the last minute, in
    /// microseconds. Absent if nothing has changed.
    pub log_lag_microseconds: Option<u64>,
    /// Duration of its last renewal of the lease: several statements of the database, in microseconds.
    pub database_microseconds: Option<u64>,
    /// The longest of the last minute.
    pub database_worst_microseconds: Option<u64>,
    /// Its accounts, as it has counted them some seconds ago.
    pub counts: Option<NodeCounts>,
}

/// A node that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedNodeReport {
    /// Its `node.name`.
    pub name: String,
    /// The end of its lease, or the time at which it left, by the database's clock.
    pub at: Timestamp,
    /// True if its lease ended; false if it left.
    pub has_died: bool,
    /// The owners of the slots that it had, those with most first.
    pub successors: Vec<SuccessorReport>,
}

/// A node that owns slots of one that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessorReport {
    /// Its name; none for slots that nobody owns at the moment.
    pub name: Option<String>,
    /// The number of slots.
    pub slots: usize,
}

/// A database that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Since when.
    pub since: Timestamp,
    /// The last failure, in words.
    pub words: String,
}

/// Something that is wrong with the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterProblem {
    /// In words, with the consequence.
    pub words: String,
    /// True while accounts may be without a watch or without pushes.
    pub is_severe: bool,
}

impl ClusterReport {
    /// The nodes as this one has seen them; `counts` are its own accounts at this moment.
    #[must_use]
    pub fn new(view: &ClusterView, counts: NodeCounts) -> Self {
        let ClusterStatus { me, seen, nodes, ended, orphans, trouble, lapsed } = view.status();
        let own = |node: &SeenNode| (node.status.id == me.id).then_some(counts);
        Self {
            nodes: nodes.iter().map(|node| NodeReport::new(node, own(node))).collect(),
            node: me.name,
            seen: seen.map(wall),
            ended: ended.into_iter().map(EndedNodeReport::from).collect(),
            unowned_slots: orphans,
            database: trouble.map(DatabaseReport::from),
            lapsed_since: lapsed.map(wall),
        }
    }

    /// The accounts of all nodes, as far as they tell.
    #[must_use]
    pub fn counts(&self) -> NodeCounts {
        let mut sum = NodeCounts::default();
        for counts in self.nodes.iter().filter_map(|node| node.counts) {
            sum.accounts += counts.accounts;
            sum.watched += counts.watched;
            sum.told += counts.told;
            sum.troubled += counts.troubled;
            sum.waiting += counts.waiting;
            sum.unusable += counts.unusable;
            sum.devices += counts.devices;
            sum.quarantined += counts.quarantined;
            sum.clients += counts.clients;
        }
        sum
    }

    /// The number of accounts of the node that answers.
    #[must_use]
    pub fn own_accounts(&self) -> usize {
        let own = self.nodes.iter().filter(|node| node.name == self.node);
        own.filter_map(|node| node.counts).map(|counts| counts.accounts).sum()
    }

    /// The problems, the worst first.
    #[must_use]
    pub fn problems(&self) -> Vec<ClusterProblem> {
        let mut found = Vec::new();
        let mut add = |words: String, is_severe| found.push(ClusterProblem { words, is_severe });
        if let Some(DatabaseReport { since, words }) = &self.database {
            let since = moment(*since);
            add(
                format!(
                    "the database has not answered this node since {since} ({words}): logins and sessions go on, tokens are \
                     refused, and new mail is announced when the database is back"
                ),
                true,
            );
        }
        if let Some(since) = self.lapsed_since {
            let since = moment(since);
            add(
                format!(
                    "this node has had no lease since {since}: it pushes nothing, and nodes that reach the database take over \
                     its accounts"
                ),
                true,
            );
        }
        match self.unowned_slots {
            _ if self.seen.is_none() => {
                add("this node has not seen the other nodes yet".to_owned(), true);
            }
            0 => {}
            slots => add(
                format!(
                    "nobody watches the accounts of {} at the moment: nodes that reach the database take them within seconds",
                    counted(slots as u64, "slot")
                ),
                true,
            ),
        }
        for node in self.nodes.iter().filter(|node| node.state == NodeState::Lapsed) {
            let words = "has not renewed its lease: the others take over its accounts";
            add(format!("node {} {words}", node.name), true);
        }
        for node in self.ended.iter().filter(|node| node.has_died) {
            add(node.words(), false);
        }
        found
    }

    /// The nodes that left last, a sentence each.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let left = self.ended.iter().filter(|node| !node.has_died);
        left.take(MAX_LEFT).map(EndedNodeReport::words).collect()
    }
}

impl NodeReport {
    fn new(node: &SeenNode, own: Option<NodeCounts>) -> Self {
        let (status, facts) = (&node.status, node.status.facts);
        let age = LEASE.saturating_sub(status.lease_left);
        Self {
            name: status.name.clone(),
            version: status.program.clone(),
            started: timestamp(status.started),
            state: NodeState::of(node),
            slots: node.slots,
            lease_age_milliseconds: milliseconds(age),
            log_lag_microseconds: facts.log_lag_us,
            database_microseconds: facts.latency_us,
            database_worst_microseconds: facts.worst_latency_us,
            counts: own.or(facts.counts),
        }
    }

    /// Accounts that need attention.
    #[must_use]
    pub fn problems(&self) -> Option<usize> {
        self.counts.map(|counts| counts.troubled + counts.waiting + counts.unusable)
    }
}

impl EndedNodeReport {
    /// Its end, and the nodes that have taken over, in a sentence.
    fn words(&self) -> String {
        let (name, at) = (&self.name, moment(self.at));
        let end = match self.has_died {
            true => format!("node {name} is gone: its lease ended {at}"),
            false => format!("node {name} left {at}"),
        };
        let successors: Vec<String> = self.successors.iter().map(SuccessorReport::words).collect();
        if successors.is_empty() {
            end
        } else {
            format!("{end}; its slots: {}", successors.join(", "))
        }
    }
}

impl SuccessorReport {
    fn words(&self) -> String {
        let slots = self.slots;
        match &self.name {
            Some(name) => format!("{slots} now at {name}"),
            None => format!("{slots} without an owner"),
        }
    }
}

impl From<SeenEnd> for EndedNodeReport {
    fn from(SeenEnd { node, successors }: SeenEnd) -> Self {
        Self {
            name: node.name,
            at: timestamp(node.ended),
            has_died: node.has_died,
            successors: successors
                .into_iter()
                .map(|(name, slots)| SuccessorReport { name, slots })
                .collect(),
        }
    }
}

impl From<DatabaseTrouble> for DatabaseReport {
    fn from(DatabaseTrouble { since, reason }: DatabaseTrouble) -> Self {
        Self { since: wall(since), words: reason }
    }
}

fn wall(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
