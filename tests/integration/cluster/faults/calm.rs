//! Takeovers while nothing else is broken: each is judged by its full bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::super::super::faults::lane::Span;
use super::super::super::faults::ledger::{Delivered, Kind};
use super::super::super::support::poll;
use super::super::scene::{MOVE, is_fair};
use super::nodes::{NodeFault, Nodes};
use super::takeovers::{ANNOUNCED, Begin, TAKEN_OVER};

/// Between two messages of a sender that goes on while shares move.
const PAUSE: Span = Span(50, 150);

/// A sender of messages to some accounts, which goes on until it is stopped.
struct Sender {
    is_over: Arc<AtomicBool>,
    sending: JoinHandle<Vec<Delivered>>,
}

impl Sender {
    fn start(nodes: &Nodes, accounts: Vec<usize>, mut rng: Rng) -> Self {
        let (books, is_over) = (Arc::clone(&nodes.books), Arc::<AtomicBool>::default());
        let over = Arc::clone(&is_over);
        let sending = tokio::spawn(async move {
            let mut delivered = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let account = accounts[rng.usize(0..accounts.len())];
                delivered.push(books.put(account, Kind::News).await);
                PAUSE.pass(&mut rng).await;
            }
            delivered
        });
        Self { is_over, sending }
    }

    async fn stop(self) -> Vec<Delivered> {
        self.is_over.store(true, Ordering::SeqCst);
        self.sending.await.unwrap()
    }
}

impl Nodes {
    /// A node leaves, and then nodes fail, two at once: each fault happens, and one of them again.
    pub(super) async fn break_in_calm(&mut self, rng: &mut Rng) {
        self.share("nodes have joined", rng).await;
        self.leave(rng).await;
        let mut faults = vec![NodeFault::Kill, NodeFault::Stop, NodeFault::Cut];
        faults.push(faults[rng.usize(0..faults.len())]);
        rng.shuffle(&mut faults);
        for pair in faults.chunks(2) {
            self.share("nodes are back", rng).await;
            self.fail(pair, rng).await;
        }
    }

    /// Waits until each node has its share, which moves without a gap.
    async fn share(&self, name: &'static str, rng: &mut Rng) {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let sender = Sender::start(self, self.notified(), rng.fork());
        let deadline = Instant::now() + MOVE;
        loop {
            let shares = self.databases.shares().await;
            if is_fair(&shares, &names) {
                break;
            }
            assert!(Instant::now() < deadline, "{names:?} do not share the slots: {shares:?}");
            sleep(Duration::from_millis(100)).await;
        }
        self.takeovers.add(name, "all", Begin::WithEach, sender.stop().await, Some(ANNOUNCED));
        self.announce(ANNOUNCED).await;
    }

    /// Waits until what was sent is announced: the next fault would hold it up. What is late is told at the end of the run.
    async fn announce(&self, bound: Duration) {
        poll(2 * bound, || self.takeovers.are_over(&self.books)).await;
    }

    /// Accounts that are sent messages that deserve a push.
    fn notified(&self) -> Vec<usize> {
        let accounts = self.books.accounts.iter().enumerate();
        accounts.filter(|(_, account)| !account.quiet).map(|(index, _)| index).collect()
    }

    /// A node leaves: its share moves without a gap.
    async fn leave(&mut self, rng: &mut Rng) {
        let fault = NodeFault::Leave;
        let (index, accounts) = self.with_accounts(rng).await;
        let sender = Sender::start(self, accounts, rng.fork());
        let (outage, _) = self.strike(index, fault);
        block_in_place(|| self.nodes[index].deltapush.ends());
        let name = self.nodes[index].name.clone();
        self.takeovers.add(
            fault.name(),
            &name,
            Begin::WithEach,
            sender.stop().await,
            Some(ANNOUNCED),
        );
        block_in_place(|| self.nodes[index].deltapush.start_at_last());
        self.outages.end(outage);
    }

    /// Nodes fail at the same time, and come back when others have announced what came.
    async fn fail(&mut self, faults: &[NodeFault], rng: &mut Rng) {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        rng.shuffle(&mut order);
        let mut failed = Vec::new();
        for (fault, index) in faults.iter().zip(order) {
            failed.push((*fault, index, self.accounts_of(index, rng).await));
        }
        let mut struck = Vec::new();
        for (fault, index, accounts) in failed {
            let (outage, began) = self.strike(index, fault);
            struck.push((fault, index, outage, began, accounts));
        }
        for (fault, index, _, began, accounts) in &struck {
            let mut probes = Vec::new();
            for account in accounts {
                probes.push(self.books.put(*account, Kind::News).await);
            }
            let (name, begin) = (&self.nodes[*index].name, Begin::At(*began));
            self.takeovers.add(fault.name(), name, begin, probes, Some(TAKEN_OVER));
        }
        self.announce(TAKEN_OVER).await;
        for (fault, index, outage, ..) in struck {
            self.recover(index, fault);
            self.outages.end(outage);
        }
    }
}
