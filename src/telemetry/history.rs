//! What happened to each account lately.

use dashmap::DashMap;
use jiff::Timestamp;

use super::Event;
use crate::account::AccountId;

/// When the last push of an account was accepted.
#[derive(Debug, Default)]
pub struct History {
    pushed: DashMap<AccountId, Timestamp>,
}

impl History {
    pub(super) fn note(&self, event: &Event<'_>) {
        if let Event::Posted { accounts, result: super::PostResult::Accepted, .. } = event {
            for account in *accounts {
                self.pushed.insert(account.clone(), Timestamp::now());
            }
        }
    }

    /// When the last push of an account was accepted, since the start.
    #[must_use]
    pub fn last_push(&self, account: &AccountId) -> Option<Timestamp> {
        self.pushed.get(account).map(|at| *at)
    }
}
