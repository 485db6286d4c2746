//! Other nodes: until when each is taken to live.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{LeaseFacts, LeaseSettings, LeaseStamp, NodeFact, NodeId};

/// A renewal of another node, as it was first seen.
#[derive(Debug)]
struct Sighting {
    stamp: LeaseStamp,
    dead_at: Instant,
}

/// The latest renewals of all other nodes.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    nodes: BTreeMap<NodeId, Sighting>,
    /// The last look: when it came, and the renewal of this node that it made.
    looked: Option<(Instant, LeaseStamp)>,
}

impl Sightings {
    /// Takes the rows that came at `now`.
    pub(super) fn look(
        &mut self,
        facts: &LeaseFacts,
        me: NodeId,
        settings: &LeaseSettings,
        now: Instant,
    ) {
        let own = facts.nodes.iter().find(|node| node.id == me).map(|node| node.stamp);
        let last = self.looked.take();
        self.looked = own.map(|stamp| (now, stamp));
        let most = settings.renew + settings.limit + settings.retry;
        let regular = last.is_some_and(|(looked, _)| now.duration_since(looked) <= most);
        let steady =
            last.zip(self.looked).is_some_and(|(last, this)| is_steady(last, this, settings));
        let before = std::mem::take(&mut self.nodes);
        for node in facts.nodes.iter().filter(|node| node.id != me) {
            let known = before.get(&node.id).filter(|known| known.stamp == node.stamp);
            let dead_at = match known {
                Some(known) if regular => known.dead_at,
                None if regular && steady => now + settings.lease - age(node, settings),
                // The database may have been away: nobody could renew, and each gets a whole lease to do so.
                _ => now + settings.lease,
            };
            self.nodes.insert(node.id, Sighting { stamp: node.stamp, dead_at });
        }
    }

    /// Reports if the node lives, as far as is known.
    pub(super) fn lives(&self, node: NodeId, now: Instant) -> bool {
        self.nodes.get(&node).is_some_and(|seen| now < seen.dead_at)
    }

    /// When the next node that lives will be dead unless it renews.
    pub(super) fn next_death(&self, now: Instant) -> Option<Instant> {
        self.nodes.values().map(|seen| seen.dead_at).filter(|dead_at| *dead_at > now).min()
    }
}

/// Reports if the database's clock went on as this node's did between two looks. Its own renewals tell.
fn is_steady(
    (then, before): (Instant, LeaseStamp),
    (now, after): (Instant, LeaseStamp),
    settings: &LeaseSettings,
) -> bool {
    let here = now.duration_since(then);
    let there = u64::try_from(after.0.saturating_sub(before.0)).map(Duration::from_micros);
    there.is_ok_and(|there| here.abs_diff(there) <= settings.margin / 2)
}

/// Age of a renewal that is seen for the first time, less than the time between two looks.
fn age(node: &NodeFact, settings: &LeaseSettings) -> Duration {
    settings.lease.saturating_sub(node.left).min(settings.renew)
}
