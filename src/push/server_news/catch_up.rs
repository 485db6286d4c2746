//! Catch-up where the mail server's news is all that wakes devices: a client that opens a mailbox shows how far it goes, and so
//! whether the mail server left messages out, for instance while deltapush was down.

use tracing::{debug, info};

use super::NewsReceiver;
use crate::account::AccountId;
use crate::mailbox_name::MailboxName;
use crate::secret::DeviceToken;
use crate::store::{Announce, Noticed, Position, StoreError};
use crate::telemetry::TelemetryEvent;

/// A mailbox that a client has opened, as its server described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedMailbox {
    /// Its name, as it went over the wire.
    pub mailbox: MailboxName,
    /// UIDVALIDITY and UIDNEXT.
    pub position: Position,
}

impl NewsReceiver {
    /// A client with this device, if it has named one, has opened a mailbox of the account. Messages that the mail server did not
    /// tell of wake the other devices: this one fetches them now.
    pub async fn opened(
        &self,
        account: &AccountId,
        device: Option<&DeviceToken>,
        opened: OpenedMailbox,
    ) {
        if let Err(error) = self.compare(account, device, &opened).await {
            debug!(%account, "cannot store the position that the client was shown: {error}");
        }
    }

    pub(super) async fn compare(
        &self,
        id: &AccountId,
        device: Option<&DeviceToken>,
        opened: &OpenedMailbox,
    ) -> Result<(), StoreError> {
        let OpenedMailbox { mailbox, position } = opened;
        let registry = &self.context.registry;
        let Some(account) = registry.get(id).filter(|account| !account.is_watched()) else {
            return Ok(());
        };
        if !self.context.mailboxes(&account).contains(mailbox) {
            return Ok(());
        }
        let positions = registry.positions(id).await?;
        let before =
            positions.into_iter().find(|(name, _)| name == mailbox).map(|(_, before)| before);
        if before == Some(*position) {
            return Ok(());
        }
        if !registry.ownership().has(id) {
            return self.forward_opened(id, device, opened).await;
        }
        let missed = before.map_or(0, |before| new_messages(before, *position));
        let missed = account.take_told_without_uid(missed);
        let announce = match (missed, device) {
            (0, _) => Announce::Nothing,
            (_, Some(device)) => Announce::AllBut(vec![device.clone()]),
            (_, None) => Announce::All,
        };
        let wakes = account.tokens().iter().any(|token| announce.includes(token));
        if registry.noticed(id, mailbox, *position, announce).await? != Noticed::New || missed == 0
        {
            return Ok(());
        }
        account.news_missed(missed);
        info!(
            account = %id, missed,
            "the mail server did not tell of all new messages: deltapush noticed when a client opened the mailbox, and wakes the \
             account's other devices"
        );
        let (account, announce, since) = (&account.telemetry, wakes, None);
        self.context.report(&TelemetryEvent::Noticed { account, mailbox, announce, since });
        Ok(())
    }
}

/// The most messages that came between two positions. After another UIDVALIDITY all of them may be new.
fn new_messages(before: Position, now: Position) -> u64 {
    if before.uid_validity == now.uid_validity {
        now.uid_next.saturating_sub(before.uid_next)
    } else {
        now.uid_next.saturating_sub(1)
    }
}
