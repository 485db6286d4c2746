//! News of accounts that another node owns: it is judged here, stored for the owner, and announced by the owner.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::debug;

use super::catch_up::OpenedMailbox;
use super::judged::JudgedNews;
use super::types::{NewsError, NewsOutcome, ServerNews};
use super::{NewsReceiver, WatchContext};
use crate::account::AccountId;
use crate::bounded::Bounded;
use crate::mailbox_name::MailboxName;
use crate::push::account::Account;
use crate::push::filter::{PushDecision, SkipReason};
use crate::push::registry::{INBOX, Visit};
use crate::secret::DeviceToken;
use crate::store::{
    Announce, ForwardOutcome, ForwardedFact, Position, StoreError, ToldMessage, UnixTime, change,
};

/// So many accounts of other nodes stay in memory after news of them,
const MAX_GUESTS: usize = 4096;
/// for so long. Their rate and the identifiers of their messages are known as long.
const GUEST_TIME: Duration = Duration::from_secs(600);

/// Accounts of other nodes of which a mail server told here.
#[derive(Debug)]
pub(in crate::push) struct NewsGuests(Mutex<Bounded<AccountId, Visit>>);

impl Default for NewsGuests {
    fn default() -> Self {
        Self(Mutex::new(Bounded::new(MAX_GUESTS, GUEST_TIME)))
    }
}

impl NewsGuests {
    /// The account, which is loaded if it is not in memory. None if the database is away.
    async fn get(&self, context: &WatchContext, id: &AccountId) -> Option<std::sync::Arc<Account>> {
        let visit = context.registry.visit(id).await;
        let now = Instant::now().into_std();
        let known = context.registry.get(id);
        if known.is_some() {
            let mut guests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            guests.entry(id.clone(), now, || visit);
        }
        known
    }
}

/// A fact for the owner of an account, as it is stored.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredFact {
    /// The mail server told of a message.
    Told {
        mailbox: String,
        uid: Option<u64>,
        uid_validity: Option<u64>,
        ids: Vec<u64>,
        /// Why it is not pushed.
        skipped: Option<StoredReason>,
    },
    /// A client has opened a mailbox.
    Opened {
        mailbox: String,
        uid_validity: u64,
        uid_next: u64,
        /// The short hash of its token.
        device: Option<u32>,
    },
}

/// A reason, as it is stored.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredReason(#[serde(with = "ReasonName")] SkipReason);

/// The names of reasons. The filter itself knows nothing of how they are stored.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SkipReason")]
enum ReasonName {
    Seen,
    Deleted,
    Junk,
    AutoSubmitted,
    OwnMail,
    NotChat,
    NotEncrypted,
}

impl From<&JudgedNews> for StoredFact {
    fn from(judged: &JudgedNews) -> Self {
        Self::Told {
            mailbox: judged.mailbox.to_string(),
            uid: judged.message.map(|message| message.uid),
            uid_validity: judged.message.and_then(|message| message.uid_validity),
            ids: judged.ids.clone(),
            skipped: match judged.decision {
                PushDecision::Push => None,
                PushDecision::Skip(reason) => Some(StoredReason(reason)),
            },
        }
    }
}

impl NewsReceiver {
    /// Forwards news to the node that owns the account.
    pub(super) async fn forward_news(
        &self,
        id: &AccountId,
        news: &ServerNews,
    ) -> Result<NewsOutcome, NewsError> {
        let context = &self.context;
        let guest = context.guests.get(context, id).await;
        let account = guest.ok_or(NewsError::Store(StoreError::NotWritten))?;
        let judged = match self.judge(&account, news) {
            Ok(judged) => judged,
            Err(outcome) => return outcome,
        };
        judged.remember(&account);
        let forwarded = self.forward(id, &StoredFact::from(&judged)).await;
        if !matches!(forwarded, Ok(ForwardOutcome::Stored)) {
            account.forget_woken_for(&judged.ids);
        }
        match forwarded? {
            ForwardOutcome::Nobody => Ok(NewsOutcome::NoDevice),
            ForwardOutcome::Full => Err(NewsError::TooMany),
            ForwardOutcome::Stored => Ok(judged.outcome()),
        }
    }

