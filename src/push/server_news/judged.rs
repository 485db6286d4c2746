//! News that was judged: what is left to do is to store it, here or at the node that owns the account.

use super::NewsOutcome;
use crate::mailbox_name::MailboxName;
use crate::push::account::Account;
use crate::push::filter::PushDecision;
use crate::store::ToldMessage;

/// A message that the mail server told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JudgedNews {
    pub(super) mailbox: MailboxName,
    /// None if its UID is not known.
    pub(super) message: Option<ToldMessage>,
    /// Its identifier, if it has one.
    pub(super) ids: Vec<u64>,
    pub(super) decision: PushDecision,
}

impl JudgedNews {
    pub(super) fn is_push(&self) -> bool {
        self.decision == PushDecision::Push
    }

    /// Reports if devices were woken for it, as far as is remembered. One with a UID is told apart by the stored position.
    pub(super) fn is_known(&self, account: &Account) -> bool {
        self.message.is_none() && account.was_woken_for(&self.ids)
    }

    /// Devices are woken for it.
    pub(super) fn remember(&self, account: &Account) {
        if self.is_push() && self.message.is_none() {
            account.remember_woken_for(&self.ids);
        }
    }

    /// The outcome of one that was not known.
    pub(super) fn outcome(&self) -> NewsOutcome {
        match self.decision {
            PushDecision::Push => NewsOutcome::Announced,
            PushDecision::Skip(reason) => NewsOutcome::Skipped(reason.as_str()),
        }
    }
}
