//! The handle of one client whose session may be kept.

use std::sync::Arc;

use tokio::time::Instant;

use super::client_guard::ClientGuard;
use super::observer::ObservedEvent;
use super::pool::{self, OfferedSession, WatchAbilities};
use super::resume_ticket::ResumeTicket;
use super::session_observer::SessionObserver;
use crate::push::idle::InheritedState;
use crate::secret::DeviceToken;
use crate::tls::stream::Stream;
use crate::trace::Recorder;

/// A client whose session may outlive it. Does nothing where sessions are not kept.
#[derive(Default)]
pub struct KeptClient(Option<Box<ConnectedClient>>);

/// A client that is logged in.
pub(super) struct ConnectedClient {
    pub(super) observer: Arc<SessionObserver>,
    pub(super) guard: ClientGuard,
    pub(super) abilities: WatchAbilities,
    /// The time of its login.
    pub(super) since: Instant,
    pub(super) ticket: Option<Arc<ResumeTicket>>,
}

/// The session of a client that is gone, without commands in flight.
pub struct DrainedSession {
    /// The connection to the mail server.
    pub stream: Stream,
    /// The recorder of its trace.
    pub trace: Recorder,
    /// Settings that the client has left in it.
    pub inherited: InheritedState,
    /// Nothing was set in it: it may be resumed.
    pub is_unchanged: bool,
}

impl From<ConnectedClient> for KeptClient {
    fn from(client: ConnectedClient) -> Self {
        Self(Some(Box::new(client)))
    }
}

impl KeptClient {
    /// Reports if the session may be kept.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Records that the client waits for mail in `mailbox`.
    pub fn waits_in(&self, mailbox: &str) {
        if let Some(client) = &self.0 {
            client.guard.waits_in(mailbox);
            client.observer.client_waits(mailbox);
        }
    }

    /// Records the token that the client has handed over.
    pub fn has_device(&self, token: &DeviceToken) {
        if let Some(client) = &self.0 {
            client.observer.has_device(token);
        }
    }

    /// Reports if FETCH responses to the client are worth a copy for [`on_observed`](Self::on_observed).
    #[inline]
    #[must_use]
    pub fn wants_fetches(&self) -> bool {
        self.0.as_ref().is_some_and(|client| client.observer.wants_fetches())
    }

    /// Handles an event of new mail in the client's session.
    pub fn on_observed(&self, event: ObservedEvent<'_>) {
        let Some(client) = &self.0 else { return };
        if matches!(event, ObservedEvent::Opening | ObservedEvent::Closed) {
            client.guard.waits_no_more();
        }
        client.observer.on_observed(event);
    }

    /// Records that the client is gone. Returns true if its session is worth keeping: then it is to be drained, and
    /// [kept](Self::keep), or [lost](Self::lost).
    #[must_use]
    pub fn on_client_gone(&self) -> bool {
        let Some(client) = &self.0 else { return false };
        client.guard.waits_no_more();
        client.observer.mailbox_changed();
        client.observer.needs_session()
    }

    /// Keeps the drained session.
    pub fn keep(self, session: DrainedSession) {
        let Some(client) = self.0 else { return };
        let ConnectedClient { observer, guard, abilities, since, ticket } = *client;
        let DrainedSession { stream, trace, inherited, is_unchanged } = session;
        observer.pool().keep(OfferedSession {
            account: observer.account().clone(),
            stream,
            trace,
            abilities,
            inherited,
            since,
            ticket: ticket.filter(|_| is_unchanged),
        });
        // Not before: the account is never without client and session in between.
        drop(guard);
    }

    /// Logs out of the drained session, which is not worth keeping.
    pub fn log_out(self, stream: Stream) {
        tokio::spawn(pool::log_out(stream));
    }

    /// Records that the session could not be drained, for this reason.
    pub fn lost(self, reason: &'static str) {
        if let Some(mut client) = self.0 {
            client.guard.reason = reason;
        }
    }
}
