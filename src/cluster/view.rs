//! The nodes as this one has seen them last: a copy in memory of what each renewal of its lease brings, for people and metrics.
//! Nobody who looks at it waits for the database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::changes::{NodeChange, changes};
use super::lease::LeaseFacts;
use super::{EndedNode, NodeId, NodeName, NodeStatus};
use crate::account::AccountId;
use crate::clock;
use crate::ownership::{SLOTS, Slot};
use crate::store::lease_rows::LeaseAnswer;

/// The view. Clones are handles of the same.
#[derive(Debug, Clone)]
pub struct ClusterView(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    me: NodeName,
    viewed: Mutex<Viewed>,
}

#[derive(Debug, Default)]
struct Viewed {
    /// None before the first answer.
    seen: Option<Seen>,
    failing: Option<DatabaseTrouble>,
    /// The end of this node's lease; none before it has one.
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    at: SystemTime,
    nodes: Vec<NodeStatus>,
    ended: Vec<EndedNode>,
    /// By the number of the slot.
    owners: Vec<Option<NodeId>>,
}

/// The reason why the lease cannot be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseTrouble {
    /// Since when.
    pub since: SystemTime,
    /// The last failure, in words.
    pub reason: String,
}

/// A node that has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// Its row.
    pub status: NodeStatus,
    /// Number of slots that it owns.
    pub slots: usize,
}

/// A node that has ended, with those that have its slots now, by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEnd {
    /// The node.
    pub node: EndedNode,
    /// Names of nodes and numbers of slots; no name for slots that nobody owns at the moment.
    pub successors: Vec<(Option<String>, usize)>,
}

/// The nodes at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// This node's name.
    pub me: NodeName,
    /// When the nodes were seen; none before the first answer of the database.
    pub seen: Option<SystemTime>,
    /// By name.
    pub nodes: Vec<SeenNode>,
    /// Nodes that have ended within a day and have not come back, the latest first.
    pub ended: Vec<SeenEnd>,
    /// Slots without a living owner: nobody watches their accounts.
    pub orphans: usize,
    /// The database does not answer this node.
    pub trouble: Option<DatabaseTrouble>,
    /// Since when this node has no lease: it pushes nothing. None while it has one, and before its first.
    pub lapsed: Option<SystemTime>,
}

/// The node that works for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountOwner {
    /// A node with this name, which lives.
    Node(String),
    /// No node that lives. The name is that of the last owner, if it still has a row.
    Nobody(Option<String>),
    /// This node has not seen the nodes yet.
    Unknown,
}

impl ClusterView {
    /// The view of the node with this name.
    #[must_use]
    pub fn new(me: NodeName) -> Self {
        Self(Arc::new(Shared { me, viewed: Mutex::default() }))
    }

    /// The name of this node.
    #[must_use]
    pub fn me(&self) -> &NodeName {
        &self.0.me
    }

    /// The nodes as they were seen last.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let viewed = self.lock();
        let lapsed = viewed.held_until.and_then(|end| {
            let over = clock::elsewhere().checked_duration_since(end)?;
            SystemTime::now().checked_sub(over)
        });
        let mut status = ClusterStatus {
            me: self.0.me.clone(),
            seen: None,
            nodes: Vec::new(),
            ended: Vec::new(),
            orphans: usize::from(SLOTS),
            trouble: viewed.failing.clone(),
            lapsed,
        };
        if let Some(seen) = &viewed.seen {
            status.seen = Some(seen.at);
            status.nodes = seen.nodes.iter().map(|node| seen.share(node)).collect();
            status.ended = seen.ended.iter().map(|node| seen.end(node)).collect();
            let living = status.nodes.iter().filter(|node| node.status.lives());
            status.orphans = status.orphans.saturating_sub(living.map(|node| node.slots).sum());
        }
        status
    }

    /// The node that works for the account.
    #[must_use]
    pub fn owner_of(&self, account: &AccountId) -> AccountOwner {
        let viewed = self.lock();
        let Some(seen) = &viewed.seen else { return AccountOwner::Unknown };
        let owner = seen.owners.get(usize::from(Slot::of(account).number())).copied().flatten();
        let node = seen.nodes.iter().find(|node| Some(node.id) == owner);
        match node {
            Some(node) if node.lives() => AccountOwner::Node(node.name.clone()),
            node => AccountOwner::Nobody(node.map(|node| node.name.clone())),
        }
    }

    /// The database has answered. Returns what has changed since the last time.
    pub(super) fn saw(&self, answer: LeaseAnswer) -> Vec<NodeChange> {
        let LeaseAnswer { facts, nodes, ended } = answer;
        let seen = Seen { at: SystemTime::now(), owners: owners(&facts), nodes, ended };
        let mut viewed = self.lock();
        viewed.failing = None;
        let before = viewed.seen.as_ref().map(|seen| seen.nodes.as_slice());
        let changes = changes(self.0.me.id, before, &seen.nodes, &seen.ended);
        viewed.seen = Some(seen);
        changes
    }

    /// The same, for tests of what is made of it.
    #[cfg(test)]
    pub(crate) fn show(&self, answer: LeaseAnswer) {
        self.saw(answer);
    }

    /// A request has failed.
    pub(super) fn failed(&self, reason: &str) {
        let mut viewed = self.lock();
        let since = viewed.failing.as_ref().map_or_else(SystemTime::now, |failing| failing.since);
        viewed.failing = Some(DatabaseTrouble { since, reason: reason.to_owned() });
    }

    /// This node has its lease until then.
    pub(super) fn held(&self, until: Instant) {
        self.lock().held_until = Some(until);
    }

    fn lock(&self) -> MutexGuard<'_, Viewed> {
        self.0.viewed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeStatus {
    /// Reports if its lease had not ended.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.lease_left > Duration::ZERO
    }
}

