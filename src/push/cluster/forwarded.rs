//! Facts that other nodes have forwarded to the owner of an account: taken in one after the other, beside the event log.

use std::collections::HashSet;

use tokio::time::{Duration, sleep};
use tracing::debug;

use super::{NodeAccounts, SharedState};
use crate::ownership::Slot;
use crate::push::server_news::NewsReceiver;
use crate::store::StoreError;

/// Pause after facts could not be taken in.
const PAUSE: Duration = Duration::from_secs(1);

impl<S: SharedState> NodeAccounts<S> {
    /// Takes in what is forwarded to this node. Never ends.
    pub(super) async fn take_in_forwarded(&self) {
        loop {
            let mut slots = self.forwarded.next().await;
            // Of others their owner takes it in; of those that come later it is looked for then.
            slots.retain(|slot| self.registry().ownership().epoch(*slot).is_some());
            if let Err(error) = self.take_in(&slots).await {
                debug!("cannot take in what other nodes were told: {error}");
                sleep(PAUSE).await;
                self.forwarded.add(slots);
            }
        }
    }

    async fn take_in(&self, slots: &HashSet<Slot>) -> Result<(), StoreError> {
        if slots.is_empty() {
            return Ok(());
        }
        let slots: Vec<Slot> = slots.iter().copied().collect();
        let receiver = NewsReceiver::of(&self.context);
        let mut taken = Ok(());
        for fact in self.state.forwarded(&slots).await? {
            // One that has to wait holds up no other account's.
            if let Err(error) = receiver.take_in(fact).await {
                taken = Err(error);
            }
        }
        taken
    }
}
