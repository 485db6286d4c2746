//! Accounts without credentials, in slots that have come to this node: nobody can watch them until one of their devices logs in, so
//! these are woken. Once over all nodes in `keep.call_again`, and all nodes together not faster than `keep.calls`.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use super::{NodeAccounts, SharedState};
use crate::config::KeepSettings;

/// Time in which devices may come back by themselves: the end of a node disconnects those that are there.
const BY_THEMSELVES: Duration = Duration::from_secs(5);

/// Bounds on calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallBounds {
    pub(super) by_themselves: Duration,
    /// The least time between two calls of an account.
    pub(super) again: Duration,
    /// The time between two calls, of all nodes together.
    pub(super) interval: Duration,
}

impl From<&KeepSettings> for CallBounds {
    fn from(keep: &KeepSettings) -> Self {
        let (again, interval) = (keep.call_again, keep.calls.interval());
        Self { by_themselves: BY_THEMSELVES, again, interval }
    }
}

impl<S: SharedState> NodeAccounts<S> {
    /// Wakes the devices of accounts in slots that have come. Never ends.
    pub(super) async fn call_back(&self) {
        loop {
            let slots = self.taken.next().await;
            sleep(self.calls.by_themselves).await;
            for account in self.registry().waiting_in(&slots) {
                // The credentials may have come meanwhile, or the slot be gone.
                if !account.is_waiting() {
                    continue;
                }
                match self.registry().call_again(&account, self.calls.again).await {
                    Ok(true) => {
                        info!(%account, "deltapush wakes the account's devices: there are no credentials to watch its mailbox");
                        let nodes = self.registry().ownership().nodes();
                        sleep(
                            self.calls.interval.saturating_mul(u32::try_from(nodes).unwrap_or(1)),
                        )
                        .await;
                    }
                    Ok(false) => {}
                    Err(error) => debug!(%account, "cannot wake the account's devices: {error}"),
                }
            }
        }
    }
}