impl Seen {
    fn share(&self, node: &NodeStatus) -> SeenNode {
        let slots = self.owners.iter().filter(|owner| **owner == Some(node.id)).count();
        SeenNode { status: node.clone(), slots }
    }

    fn end(&self, node: &EndedNode) -> SeenEnd {
        let name = |id: &NodeId| self.nodes.iter().find(|node| node.id == *id);
        let successors = node.successors.iter().map(|(successor, slots)| {
            (successor.as_ref().and_then(name).map(|node| node.name.clone()), *slots)
        });
        SeenEnd { node: node.clone(), successors: successors.collect() }
    }
}

fn owners(facts: &LeaseFacts) -> Vec<Option<NodeId>> {
    let mut owners = vec![None; usize::from(SLOTS)];
    for fact in &facts.slots {
        if let Some(owner) = owners.get_mut(usize::from(fact.slot.number())) {
            *owner = fact.owner;
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::lease::SlotFact;
    use crate::cluster::testing::status_of;
    use crate::ownership::Epoch;

    fn view() -> ClusterView {
        ClusterView::new(NodeName { id: NodeId(1), name: "push-1".into() })
    }

    /// All slots belong to these nodes in turn.
    fn facts(owners: &[i64]) -> LeaseFacts {
        let fact = |slot: Slot| SlotFact {
            slot,
            owner: Some(NodeId(owners[usize::from(slot.number()) % owners.len()])),
            epoch: Epoch(1),
            heir: None,
            ready: false,
        };
        LeaseFacts { nodes: vec![], slots: Slot::all().map(fact).collect() }
    }

    fn dead(id: i64) -> NodeStatus {
        NodeStatus { lease_left: Duration::ZERO, ..status_of(id) }
    }

    #[test]
    fn owners_are_named() {
        let (view, alice) = (view(), AccountId::new("alice", "imap.example.org:993"));
        assert_eq!(view.owner_of(&alice), AccountOwner::Unknown);
        assert_eq!((view.status().seen, view.status().orphans), (None, 1024));
        // Her slot, 948, is even.
        let nodes = vec![status_of(1), status_of(2)];
        view.saw(LeaseAnswer { facts: facts(&[2, 1]), nodes, ended: vec![] });
        assert_eq!(view.owner_of(&alice), AccountOwner::Node("push-2".into()));
        let shares: Vec<usize> = view.status().nodes.iter().map(|node| node.slots).collect();
        assert_eq!((shares, view.status().orphans), (vec![512, 512], 0));
        let nodes = vec![status_of(1), dead(2)];
        view.saw(LeaseAnswer { facts: facts(&[2, 1]), nodes, ended: vec![] });
        assert_eq!(view.owner_of(&alice), AccountOwner::Nobody(Some("push-2".into())));
        assert_eq!(view.status().orphans, 512);
        let ended = EndedNode {
            id: NodeId(2),
            name: "push-2".into(),
            ended: crate::store::UnixTime(1),
            has_died: true,
            successors: vec![(Some(NodeId(1)), 500), (None, 12)],
        };
        let (nodes, ended) = (vec![status_of(1)], vec![ended]);
        view.saw(LeaseAnswer { facts: facts(&[1]), nodes, ended });
        assert_eq!(view.status().ended[0].successors, [(Some("push-1".into()), 500), (None, 12)]);
        assert_eq!(view.owner_of(&alice), AccountOwner::Node("push-1".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_has_its_beginning() {
        let view = view();
        view.held(clock::elsewhere() + Duration::from_secs(9));
        view.failed("refused");
        let first = view.status().trouble.unwrap();
        view.failed("no answer");
        let trouble = view.status().trouble.unwrap();
        assert_eq!((trouble.since, trouble.reason.as_str()), (first.since, "no answer"));
        assert_eq!(view.status().lapsed, None);
        tokio::time::advance(Duration::from_secs(60)).await;
        let lapsed = view.status().lapsed.unwrap().elapsed().unwrap();
        assert!((50..53).contains(&lapsed.as_secs()), "{lapsed:?}");
        view.saw(LeaseAnswer::default());
        assert_eq!(view.status().trouble, None);
    }
}
