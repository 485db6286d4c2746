//! Deliveries, and their comparison with the POSTs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::StreamExt as _;
use tokio::time::sleep;

use super::super::super::faults::ledger::{self, Account, Delivered, Kind, Tally};
use super::super::super::faults::notifications::{Accepted, Notifications};
use super::super::super::faults::plan::Stream;
use super::super::super::faults::post::{self, Ports};

/// Deliveries at once in the last round.
const AT_ONCE: usize = 8;

/// All that is delivered and announced.
pub(super) struct Books {
    pub(super) accounts: Arc<Vec<Account>>,
    ports: Ports,
    notifications: Arc<Notifications>,
    delivered: Mutex<Vec<Delivered>>,
}

impl Books {
    pub(super) fn new(
        accounts: Arc<Vec<Account>>,
        ports: Ports,
        notifications: Arc<Notifications>,
    ) -> Self {
        Self { accounts, ports, notifications, delivered: Mutex::default() }
    }

    /// Delivers one message, and notes it.
    pub(super) async fn put(&self, account: usize, kind: Kind) -> Delivered {
        let delivered = post::put(self.ports, &self.accounts, account, kind).await;
        self.delivered.lock().unwrap().push(delivered);
        delivered
    }

    /// Delivers the messages of a stream.
    pub(super) async fn deliver(self: &Arc<Self>, stream: Stream, rng: &mut Rng) {
        let books = Arc::clone(self);
        let deliver = move |mut rng: Rng| {
            let books = Arc::clone(&books);
            async move {
                let account = rng.usize(0..books.accounts.len());
                let kind = books.accounts[account].kind(&mut rng);
                books.put(account, kind).await;
            }
        };
        stream.run(rng, deliver).await;
    }

    /// One more message for each account: all are watched.
    pub(super) async fn last_round(&self, patience: Duration) -> Tally {
        let mut putting = futures_util::stream::iter(0..self.accounts.len())
            .map(|account| self.put(account, Kind::News))
            .buffer_unordered(AT_ONCE);
        while putting.next().await.is_some() {}
        self.settle(patience).await
    }

    /// Waits until nothing is missing, for as long as the patience lasts.
    pub(super) async fn settle(&self, patience: Duration) -> Tally {
        let deadline = Instant::now() + patience;
        loop {
            let tally = self.tally();
            if tally.missing.is_empty() || Instant::now() > deadline {
                return tally;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let nobody = |_: &str, _: &str, _| false;
        ledger::compare(&self.accounts, &self.delivered(), &self.accepted(), nobody)
    }

    pub(super) fn delivered(&self) -> Vec<Delivered> {
        self.delivered.lock().unwrap().clone()
    }

    pub(super) fn accepted(&self) -> Vec<Accepted> {
        self.notifications.accepted()
    }

    pub(super) fn strange(&self) -> Vec<String> {
        self.notifications.strange()
    }
}
