//! Handover of a client's upstream session when the client disconnects: it is drained and given to the [kept
//! sessions](crate::push::kept).

mod drain;

use tracing::debug;

use super::relay::OrphanedSession;
use super::session::ChangedState;
use crate::account::AccountId;
use crate::push::idle::InheritedState;
use crate::push::kept::{DrainedSession, KeptClient};
use drain::drain;

/// Hands over the session that a client of the account has left.
pub(super) async fn hand_over(account: AccountId, client: KeptClient, left: OrphanedSession) {
    let OrphanedSession { mut stream, unsent, mut session, mut trace } = left;
    if !client.on_client_gone() {
        debug!(
            %account,
            "session not kept: the account has no device, or another of its clients waits for new mail"
        );
        if drain(&mut stream, &unsent, &mut session, &mut trace).await.is_ok() {
            client.log_out(stream);
        }
        return;
    }
    match drain(&mut stream, &unsent, &mut session, &mut trace).await {
        Ok(()) => {
            let changed = session.changed_state();
            let inherited = InheritedState { utf8: changed.utf8, notify: changed.notify };
            let is_unchanged = changed == ChangedState::default();
            client.keep(DrainedSession { stream, trace, inherited, is_unchanged });
        }
        Err(reason) => {
            debug!(%account, "session not kept: {reason}");
            client.lost(reason);
        }
    }
}
