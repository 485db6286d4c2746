//! The lease of one node, among rows that the tests write by hand. Several nodes: `cluster::simulation`.

use super::*;
use crate::machine::Machine;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn slot(number: i64) -> Slot {
    Slot::new(number).unwrap()
}

/// A machine, its clock, and the rows of four slots.
struct Desk {
    machine: LeaseMachine,
    start: Instant,
    now: Duration,
    rows: LeaseFacts,
}

impl Desk {
    fn new() -> Self {
        let start = Instant::now();
        let fact = |slot| SlotFact { slot, owner: None, epoch: Epoch(1), heir: None, ready: false };
        let rows = LeaseFacts { nodes: Vec::new(), slots: Slot::all().take(4).map(fact).collect() };
        let machine = LeaseMachine::new(ME, LeaseSettings::default(), start);
        Self { machine, start, now: Duration::ZERO, rows }
    }

    /// A node that has joined, alone, and owns all slots.
    fn sole() -> Self {
        let mut desk = Self::new();
        desk.give(LeaseInput::Tick);
        desk.renewed(ME);
        desk.answer();
        desk.after(ms(200), LeaseInput::Tick);
        desk.rows.slots.iter_mut().for_each(|fact| (fact.owner, fact.epoch) = (Some(ME), Epoch(2)));
        desk.answer();
        desk
    }

    fn give(&mut self, input: LeaseInput) -> Vec<LeaseAction> {
        let mut actions = Vec::new();
        self.machine.handle(input, self.start + self.now, &mut actions);
        actions.retain(|action| !matches!(action, LeaseAction::Hold(_)));
        actions
    }

    fn after(&mut self, wait: Duration, input: LeaseInput) -> Vec<LeaseAction> {
        self.now += wait;
        self.give(input)
    }

    /// The node has renewed its lease now.
    fn renewed(&mut self, id: NodeId) {
        let stamp = LeaseStamp(i64::try_from((self.now + ms(9_000)).as_micros()).unwrap());
        self.rows.nodes.retain(|node| node.id != id);
        self.rows.nodes.push(NodeFact { id, stamp, left: ms(9_000), leaving: false });
    }

    /// The request in flight is answered now, with its renewal.
    fn answer(&mut self) -> Vec<LeaseAction> {
        self.renewed(ME);
        self.give(LeaseInput::Answered(self.rows.clone()))
    }

    /// Time until the machine wants to be called.
    fn wait(&self) -> Option<Duration> {
        Some(self.machine.deadline()?.duration_since(self.start) - self.now)
    }
}

fn renewal(actions: &[LeaseAction]) -> &Renewal {
    match actions.last() {
        Some(LeaseAction::Ask(LeaseRequest::Renew(renewal))) => renewal,
        _ => panic!("no renewal: {actions:?}"),
    }
}

#[test]
fn first_node_owns_everything_at_once() {
    let mut desk = Desk::new();
    assert!(renewal(&desk.give(LeaseInput::Tick)).join);
    desk.now += ms(5);
    assert_eq!(desk.answer(), [LeaseAction::Share(1)]);
    assert_eq!(desk.wait(), Some(ms(195)));
    let asked = desk.after(ms(195), LeaseInput::Tick);
    assert_eq!(renewal(&asked).claim.len(), 4);
    desk.rows.slots.iter_mut().for_each(|fact| (fact.owner, fact.epoch) = (Some(ME), Epoch(2)));
    let taken = Slot::all().take(4).map(|slot| (slot, Epoch(2))).collect();
    assert_eq!(desk.answer(), [LeaseAction::Take(taken)]);
    assert_eq!(desk.wait(), Some(ms(3_000)));
}

#[test]
fn lapse_comes_before_anything_else() {
    let mut desk = Desk::sole();
    let all: Vec<Slot> = Slot::all().take(4).collect();
    // Nothing comes of the renewals.
    assert_eq!(desk.after(ms(3_000), LeaseInput::Tick).len(), 1);
    desk.after(ms(2_000), LeaseInput::Failed);
    desk.after(ms(2_999), LeaseInput::Tick);
    let actions = desk.after(ms(1), LeaseInput::Notified);
    assert_eq!(actions.first(), Some(&LeaseAction::Lapse(all)));
    // The rows have not changed: all of it is taken again, in the same epoch.
    let taken = Slot::all().take(4).map(|slot| (slot, Epoch(2))).collect();
    assert_eq!(desk.answer(), [LeaseAction::Take(taken)]);
}

