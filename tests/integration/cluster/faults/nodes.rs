//! The nodes, which break.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::super::super::faults::lane::{Breakable, Span};
use super::super::super::faults::ledger::Kind;
use super::super::super::support::network::Manner;
use super::super::scene::Node;
use super::books::Books;
use super::database::Databases;
use super::outages::{Outages, Part};
use super::takeovers::{Begin, Takeovers};
use super::ways::{SHORT_PAUSE, Ways};

/// Longer than a lease.
const LONG_PAUSE: Span = Span(9_300, 10_000);

/// Most accounts of a node that are sent a message when it fails.
const PROBES: usize = 5;

/// A fault of a node.
#[derive(Clone, Copy)]
pub(super) enum NodeFault {
    /// It is killed at any instant, and started again.
    Kill,
    /// It stands still for longer than its lease.
    Stop,
    /// It leaves in good order, and comes back.
    Leave,
    /// It does not reach the database for longer than its lease.
    Cut,
}

impl NodeFault {
    pub(super) const ALL: [Self; 4] = [Self::Kill, Self::Stop, Self::Leave, Self::Cut];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "node killed",
            Self::Stop => "node stopped for longer than its lease",
            Self::Leave => "node left, and joined",
            Self::Cut => "node cut off from the database for longer than its lease",
        }
    }
}

/// The nodes, which end, stand still, and lose the database.
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    pub(super) books: Arc<Books>,
    pub(super) databases: Arc<Databases>,
    pub(super) takeovers: Arc<Takeovers>,
    pub(super) outages: Arc<Outages>,
    pub(super) ways: Ways,
}

impl Nodes {
    /// A node that owns accounts that get mail, and some of them.
    pub(super) async fn with_accounts(&self, rng: &mut Rng) -> (usize, Vec<usize>) {
        loop {
            let index = rng.usize(0..self.nodes.len());
            let found = self.accounts_of(index, rng).await;
            if !found.is_empty() {
                return (index, found);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Some of the accounts of a node that get mail.
    pub(super) async fn accounts_of(&self, index: usize, rng: &mut Rng) -> Vec<usize> {
        let owned = self.databases.owned_by(&self.nodes[index].name).await;
        let accounts = self.books.accounts.iter().enumerate();
        let mut found: Vec<usize> = accounts
            .filter(|(_, account)| !account.quiet && owned.contains(&account.user))
            .map(|(account, _)| account)
            .collect();
        rng.shuffle(&mut found);
        found.truncate(PROBES);
        found
    }

    /// A fault of a node begins. Returns the number of the outage, and the time.
    pub(super) fn strike(&mut self, index: usize, fault: NodeFault) -> (usize, Instant) {
        let Node { name, deltapush, to_database, .. } = &mut self.nodes[index];
        let outage = self.outages.begin(fault.name(), Part::Node(name.clone()));
        let began = Instant::now();
        match fault {
            NodeFault::Kill => block_in_place(|| deltapush.kill()),
            NodeFault::Stop => deltapush.signal("STOP"),
            NodeFault::Leave => deltapush.signal("TERM"),
            NodeFault::Cut => to_database.iter().for_each(|way| {
                way.reachable(false);
                way.present(Manner::Reset);
            }),
        }
        (outage, began)
    }

    /// The fault of a node ends.
    pub(super) fn recover(&mut self, index: usize, fault: NodeFault) {
        let Node { deltapush, to_database, .. } = &mut self.nodes[index];
        match fault {
            NodeFault::Kill => block_in_place(|| deltapush.start_at_last()),
            NodeFault::Stop => deltapush.signal("CONT"),
            NodeFault::Leave => block_in_place(|| {
                deltapush.ends();
                deltapush.start_at_last();
            }),
            NodeFault::Cut => to_database.iter().for_each(|way| way.heal()),
        }
    }
}

impl Breakable for Nodes {
    type Fault = NodeFault;

    async fn meet(&mut self, fault: NodeFault, rng: &mut Rng) -> &'static str {
        let (index, accounts) = self.with_accounts(rng).await;
        let is_broken = Arc::clone(&self.ways.0[index].is_broken);
        let _broken = match fault {
            NodeFault::Cut => Some(is_broken.lock().await),
            _ => None,
        };
        let (outage, began) = self.strike(index, fault);
        let mut probes = Vec::new();
        for account in accounts {
            probes.push(self.books.put(account, Kind::News).await);
        }
        let node = &self.nodes[index].name;
        self.takeovers.add(fault.name(), node, Begin::At(began), probes, None);
        match fault {
            NodeFault::Kill => SHORT_PAUSE.pass(rng).await,
            NodeFault::Stop | NodeFault::Cut => LONG_PAUSE.pass(rng).await,
            NodeFault::Leave => {}
        }
        self.recover(index, fault);
        self.outages.end(outage);
        fault.name()
    }
}
