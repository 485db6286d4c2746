//! Slots that this node owns and the keeper has not taken yet: tried until it has, or until they are not owned any more.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::SlotKeeper;
use crate::ownership::{Epoch, Ownership, SLOTS, Slot};
use crate::store::StoreError;

/// Pause after slots could not be taken.
const PAUSE: Duration = Duration::from_secs(1);

const ALL: usize = SLOTS as usize;

/// The slots, the next first.
pub(super) struct Takes<'a, K> {
    keeper: &'a K,
    ownership: &'a Ownership,
    waiting: VecDeque<(Slot, Epoch)>,
    attempt: Option<Attempt<'a>>,
    /// When the next attempt begins, after one that failed.
    pause: Option<Instant>,
    /// So many slots are taken at once: fewer after a failure, so that those that cannot be loaded do not hold up the others.
    portion: usize,
}

/// A call of the keeper under way.
struct Attempt<'a> {
    slots: Vec<(Slot, Epoch)>,
    take: Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>,
}

impl<'a, K: SlotKeeper> Takes<'a, K> {
    pub(super) fn new(keeper: &'a K, ownership: &'a Ownership) -> Self {
        let (waiting, attempt, pause) = (VecDeque::new(), None, None);
        Self { keeper, ownership, waiting, attempt, pause, portion: ALL }
    }

    /// The slots are to be taken, in these epochs.
    pub(super) fn add(&mut self, slots: Vec<(Slot, Epoch)>) {
        self.waiting.retain(|(known, _)| !slots.iter().any(|(slot, _)| slot == known));
        self.waiting.extend(slots);
    }

    /// The slots are not to be taken. An attempt that includes any is cancelled, and begins again without them.
    pub(super) fn withdraw(&mut self, slots: &[Slot]) {
        let is_withdrawn = |(slot, _): &(Slot, Epoch)| slots.contains(slot);
        self.waiting.retain(|found| !is_withdrawn(found));
        self.attempt.take_if(|attempt| attempt.slots.iter().any(is_withdrawn));
    }

    /// Begins an attempt, or goes on with the one under way until it ends. Never returns if there is nothing to take. May be
    /// cancelled.
    pub(super) async fn go_on(&mut self) {
        let Some(attempt) = &mut self.attempt else { return self.begin().await };
        let result = attempt.take.as_mut().await;
        let Some(Attempt { slots, .. }) = self.attempt.take() else { return };
        match result {
            Ok(()) => {
                self.waiting.retain(|found| !slots.contains(found));
                self.portion = self.portion.saturating_mul(2);
            }
            Err(error) => self.failed(&slots, &error),
        }
    }

    async fn begin(&mut self) {
        self.waiting.retain(|(slot, epoch)| self.ownership.epoch(*slot) == Some(*epoch));
        if self.waiting.is_empty() {
            (self.pause, self.portion) = (None, ALL);
            return pending().await;
        }
        if let Some(end) = self.pause {
            sleep_until(end).await;
            self.pause = None;
            // Some may be lost by now.
            return;
        }
        let slots: Vec<(Slot, Epoch)> = self.waiting.iter().copied().take(self.portion).collect();
        let take = self.keeper.take(slots.iter().map(|(slot, _)| *slot).collect());
        self.attempt = Some(Attempt { slots, take: Box::pin(take) });
    }

    /// The slots are tried again after the others.
    fn failed(&mut self, slots: &[(Slot, Epoch)], error: &StoreError) {
        warn!(slots = slots.len(), "accounts cannot be loaded, and are tried again: {error}");
        let is_tried = |found: &(Slot, Epoch)| slots.contains(found);
        let (tried, others): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(is_tried);
        self.waiting.extend(others.into_iter().chain(tried));
        self.pause = Some(Instant::now() + PAUSE);
        self.portion = (slots.len() / 2).max(1);
    }
}