#[test]
fn answer_of_before_a_pause_is_not_believed() {
    let mut desk = Desk::sole();
    desk.after(ms(3_000), LeaseInput::Tick);
    desk.now += ms(60_000);
    let actions = desk.answer();
    assert!(matches!(&actions[..], [LeaseAction::Lapse(_), LeaseAction::Ask(_)]), "{actions:?}");
}

#[test]
fn node_without_a_row_drops_everything_and_joins_again() {
    let mut desk = Desk::sole();
    desk.after(ms(3_000), LeaseInput::Tick);
    desk.rows.nodes.clear();
    let actions = desk.give(LeaseInput::Answered(desk.rows.clone()));
    assert_eq!(actions, [LeaseAction::Drop(Slot::all().take(4).collect())]);
    assert!(renewal(&desk.after(ms(200), LeaseInput::Tick)).join);
}

#[test]
fn dead_node_is_buried_a_lease_after_its_renewal() {
    let mut desk = Desk::sole();
    // The other owns half. Its last renewal was a second before this look.
    desk.after(ms(2_000), LeaseInput::Notified);
    desk.renewed(OTHER);
    desk.rows.slots[0].owner = Some(OTHER);
    desk.rows.slots[1].owner = Some(OTHER);
    let stamp = desk.rows.nodes.last().unwrap().stamp;
    desk.rows.nodes.last_mut().unwrap().left = ms(8_000);
    desk.now += ms(10);
    desk.answer();
    let looked = desk.now;
    let asked = loop {
        let wait = desk.wait().unwrap();
        let asked = desk.after(wait, LeaseInput::Tick);
        if renewal(&asked).is_needed() {
            break asked;
        }
        desk.answer();
    };
    assert_eq!(desk.now - looked, ms(8_000));
    assert_eq!(asked.first(), Some(&LeaseAction::Share(1)));
    assert_eq!(renewal(&asked).bury, [(OTHER, stamp)]);
    assert_eq!(renewal(&asked).claim, [(slot(0), Epoch(2)), (slot(1), Epoch(2))]);
}

#[test]
fn new_node_waits_a_whole_lease_and_takes_its_share_after_one_renewal() {
    let mut desk = Desk::new();
    desk.give(LeaseInput::Tick);
    desk.renewed(OTHER);
    // A lease that ended long ago by the database's clock: it may be that clock, or that the database was away.
    desk.rows.nodes[0].left = Duration::ZERO;
    desk.rows.slots.iter_mut().for_each(|fact| fact.owner = Some(OTHER));
    assert_eq!(desk.answer(), []);
    let mut shares = Vec::new();
    loop {
        let wait = desk.wait().unwrap();
        let actions = desk.after(wait, LeaseInput::Tick);
        shares.extend(actions.iter().filter_map(|action| match action {
            LeaseAction::Share(nodes) => Some((*nodes, desk.now)),
            _ => None,
        }));
        if !renewal(&actions).claim.is_empty() {
            break;
        }
        desk.answer();
    }
    assert_eq!(shares, [(2, ms(3_000)), (1, ms(9_000))]);
}

