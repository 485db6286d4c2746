//! Changes of an account that its clients' sessions cause: written to the store, then counted and logged.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::session::{Request, RequestOutcome};
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::push::registry::{AccountOrigin, Registry};
use crate::secret::DeviceToken;
use crate::store::{FetchLesson, StoreError, UnixTime, change};
use crate::telemetry::TelemetryEvent;

/// Stores the mailbox in which a client waits.
pub(super) async fn store_idle(registry: Registry, account: AccountId, mailbox: String) {
    if let Err(error) = registry.client_idles(&account, &mailbox).await {
        debug!(%account, "cannot store the mailbox in which the client waits: {error}");
    }
}

/// Stores which messages the app with this token fetches, and logs a change of what the account's apps fetch.
pub(super) async fn store_lesson(
    registry: Registry,
    account: AccountId,
    token: DeviceToken,
    lesson: FetchLesson,
) {
    let before = registry.fetches_encrypted_only(&account);
    let learned = change::learned(&account, &token, lesson, UnixTime::now());
    if let Err(error) = registry.commit(learned).await {
        debug!(%account, %token, "cannot store which messages the app fetches: {error}");
    }
    match (before, registry.fetches_encrypted_only(&account)) {
        (false, true) => {
            info!(
                %account,
                "the account's apps fetch encrypted messages only: with push.messages: auto, deltapush pushes no others"
            )
        }
        (true, false) => {
            info!(
                %account,
                "an app of the account fetches unencrypted messages: with push.messages: auto, deltapush pushes these \
                 again"
            )
        }
        _ => {}
    }
}

/// The account of a session that asks for a change of its tokens.
pub(super) struct TokenChange {
    pub(super) registry: Registry,
    pub(super) account: AccountId,
    /// The credentials to store with a token.
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) session: u64,
    /// The origin of the account, if it is new.
    pub(super) origin: AccountOrigin,
}

impl TokenChange {
    /// Does what the session asked for. A new account is admitted at once, before the future is polled.
    pub(super) fn perform(
        self,
        request: Request,
    ) -> impl Future<Output = RequestOutcome> + Send + use<> {
        let known = self.registry.tokens(&self.account);
        let admitted = match &request {
            Request::AddToken(_) => self.registry.admit(&self.account, self.origin),
            Request::RemoveTokens => Ok(None),
        };
        async move {
            let Self { session, account, .. } = &self;
            let _admission = match admitted {
                Ok(admission) => admission,
                Err(full) => {
                    debug!(session, %account, "device token refused: {full}");
                    return RequestOutcome::Refused(full);
                }
            };
            let result = match &request {
                Request::AddToken(token) => self.add(token, known.contains(token)).await,
                Request::RemoveTokens => self.remove().await,
            };
            if let Err(error) = &result {
                warn!(session, %account, "the device token could not be stored: {error}");
            }
            result.is_ok().into()
        }
    }

    async fn add(&self, token: &DeviceToken, is_known: bool) -> Result<(), StoreError> {
        let Self { registry, account, session, .. } = self;
        registry.register(account, self.credentials.as_deref(), token).await?;
        let session = *session;
        registry.telemetry().record(&TelemetryEvent::Registered {
            session,
            account: registry.get(account).as_ref().map(|known| &known.telemetry),
            token,
        });
        if is_known {
            debug!(session, %account, %token, "device token seen again");
            return Ok(());
        }
        info!(session, %account, %token, "device token registered");
        let waits_for_credentials = registry
            .get(account)
            .is_some_and(|known| known.is_watched() && known.credentials().is_none());
        if waits_for_credentials && !registry.keeps_sessions() {
            info!(
                session, %account,
                "account not watched: deltapush cannot use this login's credentials again; log in with a password (PLAIN \
                 or LOGIN) to have it watched"
            );
        }
        Ok(())
    }

    async fn remove(&self) -> Result<(), StoreError> {
        let Self { registry, account, session, .. } = self;
        registry.commit(change::remove_account(account)).await?;
        info!(session, %account, "device tokens removed");
        Ok(())
    }
}
