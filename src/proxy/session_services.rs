//! Services of one client session for its account: storing tokens, and recording the mailbox in which the client waits.

use std::sync::{Arc, OnceLock};

use tracing::{debug, info, warn};

use super::handover::SessionHandover;
use super::relay::{self, OrphanedSession, Performed};
use super::session::{ObservedEvent, Request, RequestOutcome};
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::push::push_status_line::standing;
use crate::push::registry::{AccountOrigin, Registry};
use crate::secret::DeviceToken;
use crate::store::{FetchLesson, UnixTime, change};
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
    /// Pushes wait for other devices: it is noted that the session's device fetches.
    pub(super) has_grace: bool,
    /// The token that the session's device has handed over.
    pub(super) device: OnceLock<DeviceToken>,
    /// The handover of the session, where it may be kept.
    pub(super) legacy: Option<Box<SessionHandover>>,
}

impl relay::SessionServices for AccountHandle {
    fn tokens(&self) -> Vec<DeviceToken> {
        self.registry.tokens(&self.account)
    }

    fn push_status(&self) -> String {
        standing(&self.registry, &self.account, self.credentials.as_deref())
    }

    fn idles_in(&self, mailbox: &str) {
        if let Some(legacy) = &self.legacy {
            legacy.client_waits(mailbox);
        }
        // Where other programs of the account wait is no business of its phones'.
        if self.device.get().is_none() || !self.registry.must_note_idle(&self.account, mailbox) {
            return;
        }
        let (registry, account, mailbox) =
            (self.registry.clone(), self.account.clone(), mailbox.to_owned());
        tokio::spawn(async move {
            if let Err(error) = registry.client_idles(&account, &mailbox).await {
                debug!(%account, "cannot store the mailbox in which the client waits: {error}");
            }
        });
    }

    fn fetches(&self) {
        let Some(known) = self.registry.get(&self.account) else { return };
        let token = self.device.get();
        if let (true, Some(token)) = (self.has_grace, token) {
            known.watch.device_fetches(token);
        }
        let (session, account) = (self.session, &known.telemetry);
        self.registry.telemetry().tell(&TelemetryEvent::Fetched { session, account, token });
    }

    fn learns(&self, lesson: FetchLesson) {
        let Some(token) = self.device.get() else { return };
        let lesson = match lesson {
            // What another device of the account has sent, this one may have already.
            FetchLesson::LeftUnencrypted(mut senders) => {
                senders.retain(|sender| !sender.eq_ignore_ascii_case(self.account.login()));
                FetchLesson::LeftUnencrypted(senders)
            }
            lesson @ FetchLesson::FetchedUnencrypted => lesson,
        };
        if !self.registry.must_note_lesson(&self.account, token, &lesson) {
            return;
        }
        let (registry, account, token) =
            (self.registry.clone(), self.account.clone(), token.clone());
        tokio::spawn(async move {
            let before = registry.fetches_encrypted_only(&account);
            let learned = change::learned(&account, &token, lesson, UnixTime::now());
            if let Err(error) = registry.commit(learned).await {
                debug!(%account, %token, "cannot store which messages the app fetches: {error}");
            }
            match (before, registry.fetches_encrypted_only(&account)) {
                (false, true) => {
                    info!(
                        %account,
                        "the account's apps fetch encrypted messages only: with push.messages: auto, deltapush pushes \
                         no others"
                    )
                }
                (true, false) => {
                    info!(
                        %account,
                        "an app of the account fetches unencrypted messages: with push.messages: auto, deltapush \
                         pushes these again"
                    )
                }
                _ => {}
            }
        });
    }

    fn background_fetch(&self) {
        let Some(known) = self.registry.get(&self.account) else { return };
        let (session, account) = (self.session, &known.telemetry);
        self.registry.telemetry().tell(&TelemetryEvent::BackgroundFetch { session, account });
    }

    fn sees(&self, glimpse: ObservedEvent<'_>) {
        if let Some(legacy) = &self.legacy {
            legacy.sees(glimpse);
        }
    }

    fn looks_for_mail(&self) -> bool {
        self.legacy.as_ref().is_some_and(|legacy| legacy.looks_for_mail())
    }

    fn inherits(self, left: OrphanedSession) {
        if let Some(legacy) = self.legacy {
            legacy.take(left);
        }
    }

    fn relayed(&self, way: Direction, bytes: usize) {
        self.registry.telemetry().metrics().add_relayed(way, bytes);
    }

    fn perform(&self, request: Request) -> Performed {
        if let Request::AddToken(token) = &request {
            // A client hands over one token in a session; with another one it is the first that counts here.
            let _ = self.device.set(token.clone());
            if let Some(legacy) = &self.legacy {
                legacy.has_device(token);
            }
        }
        let (registry, account, session) =
            (self.registry.clone(), self.account.clone(), self.session);
        let credentials = self.credentials.clone();
        let known = registry.tokens(&account);
        let admitted = match &request {
            Request::AddToken(_) => self.registry.admit(&self.account, self.origin),
            Request::RemoveTokens => Ok(None),
        };
        Box::pin(async move {
            let _admission = match admitted {
                Ok(admission) => admission,
                Err(full) => {
                    debug!(session, %account, "device token refused: {full}");
                    return RequestOutcome::Refused(full);
                }
            };
            let result = match &request {
                Request::AddToken(token) => {
                    registry.register(&account, credentials.as_deref(), token).await
                }
                Request::RemoveTokens => registry.commit(change::remove_account(&account)).await,
            };
            if let (Ok(()), Request::AddToken(token)) = (&result, &request) {
                let known = registry.get(&account);
                let account = known.as_ref().map(|known| &known.telemetry);
                registry.telemetry().tell(&TelemetryEvent::Registered { session, account, token });
            }
            match (&result, &request) {
                (Ok(()), Request::AddToken(token)) if known.contains(token) => {
                    debug!(session, %account, %token, "device token seen again");
                }
                (Ok(()), Request::AddToken(token)) => {
                    info!(session, %account, %token, "device token registered");
                    if registry.credentials(&account).is_none() && !registry.keeps_sessions() {
                        info!(
                            session, %account,
                            "account not watched: deltapush cannot use this login's credentials again; log in with a \
                             password (PLAIN or LOGIN) to have it watched"
                        );
                    }
                }
                (Ok(()), Request::RemoveTokens) => {
                    info!(session, %account, "device tokens removed")
                }
                (Err(error), _) => {
                    warn!(session, %account, "the device token could not be stored: {error}")
                }
            }
            result.is_ok().into()
        })
    }
}
