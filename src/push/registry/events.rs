//! The events of the registry: to the watcher about accounts, to the notifier about tokens.

use std::time::Duration;

use crate::account::AccountId;
use crate::push::latest::{self, Merge};
use crate::secret::DeviceToken;
use crate::store::Generation;

/// An event for the watcher of accounts. If it is busy, only the last event of an account waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountEvent {
    /// The account is to be watched, with its present credentials. Also sent for an account that is watched already, if it
    /// was removed and came back meanwhile.
    Watch,
    /// The watcher is to log in again, with the present credentials.
    CredentialsChanged,
    /// The mailboxes to watch have changed. Sent only for an account that can be watched.
    MailboxesChanged,
}

impl Merge for AccountEvent {
    fn merge(self, newer: Self) -> Self {
        match (self, newer) {
            // A watch that begins finds credentials and mailboxes as they are then. New credentials alone may be left
            // for the next session.
            (Self::Watch, Self::CredentialsChanged | Self::MailboxesChanged) => Self::Watch,
            (Self::CredentialsChanged, Self::MailboxesChanged)
            | (Self::MailboxesChanged, Self::CredentialsChanged) => Self::MailboxesChanged,
            (_, newer) => newer,
        }
    }
}

/// An event about a token for the notifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It has something to announce.
    Pending {
        /// Up to which generation.
        generation: Generation,
        /// Time since the newest of it was found: more than zero only after a restart.
        age: Duration,
    },
    /// No account has it any more.
    Gone,
    /// Another node posts it.
    Moved,
}

impl Merge for News {
    fn merge(self, newer: Self) -> Self {
        match (self, newer) {
            // News that could not be written has no generation of its own.
            (Self::Pending { generation: older, .. }, Self::Pending { generation, age }) => {
                Self::Pending { generation: generation.max(older), age }
            }
            // Nobody else may know of it yet.
            (older @ Self::Pending { .. }, Self::Moved) => older,
            (_, newer) => newer,
        }
    }
}

/// The events for a supervisor of watchers.
pub type AccountEvents = latest::Receiver<AccountId, AccountEvent>;
/// The news for the notifier.
pub type TokenNews = latest::Receiver<DeviceToken, News>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_outlives_the_word_that_another_node_posts() {
        let pending = News::Pending { generation: Generation(7), age: Duration::ZERO };
        assert_eq!(pending.merge(News::Moved), pending);
        assert_eq!(News::Moved.merge(pending), pending);
        assert_eq!(pending.merge(News::Gone), News::Gone);
        assert_eq!(News::Moved.merge(News::Gone), News::Gone);
    }
}
