//! Membership of this node: the driver of `cluster::lease`.
//!
//! It sends the machine's requests, one at a time, grants and revokes the [`Ownership`], and hands the keeper's work to a
//! queue (`calls.rs`): nothing that the keeper does delays a renewal.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::SlotKeeper;
use super::calls::{KeeperCall, KeeperCalls};
use super::changes::ShareLog;
use super::lease::{
    LeaseAction, LeaseFacts, LeaseInput, LeaseMachine, LeaseRequest, LeaseSettings, NodeId,
};
use super::view::ClusterView;
use crate::clock;
use crate::machine::Machine;
use crate::ownership::{Ownership, SLOTS, Slot};
use crate::store::StoreError;

/// The rows of nodes and slots.
pub(crate) trait LeaseDatabase: Send + Sync + 'static {
    /// Does the request as a whole, or nothing of it.
    fn request(
        &self,
        me: NodeId,
        request: &LeaseRequest,
    ) -> impl Future<Output = Result<LeaseFacts, StoreError>> + Send;
}

/// A request in flight. The error says why it failed.
type Request = Pin<Box<dyn Future<Output = Result<LeaseFacts, String>> + Send>>;

/// This node, as a member of those that share the state.
pub(crate) struct Membership<D> {
    view: ClusterView,
    settings: LeaseSettings,
    database: Arc<D>,
    ownership: Ownership,
    machine: LeaseMachine,
    request: Option<Request>,
    calls: KeeperCalls,
    share_log: ShareLog,
    /// True if slots of this node, or for it, were in motion in the last answer; none if it was looked at.
    moving: Option<bool>,
    /// True if the last request failed.
    is_failing: bool,
    has_left: bool,
}

impl<D: LeaseDatabase> Membership<D> {
    /// Joins, and serves until the node has left, or the keeper has ended by a panic. It begins to leave when `leave` is
    /// cancelled. `changed` is notified when another node has changed the rows.
    pub(crate) async fn serve<K: SlotKeeper>(
        (view, settings): (ClusterView, LeaseSettings),
        database: Arc<D>,
        ownership: Ownership,
        keeper: Arc<K>,
        changed: Arc<Notify>,
        leave: CancellationToken,
    ) {
        let (calls, inputs) = KeeperCalls::start(keeper, ownership.clone());
        let machine = LeaseMachine::new(view.me().id, settings, clock::elsewhere());
        let (request, is_failing, has_left) = (None, false, false);
        let (share_log, moving) = (ShareLog::default(), None);
        let member = Self {
            view,
            settings,
            database,
            ownership,
            machine,
            request,
            calls,
            share_log,
            moving,
            is_failing,
            has_left,
        };
        member.run(inputs, &changed, leave).await;
    }

    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<LeaseInput>,
        changed: &Notify,
        leave: CancellationToken,
    ) {
        let mut is_leaving = false;
        while !self.has_left {
            let answer = async {
                match &mut self.request {
                    Some(request) => request.await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                biased;
                () = clock::reached_elsewhere(self.machine.deadline()) => LeaseInput::Tick,
                answer = answer => self.answered(answer),
                () = leave.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    LeaseInput::Leave
                }
                input = inputs.recv() => match input {
                    Some(input) => input,
                    // Slots that nobody serves are better owned by other nodes.
                    None => break,
                },
                () = changed.notified() => LeaseInput::Notified,
            };
            let mut actions: Vec<LeaseAction> = Vec::new();
            self.machine.handle(input, clock::elsewhere(), &mut actions);
            for action in actions {
                self.perform(action).await;
            }
            self.report_share();
        }
        self.calls.finish().await;
    }

    fn answered(&mut self, answer: Result<LeaseFacts, String>) -> LeaseInput {
        self.request = None;
        match answer {
            Ok(facts) => {
                if std::mem::take(&mut self.is_failing) {
                    info!("the database answers again: this node's lease can be renewed");
                }
                self.moving = Some(is_moving(self.view.me().id, &facts));
                LeaseInput::Answered(facts)
            }
            Err(error) => {
                self.view.failed(&error);
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!("this node's lease cannot be renewed: {error}");
                }
                LeaseInput::Failed
            }
        }
    }

    async fn perform(&mut self, action: LeaseAction) {
        match action {
            LeaseAction::Ask(request) => self.ask(request),
            LeaseAction::Hold(until) => {
                self.ownership.hold_until(until);
                self.view.held(until);
            }
            LeaseAction::Take(slots) => {
                debug!(slots = slots.len(), "slots of accounts are taken");
                slots.iter().for_each(|(slot, epoch)| self.ownership.grant(*slot, *epoch));
                self.calls.push(KeeperCall::Take(slots)).await;
            }
            LeaseAction::Drop(slots) => {
                debug!(slots = slots.len(), "slots of accounts belong to other nodes");
                self.revoke(&slots);
                self.calls.push(KeeperCall::Drop(slots)).await;
            }
            LeaseAction::Lapse(slots) => {
                warn!(
                    slots = slots.len(),
                    "this node's lease has lapsed: it pushes nothing and notes no new mail until the database answers; \
                     other nodes that reach the database take over"
                );
                self.revoke(&slots);
                self.share_log.lapsed();
                self.calls.push(KeeperCall::Lapse(slots)).await;
            }
            LeaseAction::Prepare(slots) => self.calls.push(KeeperCall::Prepare(slots)).await,
            LeaseAction::Settle(slots) => self.calls.push(KeeperCall::Settle(slots)).await,
            LeaseAction::Share(nodes) => {
                debug!(nodes, "number of living nodes, this one included");
                self.calls.push(KeeperCall::Share(nodes)).await;
            }
            LeaseAction::Left => self.has_left = true,
        }
    }

    /// One line for a share that has changed, when it has settled.
    fn report_share(&mut self) {
        let Some(is_moving) = self.moving.take() else { return };
        let owned = self.ownership.owned().len();
        if let Some(before) = self.share_log.look(owned, is_moving) {
            info!(before, "this node owns {owned} of {SLOTS} slots of accounts");
        }
    }

    fn ask(&mut self, request: LeaseRequest) {
        let (database, me) = (Arc::clone(&self.database), self.view.me().id);
        let limit = self.settings.limit;
        self.request = Some(Box::pin(async move {
            match timeout(limit, database.request(me, &request)).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err("the database does not answer in time".to_owned()),
            }
        }));
    }

    fn revoke(&self, slots: &[Slot]) {
        slots.iter().for_each(|slot| self.ownership.revoke(*slot));
    }
}

/// Reports if slots of this node have an heir that is there, or others have this node as theirs, or slots have no owner.
fn is_moving(me: NodeId, facts: &LeaseFacts) -> bool {
    let is_there = |id: NodeId| facts.nodes.iter().any(|node| node.id == id);
    facts.slots.iter().any(|slot| {
        let heir = slot.heir.filter(|heir| is_there(*heir));
        slot.owner.is_none_or(|owner| !is_there(owner))
            || heir == Some(me)
            || slot.owner == Some(me) && heir.is_some()
    })
}
