//! What a session can do for its account: keep its tokens, tell where it waits.

use std::sync::{Arc, OnceLock};

use tracing::{debug, info, warn};

use super::relay::{self, Performed};
use super::session::Request;
use crate::account::AccountId;
use crate::push::board::Board;
use crate::push::registry::Registry;
use crate::push::standing::standing;
use crate::secret::{Credentials, DeviceToken};
use crate::telemetry::{Event, Way};

/// The account of one session.
pub(super) struct AccountHandle {
    pub(super) registry: Registry,
    pub(super) account: AccountId,
    pub(super) credentials: Arc<Credentials>,
    pub(super) session: u64,
    pub(super) board: Board,
    /// Pushes wait for other devices: it is noted that the session's device fetches.
    pub(super) has_grace: bool,
    /// The token that the session's device has handed over.
    pub(super) device: OnceLock<DeviceToken>,
}

impl relay::Account for AccountHandle {
    fn tokens(&self) -> Vec<DeviceToken> {
        self.registry.tokens(&self.account)
    }

    fn push_status(&self) -> String {
        standing(&self.registry, &self.board, &self.account, &self.credentials)
    }

    fn idles_in(&self, mailbox: &str) {
        // Where other programs of the account wait is no business of its phones'.
        if self.device.get().is_none() || !self.registry.must_note_idle(&self.account, mailbox) {
            return;
        }
        let (registry, account, mailbox) = (self.registry.clone(), self.account.clone(), mailbox.to_owned());
        tokio::spawn(async move {
            if let Err(error) = registry.client_idles(&account, &mailbox).await {
                debug!(%account, "where the client waits could not be noted: {error}");
            }
        });
    }

    fn fetches(&self) {
        let token = self.device.get();
        if let (true, Some(token)) = (self.has_grace, token) {
            self.board.device_fetches(&self.account, token);
        }
        let (session, account) = (self.session, &self.account);
        self.board.telemetry().tell(&Event::Fetched { session, account, token });
    }

    fn relayed(&self, way: Way, bytes: usize) {
        self.board.telemetry().metrics().add_relayed(way, bytes);
    }

    fn perform(&self, request: Request) -> Performed {
        if let Request::AddToken(token) = &request {
            // A client hands over one token in a session; with another one it is the first that counts here.
            let _ = self.device.set(token.clone());
        }
        let (registry, account, session) = (self.registry.clone(), self.account.clone(), self.session);
        let credentials = Arc::clone(&self.credentials);
        let known = registry.tokens(&account);
        let telemetry = self.board.telemetry().clone();
        Box::pin(async move {
            let result = match &request {
                Request::AddToken(token) => registry.register(&account, &credentials, token).await,
                Request::RemoveTokens => registry.remove_all(&account).await,
            };
            if let (Ok(()), Request::AddToken(token)) = (&result, &request) {
                telemetry.tell(&Event::Registered { session, account: &account, token });
            }
            match (&result, &request) {
                (Ok(()), Request::AddToken(token)) if known.contains(token) => {
                    debug!(session, %account, %token, "device token seen again");
                }
                (Ok(()), Request::AddToken(token)) => {
                    info!(session, %account, %token, "device token registered");
                    if registry.credentials(&account).is_none() {
                        info!(session, %account, "not watched: its client's login leaves nothing to log in with again");
                    }
                }
                (Ok(()), Request::RemoveTokens) => info!(session, %account, "device tokens removed"),
                (Err(error), _) => warn!(session, %account, "the device token could not be stored: {error}"),
            }
            result.is_ok()
        })
    }
}