#[test]
fn heir_prepares_says_so_and_claims() {
    let mut desk = Desk::new();
    desk.give(LeaseInput::Tick);
    desk.renewed(OTHER);
    desk.rows.slots.iter_mut().for_each(|fact| fact.owner = Some(OTHER));
    desk.answer();
    let asked = desk.after(ms(3_000), LeaseInput::Tick);
    assert_eq!(asked.first(), Some(&LeaseAction::Share(2)));
    assert_eq!(renewal(&asked).mark, [(slot(2), Epoch(1)), (slot(3), Epoch(1))]);
    desk.renewed(OTHER);
    desk.rows.slots[2].heir = Some(ME);
    desk.rows.slots[3].heir = Some(ME);
    assert_eq!(desk.answer(), [LeaseAction::Prepare(vec![slot(2), slot(3)])]);
    let asked = desk.after(ms(500), LeaseInput::Prepared(vec![slot(2)]));
    assert_eq!(renewal(&asked).ready, [(slot(2), Epoch(1))]);
    desk.rows.slots[2].ready = true;
    desk.answer();
    // The owner has given it, and notifies.
    let asked = desk.after(ms(300), LeaseInput::Notified);
    assert_eq!(renewal(&asked).claim, [(slot(2), Epoch(1))]);
    let row = &mut desk.rows.slots[2];
    (row.owner, row.epoch, row.heir, row.ready) = (Some(ME), Epoch(2), None, false);
    assert_eq!(desk.answer(), [LeaseAction::Take(vec![(slot(2), Epoch(2))])]);
}

#[test]
fn owner_settles_and_gives_what_its_heir_is_ready_for() {
    let mut desk = Desk::sole();
    desk.after(ms(300), LeaseInput::Notified);
    desk.renewed(OTHER);
    (desk.rows.slots[3].heir, desk.rows.slots[3].ready) = (Some(OTHER), true);
    assert_eq!(desk.answer(), [LeaseAction::Settle(vec![slot(3)]), LeaseAction::Share(2)]);
    let actions = desk.after(ms(300), LeaseInput::Settled(vec![slot(3)]));
    assert_eq!(actions.first(), Some(&LeaseAction::Drop(vec![slot(3)])));
    assert_eq!(renewal(&actions).give, [(slot(3), Epoch(2))]);
    // The answer was lost: the row may say that it is owned, and it is given again.
    desk.after(ms(2_000), LeaseInput::Failed);
    let actions = desk.after(ms(200), LeaseInput::Tick);
    assert_eq!(renewal(&actions).give, [(slot(3), Epoch(2))]);
    desk.rows.slots[3].owner = None;
    assert_eq!(desk.answer(), []);
}

#[test]
fn sole_node_leaves_at_once() {
    let mut desk = Desk::sole();
    let all: Vec<Slot> = Slot::all().take(4).collect();
    let actions = desk.after(ms(1_000), LeaseInput::Leave);
    assert_eq!(actions.first(), Some(&LeaseAction::Settle(all.clone())));
    assert!(renewal(&actions).leaving);
    desk.answer();
    let actions = desk.after(ms(50), LeaseInput::Settled(all.clone()));
    assert_eq!(actions, [LeaseAction::Drop(all), LeaseAction::Ask(LeaseRequest::Release)]);
    desk.rows.nodes.clear();
    assert_eq!(desk.give(LeaseInput::Answered(desk.rows.clone())), [LeaseAction::Left]);
    assert_eq!(desk.machine.deadline(), None);
}

#[test]
fn node_that_leaves_waits_for_its_heirs_but_not_for_long() {
    let mut desk = Desk::sole();
    desk.after(ms(300), LeaseInput::Notified);
    desk.renewed(OTHER);
    desk.answer();
    let left = desk.now + ms(300);
    desk.after(ms(300), LeaseInput::Leave);
    let mut settling = None;
    for _ in 0..100 {
        desk.renewed(OTHER);
        let mut actions = desk.answer();
        actions.extend(
            desk.wait().map(|wait| desk.after(wait, LeaseInput::Tick)).into_iter().flatten(),
        );
        if actions.iter().any(|action| matches!(action, LeaseAction::Settle(_))) {
            settling.get_or_insert(desk.now - left);
        }
        if actions.contains(&LeaseAction::Ask(LeaseRequest::Release)) {
            break;
        }
    }
    // The keeper never says that its POSTs have ended.
    assert_eq!(settling, Some(ms(20_000)));
    assert_eq!(desk.now - left, ms(25_000));
    desk.after(ms(2_000), LeaseInput::Failed);
    assert_eq!(desk.after(ms(2_000), LeaseInput::Tick).last(), Some(&LeaseAction::Left));
}
