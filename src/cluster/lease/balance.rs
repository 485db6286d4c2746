//! Balance: which node is to have which slot. The same rows give the same deal on each node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{NodeId, SlotFact};
use crate::ownership::Slot;

/// The slots that should move, and to whom. Each taker is due an equal share, up to one slot; those that have more than theirs
/// keep as many as they can.
pub(super) fn deal(slots: &[SlotFact], takers: &BTreeSet<NodeId>) -> BTreeMap<Slot, NodeId> {
    let mut held: BTreeMap<NodeId, Vec<&SlotFact>> =
        takers.iter().map(|taker| (*taker, Vec::new())).collect();
    let mut free = Vec::new();
    for fact in slots {
        match holder(fact, takers).and_then(|holder| held.get_mut(&holder)) {
            Some(held) => held.push(fact),
            None => free.push(fact.slot),
        }
    }
    let shares = shares(slots.len(), &held);
    for (taker, held) in &held {
        free.extend(surplus(*taker, held, share_of(*taker, &shares)));
    }
    free.sort_unstable();
    let mut free = free.into_iter();
    let mut dealt = BTreeMap::new();
    for (taker, held) in &held {
        let lacking = share_of(*taker, &shares).saturating_sub(held.len());
        dealt.extend(free.by_ref().take(lacking).map(|slot| (slot, *taker)));
    }
    dealt
}

/// The node that has the slot, or soon will have it.
fn holder(fact: &SlotFact, takers: &BTreeSet<NodeId>) -> Option<NodeId> {
    fact.heir.filter(|heir| takers.contains(heir)).or(fact.owner).filter(|one| takers.contains(one))
}

/// Number of slots that each is due. The remainder of the division goes to those that have most.
fn shares(slots: usize, held: &BTreeMap<NodeId, Vec<&SlotFact>>) -> BTreeMap<NodeId, usize> {
    let Some(whole) = slots.checked_div(held.len()) else { return BTreeMap::new() };
    let remainder = slots % held.len();
    let mut order: Vec<(Reverse<usize>, NodeId)> =
        held.iter().map(|(taker, held)| (Reverse(held.len()), *taker)).collect();
    order.sort_unstable();
    let share = |place| whole + usize::from(place < remainder);
    order.into_iter().enumerate().map(|(place, (_, taker))| (taker, share(place))).collect()
}

fn share_of(taker: NodeId, shares: &BTreeMap<NodeId, usize>) -> usize {
    shares.get(&taker).copied().unwrap_or_default()
}

/// Slots that the taker has beyond its share, those with the highest numbers. Slots in motion go on.
fn surplus(taker: NodeId, held: &[&SlotFact], share: usize) -> impl Iterator<Item = Slot> {
    let rests = move |fact: &&&SlotFact| fact.owner == Some(taker) && fact.heir != Some(taker);
    let surplus = held.len().saturating_sub(share);
    held.iter().rev().filter(rests).take(surplus).map(|fact| fact.slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::Epoch;
    use proptest::prelude::*;

    fn fact(number: i64, owner: Option<i64>, heir: Option<i64>) -> SlotFact {
        SlotFact {
            slot: Slot::new(number).unwrap(),
            owner: owner.map(NodeId),
            epoch: Epoch(1),
            heir: heir.map(NodeId),
            ready: false,
        }
    }

    fn takers(ids: &[i64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// Slots as they are after the deal is done.
    fn dealt(slots: &[SlotFact], takers: &BTreeSet<NodeId>) -> Vec<SlotFact> {
        let moves = deal(slots, takers);
        let moved = |fact: &SlotFact| match moves.get(&fact.slot) {
            Some(to) => SlotFact { owner: Some(*to), heir: None, ..*fact },
            None => SlotFact { owner: holder(fact, takers), heir: None, ..*fact },
        };
        slots.iter().map(moved).collect()
    }

    #[test]
    fn first_node_gets_everything() {
        let slots: Vec<SlotFact> = (0..1024).map(|number| fact(number, None, None)).collect();
        assert_eq!(deal(&slots, &takers(&[7])).len(), 1024);
        assert!(deal(&slots, &takers(&[])).is_empty());
    }

    #[test]
    fn only_the_surplus_moves_to_a_new_node() {
        let slots: Vec<SlotFact> =
            (0..1024).map(|number| fact(number, Some(number % 3), None)).collect();
        let moves = deal(&slots, &takers(&[0, 1, 2, 3]));
        assert_eq!(moves.len(), 256);
        assert!(moves.values().all(|to| *to == NodeId(3)));
    }

    #[test]
    fn slot_in_motion_is_its_heirs() {
        let slots = [fact(0, Some(1), Some(2)), fact(1, Some(1), None)];
        assert!(deal(&slots, &takers(&[1, 2])).is_empty());
        // A dead heir counts for nothing.
        let moves = deal(&slots, &takers(&[1, 3]));
        assert_eq!(moves, BTreeMap::from([(Slot::new(1).unwrap(), NodeId(3))]));
    }

    proptest! {
        #[test]
        fn deal_is_even_and_final(
            rows in proptest::collection::vec((0_i64..8, 0_i64..8), 1..200),
            ids in proptest::collection::btree_set(1_i64..8, 1..6),
        ) {
            let some = |id: i64| (id > 0).then_some(id);
            let slots: Vec<SlotFact> = (0_i64..)
                .zip(&rows)
                .map(|(number, (owner, heir))| {
                    fact(number, some(*owner), some(*heir).filter(|heir| heir != owner && heir % 4 == 0))
                })
                .collect();
            let takers: BTreeSet<NodeId> = ids.into_iter().map(NodeId).collect();
            let after = dealt(&slots, &takers);
            let counts: Vec<usize> = takers
                .iter()
                .map(|taker| after.iter().filter(|fact| fact.owner == Some(*taker)).count())
                .collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), slots.len());
            // Heirs may have more: what is in motion goes on.
            if slots.iter().all(|fact| fact.heir.is_none()) {
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                prop_assert!(most - least <= 1, "{counts:?}");
                prop_assert!(deal(&after, &takers).is_empty());
            }
        }
    }
}
