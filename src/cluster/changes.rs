//! Nodes that come and go, as lines of the log: one for each change that an operator would look for.

use std::collections::BTreeMap;

use tracing::{info, warn};

use super::{EndedNode, NodeId, NodeStatus};

/// A change of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeChange {
    /// The nodes that were there when this one came, itself included.
    Found(Vec<String>),
    Joined(String),
    Leaves(String),
    Left(String),
    /// Its lease ended.
    Died(String),
}

/// The changes since `before`, in the order of names. This node is not among them.
pub(super) fn changes(
    me: NodeId,
    before: Option<&[NodeStatus]>,
    now: &[NodeStatus],
    ended: &[EndedNode],
) -> Vec<NodeChange> {
    let Some(before) = before else {
        return vec![NodeChange::Found(now.iter().map(|node| node.name.clone()).collect())];
    };
    let by_id = |nodes: &[NodeStatus]| -> BTreeMap<NodeId, NodeStatus> {
        nodes.iter().filter(|node| node.id != me).map(|node| (node.id, node.clone())).collect()
    };
    let (before, now) = (by_id(before), by_id(now));
    let mut found = Vec::new();
    for (id, node) in &before {
        match now.get(id) {
            Some(now) if now.is_leaving && !node.is_leaving => {
                found.push(NodeChange::Leaves(node.name.clone()));
            }
            Some(_) => {}
            None => {
                // One that is back already under its name is not among those that have ended.
                let has_left = ended.iter().any(|ended| ended.id == *id && !ended.has_died);
                let gone =
                    if has_left || node.is_leaving { NodeChange::Left } else { NodeChange::Died };
                found.push(gone(node.name.clone()));
            }
        }
    }
    let new = now.iter().filter(|(id, _)| !before.contains_key(id));
    found.extend(new.map(|(_, node)| NodeChange::Joined(node.name.clone())));
    found
}

impl NodeChange {
    /// Writes its line.
    pub(super) fn log(&self) {
        match self {
            Self::Found(names) => {
                info!(nodes = names.len(), "nodes that share the accounts: {}", names.join(", "));
            }
            Self::Joined(name) => {
                info!("node {name} has joined and gets its share of the accounts")
            }
            Self::Leaves(name) => info!("node {name} leaves: the others take over its accounts"),
            Self::Left(name) => info!("node {name} has left"),
            Self::Died(name) => warn!(
                "node {name} is gone: it has not renewed its lease; the others take over its accounts"
            ),
        }
    }
}

/// The share of this node: one line when it has changed and nothing moves any more.
#[derive(Debug, Default)]
pub(super) struct ShareLog {
    /// The number of slots in the last line.
    reported: usize,
    /// The number at the last answer, if nothing moved then.
    rested: Option<usize>,
}

impl ShareLog {
    /// An answer of the database is adopted: this node owns so many slots. Returns the number that was reported before, if the
    /// present one is news. Nothing moves between two portions either, so it must rest over two answers.
    pub(super) fn look(&mut self, owned: usize, is_moving: bool) -> Option<usize> {
        let rests = !is_moving && self.rested == Some(owned);
        self.rested = (!is_moving).then_some(owned);
        (rests && owned != self.reported).then(|| std::mem::replace(&mut self.reported, owned))
    }

    /// The lease has lapsed, which has a line of its own.
    pub(super) fn lapsed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::status_of;
    use super::*;
    use crate::store::UnixTime;

    #[test]
    fn each_change_is_told_once() {
        let me = NodeId(1);
        let all = [status_of(1), status_of(2), status_of(3)];
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let found = changes(me, None, &all, &[]);
        assert_eq!(found, [NodeChange::Found(names(&["push-1", "push-2", "push-3"]))]);
        assert_eq!(changes(me, Some(&all), &all, &[]), []);
        let leaving = NodeStatus { is_leaving: true, ..status_of(2) };
        let later = [status_of(1), leaving.clone(), status_of(4)];
        let ended = |id, has_died| EndedNode {
            id: NodeId(id),
            name: format!("push-{id}"),
            ended: UnixTime(1),
            has_died,
            successors: vec![],
        };
        let found = changes(me, Some(&all), &later, &[ended(3, true)]);
        let name = |name: &str| name.to_owned();
        assert_eq!(
            found,
            [
                NodeChange::Leaves(name("push-2")),
                NodeChange::Died(name("push-3")),
                NodeChange::Joined(name("push-4")),
            ]
        );
        let found = changes(me, Some(&[status_of(1), leaving]), &[status_of(1)], &[]);
        assert_eq!(found, [NodeChange::Left(name("push-2"))], "also if it is back by now");
        let found = changes(me, Some(&all[..2]), &[], &[ended(2, false)]);
        assert_eq!(found, [NodeChange::Left(name("push-2"))], "this node is not among them");
    }

    #[test]
    fn share_is_reported_when_it_has_settled() {
        let mut log = ShareLog::default();
        let looks = [(0, false), (32, true), (64, false), (64, true), (341, true), (341, false)];
        assert!(looks.iter().all(|(owned, moves)| log.look(*owned, *moves).is_none()));
        assert_eq!(log.look(341, false), Some(0));
        assert_eq!(log.look(341, false), None, "once");
        assert_eq!((log.look(512, false), log.look(512, false)), (None, Some(341)));
        log.lapsed();
        assert_eq!((log.look(512, false), log.look(512, false)), (None, Some(0)));
    }
}
