//! The accounts of this node, counted, as it reports them to the others.

use super::Registry;
use crate::account::AccountId;
use crate::push::account::{Account, WatchNeed};
use crate::push::watch_status::WatchState;
use crate::store::NodeCounts;

/// The condition of an account's watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Watched,
    /// It has not begun, or logs in.
    Connecting,
    /// It was interrupted, or has ended.
    Troubled,
    /// The mail server tells of new mail.
    Told,
    WaitsForLogin,
    Unusable,
}

impl Registry {
    /// The accounts that are watched by this node, counted. That takes time by their number: it is not for each renewal of a
    /// lease.
    #[must_use]
    pub fn count_accounts(&self) -> NodeCounts {
        let mut counts = NodeCounts {
            clients: self.telemetry().metrics().connections(),
            quarantined: self.quarantined_tokens(),
            ..NodeCounts::default()
        };
        self.0.accounts.each_here(|account| {
            let (condition, tokens) = condition(account);
            counts.accounts += 1;
            counts.devices += tokens;
            match condition {
                Condition::Watched => counts.watched += 1,
                Condition::Connecting => {}
                Condition::Troubled => counts.troubled += 1,
                Condition::Told => counts.told += 1,
                Condition::WaitsForLogin => counts.waiting += 1,
                Condition::Unusable => counts.unusable += 1,
            }
        });
        counts
    }

    /// The first `limit` accounts by name that are watched by this node, and whose watch needs attention.
    #[must_use]
    pub fn troubled(&self, limit: usize) -> Vec<AccountId> {
        use Condition::{Connecting, Told, Watched};
        let mut found = Vec::new();
        self.0.accounts.each_here(|account| {
            if !matches!(condition(account).0, Watched | Connecting | Told) {
                found.push(account.id.clone());
            }
        });
        found.sort_unstable();
        found.truncate(limit);
        found
    }
}

/// The condition, and the number of tokens.
fn condition(account: &Account) -> (Condition, usize) {
    let (need, tokens) = account.watch_need();
    let state = account.watch.state_index();
    let condition = match need {
        WatchNeed::Nothing => Condition::Told,
        WatchNeed::Credentials => Condition::WaitsForLogin,
        WatchNeed::OtherLogin => Condition::Unusable,
        WatchNeed::Session if state == Some(WatchState::Watching.index()) => Condition::Watched,
        WatchNeed::Session if state.is_none_or(|state| state == WatchState::Connecting.index()) => {
            Condition::Connecting
        }
        WatchNeed::Session => Condition::Troubled,
    };
    (condition, tokens)
}
