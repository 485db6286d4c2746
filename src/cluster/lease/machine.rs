//! The machine: its own lease, the time of the next request, and its leaving.

use std::time::Instant;

use super::own::OwnSlots;
use super::plan::View;
use super::{LeaseAction, LeaseFacts, LeaseInput, LeaseRequest, LeaseSettings, NodeId, Renewal};
use crate::machine::{Actions, Machine};
use crate::ownership::Slot;

/// The lease of one node.
#[derive(Debug)]
pub(crate) struct LeaseMachine {
    me: NodeId,
    settings: LeaseSettings,
    phase: Phase,
    /// When the lease must be taken as ended; none while there is none.
    lease_end: Option<Instant>,
    /// When the request that made this node's row was sent; none while there is no row.
    joined: Option<Instant>,
    /// The number of living nodes that the keeper knows.
    share: Option<usize>,
    view: View,
    own: OwnSlots,
    /// The request in flight, by when it was sent.
    asked: Option<Instant>,
    /// When the next request is sent.
    next: Option<Instant>,
    /// When the last request was sent.
    last: Option<Instant>,
    /// True if a notification came while a request was in flight, which may have been done before.
    again: bool,
}

/// The way from a member to a node that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Member,
    /// Others inherit, until then at most.
    Leaving(Instant),
    /// The rest is to be given up, as soon as it is settled.
    Settling,
    /// The rest is given up, or the node leaves without an answer at this time.
    Releasing(Instant),
    Left,
}

impl Machine for LeaseMachine {
    type Input<'a> = LeaseInput;
    type Action<'a> = LeaseAction;

    fn handle(&mut self, input: LeaseInput, now: Instant, actions: &mut impl Actions<Self>) {
        if self.phase == Phase::Left {
            return;
        }
        // Before anything else: after a pause the lease may have ended long ago.
        self.lapse_in_time(now, actions);
        match input {
            LeaseInput::Tick => {}
            LeaseInput::Answered(facts) => self.answered(facts, now, actions),
            LeaseInput::Failed => self.failed(now),
            LeaseInput::Notified => self.hurry(now),
            LeaseInput::Prepared(slots) => {
                self.own.prepared(&slots);
                self.hurry_if_needed(now);
            }
            LeaseInput::Settled(slots) => {
                let dropped = self.own.settled(&slots);
                self.give(dropped, now, actions);
            }
            LeaseInput::Leave if self.phase == Phase::Member => {
                self.phase = Phase::Leaving(now + self.settings.leave);
                self.hurry(now);
            }
            LeaseInput::Leave => {}
        }
        if self.own.prepared_in_time(now) {
            self.hurry_if_needed(now);
        }
        let dropped = self.own.settled_in_time(now);
        self.give(dropped, now, actions);
        self.share(now, actions);
        self.leave_in_time(now, actions);
        self.ask_in_time(now, actions);
    }

    fn deadline(&self) -> Option<Instant> {
        let until = match self.phase {
            Phase::Left => return None,
            Phase::Member | Phase::Settling => None,
            Phase::Leaving(until) | Phase::Releasing(until) => Some(until),
        };
        let next = self.next.filter(|_| self.asked.is_none());
        [until, next, self.lease_end, self.own.deadline()].into_iter().flatten().min()
    }
}

impl LeaseMachine {
    /// A node that is about to join. Its first request is due at once.
    pub(crate) fn new(me: NodeId, settings: LeaseSettings, now: Instant) -> Self {
        Self {
            me,
            settings,
            phase: Phase::Member,
            lease_end: None,
            joined: None,
            share: None,
            view: View::default(),
            own: OwnSlots::default(),
            asked: None,
            next: Some(now),
            last: None,
            again: false,
        }
    }

    fn lapse_in_time(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if self.lease_end.is_none_or(|end| now < end) {
            return;
        }
        self.lease_end = None;
        let lapsed = self.own.lapse();
        if !lapsed.is_empty() {
            actions.push(LeaseAction::Lapse(lapsed));
        }
    }

    fn answered(&mut self, facts: LeaseFacts, now: Instant, actions: &mut impl Actions<Self>) {
        let Some(asked) = self.asked.take() else { return };
        if !facts.nodes.iter().any(|node| node.id == self.me) {
            return self.lost_row(now, actions);
        }
        if matches!(self.phase, Phase::Releasing(_)) {
            // The answer of a renewal that was in flight.
            self.next = Some(now);
            return;
        }
        self.joined.get_or_insert(asked);
        let end = asked + self.settings.lease - self.settings.margin;
        if end <= now {
            // The process stood still meanwhile: the rows are of another time.
            self.next = Some(now);
            return;
        }
        self.lease_end = Some(end);
        actions.push(LeaseAction::Hold(end));
        let inherits = self.phase == Phase::Member;
        let prepared_at = now + self.settings.prepare;
        let work = self.own.adopt(&facts, self.me, inherits, prepared_at);
        work.into_iter().for_each(|action| actions.push(action));
        self.view.look(facts, self.me, &self.settings, now);
        self.next = Some(asked + self.settings.renew);
        self.settle(&self.view.awaited(self.me, now), now, actions);
        self.share(now, actions);
        self.hurry_if_needed(now);
        if std::mem::take(&mut self.again) {
            self.hurry(now);
        }
    }

