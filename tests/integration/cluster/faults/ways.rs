//! Ways of the nodes to the database and to the mail server, and the faults on the latter.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Mutex;

use super::super::super::faults::lane::{Breakable, Span};
use super::super::super::support::network::{Manner, Network};
use super::super::scene::Node;
use super::outages::{Outages, Part};

/// Duration of a fault that is over before a lease is.
pub(super) const SHORT_PAUSE: Span = Span(300, 2_000);

/// The ways of one node.
#[derive(Clone)]
pub(super) struct NodeWays {
    pub(super) node: String,
    pub(super) to_database: Vec<Arc<Network>>,
    to_dovecot: Arc<Network>,
    /// Held while the way to the database is broken.
    pub(super) is_broken: Arc<Mutex<()>>,
}

/// The ways of all nodes.
#[derive(Clone)]
pub(super) struct Ways(pub(super) Vec<NodeWays>);

impl Ways {
    pub(super) fn of(nodes: &[Node]) -> Self {
        let ways = |node: &Node| NodeWays {
            node: node.name.clone(),
            to_database: node.to_database.clone(),
            to_dovecot: Arc::clone(&node.to_dovecot),
            is_broken: Arc::default(),
        };
        Self(nodes.iter().map(ways).collect())
    }
}

/// A fault on the ways to the mail server.
#[derive(Clone, Copy)]
pub(super) enum MailFault {
    CutAll,
    ResetSome,
    BlackHole,
    Delay,
    /// One node alone does not reach it.
    OneNode,
}

impl MailFault {
    pub(super) const ALL: [Self; 5] =
        [Self::CutAll, Self::ResetSome, Self::BlackHole, Self::Delay, Self::OneNode];

    fn name(self) -> &'static str {
        match self {
            Self::CutAll => "connections to the mail server closed",
            Self::ResetSome => "connections to it reset",
            Self::BlackHole => "black hole before it",
            Self::Delay => "delay before it",
            Self::OneNode => "mail server out of reach of one node",
        }
    }
}

/// The ways of all nodes to the mail server.
pub(super) struct MailWays {
    pub(super) ways: Ways,
    pub(super) outages: Arc<Outages>,
}

impl Breakable for MailWays {
    type Fault = MailFault;

    async fn meet(&mut self, fault: MailFault, rng: &mut Rng) -> &'static str {
        use MailFault::{BlackHole, CutAll, Delay, OneNode, ResetSome};
        let all = &self.ways.0;
        let concerned = match fault {
            OneNode => std::slice::from_ref(&all[rng.usize(0..all.len())]),
            _ => all,
        };
        let begin = |way: &NodeWays| self.outages.begin(fault.name(), Part::Mail(way.node.clone()));
        let numbers: Vec<_> = concerned.iter().map(begin).collect();
        let delay = Duration::from_millis(rng.u64(50..500));
        for network in concerned.iter().map(|way| &way.to_dovecot) {
            match fault {
                CutAll => network.present(Manner::Closed),
                ResetSome => network.some(60, Manner::Reset, rng),
                BlackHole => network.all(Manner::BlackHole),
                Delay => network.all(Manner::Delayed(delay)),
                OneNode => {
                    network.reachable(false);
                    network.present(Manner::Reset);
                }
            }
        }
        if matches!(fault, BlackHole | Delay | OneNode) {
            SHORT_PAUSE.pass(rng).await;
        }
        concerned.iter().for_each(|way| way.to_dovecot.heal());
        numbers.into_iter().for_each(|number| self.outages.end(number));
        fault.name()
    }
}