    /// Forwards the word that a client has opened a mailbox.
    pub(super) async fn forward_opened(
        &self,
        id: &AccountId,
        device: Option<&DeviceToken>,
        OpenedMailbox { mailbox, position }: &OpenedMailbox,
    ) -> Result<(), StoreError> {
        let opened = StoredFact::Opened {
            mailbox: mailbox.to_string(),
            uid_validity: position.uid_validity,
            uid_next: position.uid_next,
            device: device.map(DeviceToken::short_hash),
        };
        self.forward(id, &opened).await.map(drop)
    }

    async fn forward(
        &self,
        id: &AccountId,
        fact: &StoredFact,
    ) -> Result<ForwardOutcome, StoreError> {
        let data = serde_json::to_vec(fact).unwrap_or_default();
        self.context.registry.commit(change::forward(id, data, UnixTime::now())).await
    }

    /// Takes in a fact that another node has forwarded to this one, which owns the account.
    ///
    /// # Errors
    /// [`StoreError`]: it is still there.
    pub(in crate::push) async fn take_in(&self, fact: ForwardedFact) -> Result<(), StoreError> {
        let ForwardedFact { id, account, data } = fact;
        // An account without a device has no facts. This one is just being loaded.
        let known = self.context.registry.get(&account).ok_or(StoreError::NotOwner)?;
        match serde_json::from_slice(&data).ok() {
            Some(StoredFact::Told { mailbox, uid, uid_validity, ids, skipped }) => {
                let judged = JudgedNews {
                    mailbox: MailboxName::from(mailbox),
                    message: uid.map(|uid| ToldMessage { uid, uid_validity }),
                    ids,
                    decision: skipped
                        .map_or(PushDecision::Push, |reason| PushDecision::Skip(reason.0)),
                };
                return self.take_in_news(id, &known, &judged).await;
            }
            Some(StoredFact::Opened { mailbox, uid_validity, uid_next, device }) => {
                let device = known.tokens().into_iter().find(|it| Some(it.short_hash()) == device);
                let position = Position { uid_validity, uid_next };
                let opened = OpenedMailbox { mailbox: MailboxName::from(mailbox), position };
                self.compare(&account, device.as_ref(), &opened).await?;
            }
            None => return self.take_in_unknown(id, &known).await,
        }
        self.context.registry.commit(change::taken_in(id, |_| Ok(()))).await.map(drop)
    }

    /// Takes in a fact that this version cannot read: a newer node has written it, perhaps of a new message, and a phone that is
    /// woken in vain loses nothing.
    async fn take_in_unknown(&self, id: i64, account: &Account) -> Result<(), StoreError> {
        debug!(%account, "what another node has forwarded cannot be read: its devices are woken");
        let registry = &self.context.registry;
        registry.told_elsewhere(account, id, None, INBOX, Announce::All).await.map(drop)
    }

    async fn take_in_news(
        &self,
        id: i64,
        account: &Account,
        judged: &JudgedNews,
    ) -> Result<(), StoreError> {
        let (arrived, registry) = (Instant::now(), &self.context.registry);
        // The node that was told has limited its rate.
        account.accept_news();
        if judged.is_known(account) {
            return registry.commit(change::taken_in(id, |_| Ok(()))).await.map(drop);
        }
        let wakes = self.wakes(account, judged);
        let told =
            registry.told_elsewhere(account, id, judged.message, &judged.mailbox, wakes).await;
        match told {
            Ok(is_new) => self.stored(account, judged, is_new, arrived),
            Err(_) => self.not_stored(account, judged),
        }
        told.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_they_were_stored() {
        let told = StoredFact::Told {
            mailbox: "INBOX".into(),
            uid: Some(7),
            uid_validity: None,
            ids: vec![u64::MAX],
            skipped: Some(StoredReason(SkipReason::OwnMail)),
        };
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(
            text,
            r#"{"told":{"mailbox":"INBOX","uid":7,"uid_validity":null,"ids":[18446744073709551615],"skipped":"OwnMail"}}"#
        );
        assert_eq!(serde_json::from_str::<StoredFact>(&text).unwrap(), told);
        assert!(serde_json::from_str::<StoredFact>(r#"{"later":{}}"#).is_err());
    }
}