    /// The keeper ends its POSTs for the slots.
    fn settle(&mut self, slots: &[Slot], now: Instant, actions: &mut impl Actions<Self>) {
        let settling = self.own.settle(slots, now + self.settings.settle);
        if !settling.is_empty() {
            actions.push(LeaseAction::Settle(settling));
        }
    }

    /// The keeper drops the slots, and then their heirs may have them.
    fn give(&mut self, dropped: Vec<Slot>, now: Instant, actions: &mut impl Actions<Self>) {
        if !dropped.is_empty() {
            actions.push(LeaseAction::Drop(dropped));
            self.hurry(now);
        }
    }

    /// This node's row is not there: others took it for dead, or it has released everything.
    fn lost_row(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        self.lease_end = None;
        self.joined = None;
        self.share = None;
        self.view = View::default();
        self.drop_all(actions);
        self.next = None;
        match self.phase {
            Phase::Member => self.hurry(now),
            _ => self.left(actions),
        }
    }

    fn failed(&mut self, now: Instant) {
        let Some(asked) = self.asked.take() else { return };
        self.next = Some((asked + self.settings.retry).max(now + self.settings.floor));
    }

    /// The next request is sent as soon as may be.
    fn hurry(&mut self, now: Instant) {
        if self.asked.is_some() {
            self.again = true;
            return;
        }
        let soon = self.last.map_or(now, |last| (last + self.settings.floor).max(now));
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// The next request is sent soon if there is anything to do, or when there may be.
    fn hurry_if_needed(&mut self, now: Instant) {
        if self.asked.is_some() {
            return;
        }
        if self.plan(now).is_needed() {
            self.hurry(now);
        } else if let Some(at) = self.view.changes_at(&self.settings, now) {
            self.next = self.next.map(|next| next.min(at));
        }
    }

    /// The work of the next renewal. Nothing is claimed before the others know of this node, and while it leaves.
    fn plan(&self, now: Instant) -> Renewal {
        let is_member = self.phase == Phase::Member && self.share.is_some();
        let plan = if is_member && self.lease_end.is_some_and(|end| now < end) {
            self.view.plan(self.me, &self.own, &self.settings, now)
        } else {
            Renewal::default()
        };
        Renewal { give: self.own.given(), ..plan }
    }

    /// Tells the keeper of the number of living nodes. A new one waits until the others have had time to see it.
    fn share(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        let Some(joined) = self.joined.filter(|_| self.lease_end.is_some()) else { return };
        let living = self.view.living(self.me, now).len();
        let known = self.share.is_some() || living == 1 || now >= joined + self.settings.renew;
        if known && self.share != Some(living) {
            self.share = Some(living);
            actions.push(LeaseAction::Share(living));
        }
    }

    fn leave_in_time(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if let Phase::Leaving(until) = self.phase {
            let alone = self.view.takers(self.me, now).iter().all(|id| *id == self.me);
            let inherited = self.own.owned().is_empty() && self.own.given().is_empty();
            if inherited || alone || until <= now {
                self.phase = Phase::Settling;
                self.settle(&self.own.owned(), now, actions);
            }
        }
        if self.phase == Phase::Settling && self.own.owned().is_empty() {
            self.drop_all(actions);
            self.phase = Phase::Releasing(now + self.settings.limit * 2);
            self.next = Some(now);
        }
        let is_leaving = matches!(self.phase, Phase::Leaving(_) | Phase::Settling);
        let is_late = matches!(self.phase, Phase::Releasing(until) if until <= now);
        if is_late || is_leaving && self.lease_end.is_none() {
            self.left(actions);
        }
    }

    fn drop_all(&mut self, actions: &mut impl Actions<Self>) {
        let dropped = self.own.drop_all();
        if !dropped.is_empty() {
            actions.push(LeaseAction::Drop(dropped));
        }
    }

    fn left(&mut self, actions: &mut impl Actions<Self>) {
        self.drop_all(actions);
        self.lease_end = None;
        self.phase = Phase::Left;
        actions.push(LeaseAction::Left);
    }

    fn ask_in_time(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if self.asked.is_some() || self.next.is_none_or(|next| now < next) {
            return;
        }
        let mut request = match self.phase {
            Phase::Left => return,
            Phase::Releasing(_) => LeaseRequest::Release,
            Phase::Member | Phase::Leaving(_) | Phase::Settling => LeaseRequest::Renew(Renewal {
                join: self.joined.is_none(),
                leaving: self.phase != Phase::Member,
                ..self.plan(now)
            }),
        };
        if let LeaseRequest::Renew(renewal) = &mut request
            && self.phase == Phase::Member
        {
            renewal.claim.extend(self.view.hopes(&self.own));
        }
        self.again = false;
        self.asked = Some(now);
        self.last = Some(now);
        self.next = None;
        actions.push(LeaseAction::Ask(request));
    }
}
