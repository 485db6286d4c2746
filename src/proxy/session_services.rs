//! Services of one client session for its account: answers to the session, and the decision which of its reports change the account.
//! The changes are in [`account_changes`](super::account_changes).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::account_changes::{self, TokenChange};
use super::handover::hand_over;
use super::relay::{self, OrphanedSession, Performed};
use super::session::{ObservedEvent, Request};
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::push::kept::KeptClient;
use crate::push::push_status_line::standing;
use crate::push::registry::{AccountOrigin, Registry, Visit};
use crate::push::server_news::{NewsReceiver, OpenedMailbox};
use crate::secret::DeviceToken;
use crate::store::FetchLesson;
use crate::telemetry::{Direction, TelemetryEvent};

/// The account of one session.
pub(super) struct AccountHandle {
    pub(super) registry: Registry,
    pub(super) account: AccountId,
    /// None where sessions are kept.
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) session: u64,
    /// The origin of the account, if it is new.
    pub(super) origin: AccountOrigin,
    /// For so long pushes wait for other devices: it is noted that the session's device fetches.
    pub(super) grace: Duration,
    /// The token that the session's device has handed over.
    pub(super) device: OnceLock<DeviceToken>,
    /// The client, whose session may be kept.
    pub(super) kept: KeptClient,
    /// Takes the position of a mailbox that the client opens; only for an account without a watch.
    pub(super) news: Option<NewsReceiver>,
    /// Keeps the account in memory where its watch is at another node.
    pub(super) _visit: Visit,
}

impl relay::SessionServices for AccountHandle {
    fn tokens(&self) -> Vec<DeviceToken> {
        self.registry.tokens(&self.account)
    }

    fn push_status(&self) -> String {
        standing(&self.registry, &self.account, self.credentials.as_deref())
    }

    fn idles_in(&self, mailbox: &str) {
        self.kept.waits_in(mailbox);
        // The mailbox in which another program of the account waits is no business of its phones.
        if self.device.get().is_none() || !self.registry.must_note_idle(&self.account, mailbox) {
            return;
        }
        let (registry, account) = (self.registry.clone(), self.account.clone());
        tokio::spawn(account_changes::store_idle(registry, account, mailbox.to_owned()));
    }

    fn fetches(&self) {
        let Some(known) = self.registry.get(&self.account) else { return };
        let token = self.device.get();
        if let Some(token) = token {
            self.registry.device_fetches(&known, token, self.grace);
        }
        let (session, account) = (self.session, &known.telemetry);
        self.registry.telemetry().record(&TelemetryEvent::Fetched { session, account, token });
    }

    fn learns(&self, lesson: FetchLesson) {
        let Some(token) = self.device.get() else { return };
        let lesson = match lesson {
            // This device may already have what another device of the account has sent.
            FetchLesson::LeftUnencrypted(mut senders) => {
                senders.retain(|sender| !sender.eq_ignore_ascii_case(self.account.login()));
                FetchLesson::LeftUnencrypted(senders)
            }
            lesson @ FetchLesson::FetchedUnencrypted => lesson,
        };
        if !self.registry.must_note_lesson(&self.account, token, &lesson) {
            return;
        }
        let (registry, account) = (self.registry.clone(), self.account.clone());
        tokio::spawn(account_changes::store_lesson(registry, account, token.clone(), lesson));
    }

    fn background_fetch(&self) {
        let Some(known) = self.registry.get(&self.account) else { return };
        let (session, account) = (self.session, &known.telemetry);
        self.registry.telemetry().record(&TelemetryEvent::BackgroundFetch { session, account });
    }

    fn opened(&self, opened: &OpenedMailbox) {
        let Some(news) = self.news.clone() else { return };
        let opened = opened.clone();
        let (account, device) = (self.account.clone(), self.device.get().cloned());
        tokio::spawn(async move { news.opened(&account, device.as_ref(), opened).await });
    }

    fn on_observed(&self, event: ObservedEvent<'_>) {
        self.kept.on_observed(event);
    }

    fn wants_fetches(&self) -> bool {
        self.kept.wants_fetches()
    }

    fn on_client_gone(self, left: OrphanedSession) {
        tokio::spawn(hand_over(self.account, self.kept, left));
    }

    fn relayed(&self, way: Direction, bytes: usize) {
        self.registry.telemetry().metrics().add_relayed(way, bytes);
    }

    fn perform(&self, request: Request) -> Performed {
        if let Request::AddToken(token) = &request {
            // A client hands over one token in a session; with another one it is the first that counts here.
            let _ = self.device.set(token.clone());
            self.kept.has_device(token);
        }
        let change = TokenChange {
            registry: self.registry.clone(),
            account: self.account.clone(),
            credentials: self.credentials.clone(),
            session: self.session,
            origin: self.origin,
        };
        Box::pin(change.perform(request))
    }
}
