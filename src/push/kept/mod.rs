//! Kept sessions: a client's upstream session goes on after the client hung up, watches for new mail, and is returned when
//! the client logs in again (docs/keeping.md).
//!
//! The interface is [`KeptSessions`], one for the process, and [`KeptClient`], one for each client session. If sessions are
//! not kept, both do nothing.

mod client;
mod client_guard;
mod device_waker;
mod due_accounts;
pub mod observer;
mod password_hash;
mod pool;
mod resume_ticket;
mod session_observer;
mod shown;
pub(super) mod state;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::watcher::Watchers;
use crate::account::AccountId;
use crate::config;
use crate::credentials::{CredentialKind, Credentials};
use crate::tls::stream::Stream;
use crate::upstream::capabilities::Capabilities;
use crate::upstream::connect::Connected;
use crate::upstream::login_machine::LoggedIn;
use crate::upstream::route::Target;
use client::ConnectedClient;
pub use client::{DrainedSession, KeptClient};
use client_guard::ClientGuard;
use device_waker::DeviceWaker;
use password_hash::{HashRequester, PasswordHasher};
use pool::SessionPool;
#[cfg(test)]
pub(super) use pool::{OfferedSession, WatchAbilities};
use resume_ticket::ResumeTicket;
use session_observer::SessionObserver;

/// Time limit for a session to be restored to its state after the login.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// The kept sessions of the process; none where sessions are not kept. Clones are handles of the same ones.
#[derive(Clone, Default)]
pub struct KeptSessions(Option<Keeper>);

#[derive(Clone)]
struct Keeper {
    pool: SessionPool,
    hasher: PasswordHasher,
}

/// A client's login.
#[derive(Clone, Copy)]
pub struct ClientLogin<'a> {
    /// The route's target.
    pub target: &'a Target,
    /// The account.
    pub account: &'a AccountId,
    /// The credentials that the mail server gets.
    pub credentials: &'a Credentials,
    /// The client's address, to the precision in which clients are told apart.
    pub client: IpAddr,
}

/// The outcome of the attempt to resume a kept session.
pub enum Resumption {
    /// The login has the session, as it was after its own login.
    Resumed(Box<Connected>, KeptLogin),
    /// The password is that of a kept session, and the session could not be returned.
    Recognized,
    /// There is no kept session that this login may have.
    None,
}

/// The kept part of an accepted login.
#[derive(Default)]
pub struct KeptLogin {
    /// The ticket for which the session may be resumed when it was kept.
    ticket: Option<Arc<ResumeTicket>>,
    /// The guard of the client, if it has resumed a session.
    guard: Option<ClientGuard>,
}

impl KeptSessions {
    /// Kept sessions next to `watchers`, if the registry of these keeps sessions. [`run`](Self::run) has to be called.
    #[must_use]
    pub fn new(watchers: &Watchers, settings: &config::KeepSettings) -> Self {
        let context = watchers.context();
        let keeps = context.registry.keeps_sessions();
        Self(keeps.then(|| {
            let pool = SessionPool::new(Arc::clone(context), settings.clone());
            Keeper { pool, hasher: PasswordHasher::default() }
        }))
    }

    #[cfg(test)]
    pub(super) fn offer(&self, session: OfferedSession) {
        self.0.as_ref().unwrap().pool.keep(session);
    }

    /// Wakes the devices of accounts without a session, until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        match self.0 {
            Some(Keeper { pool, .. }) => DeviceWaker::new(pool).run(stop).await,
            None => stop.cancelled().await,
        }
    }

    /// The credentials that a client session holds for the account's watch: none where the session itself is kept.
    #[must_use]
    pub fn held_credentials(&self, credentials: &Credentials) -> Option<Arc<Credentials>> {
        self.0.is_none().then(|| Arc::new(credentials.to_keep()))
    }

    /// Resumes the account's kept session, if this login has the session's password and target. The mail server is not asked:
    /// another password is for it to judge.
    pub async fn resume(&self, login: ClientLogin<'_>) -> Resumption {
        let Some(keeper) = &self.0 else { return Resumption::None };
        let Some(ticket) = keeper.recognize(login).await else { return Resumption::None };
        match keeper.return_session(login.account, &ticket).await {
            Some((stream, guard)) => {
                let connected =
                    Connected { stream, logged_in: ticket.logged_in(), rest: Vec::new() };
                let login = KeptLogin { ticket: Some(ticket), guard: Some(guard) };
                Resumption::Resumed(Box::new(connected), login)
            }
            None => Resumption::Recognized,
        }
    }

    /// Records that the mail server has accepted a login: an earlier password resumes no session any more, and this one may
    /// resume the new session.
    pub async fn accepted(&self, login: ClientLogin<'_>, logged_in: &LoggedIn) -> KeptLogin {
        let Some(keeper) = &self.0 else { return KeptLogin::default() };
        // An earlier password may have been changed since.
        keeper.pool.revoke(login.account);
        let ticket = keeper.ticket(login, logged_in).await.map(Arc::new);
        KeptLogin { ticket, guard: None }
    }

    /// The handle of a client that has logged in.
    #[must_use]
    pub fn client(
        &self,
        account: &AccountId,
        capabilities: &Capabilities,
        login: KeptLogin,
    ) -> KeptClient {
        let Some(Keeper { pool, .. }) = &self.0 else { return KeptClient::default() };
        KeptClient::from(ConnectedClient {
            observer: SessionObserver::new(pool.clone(), account.clone()),
            guard: login.guard.unwrap_or_else(|| ClientGuard::new(pool.clone(), account.clone())),
            abilities: capabilities.into(),
            since: Instant::now(),
            ticket: login.ticket,
        })
    }
}

impl Keeper {
    /// The ticket of the account's kept session, if this login has its password.
    async fn recognize(&self, login: ClientLogin<'_>) -> Option<Arc<ResumeTicket>> {
        let ticket = self.pool.ticket(login.account)?;
        let ClientLogin { target, credentials, client, .. } = login;
        let is_possible =
            credentials.kind == CredentialKind::Password && ticket.fits(target, client);
        let is_same = is_possible
            && self.hasher.is_same(&credentials.password, &ticket.hash, login.requester()).await;
        is_same.then_some(ticket)
    }

    /// The connection of the kept session that this ticket is for, once the session is as it was after its login.
    async fn return_session(
        &self,
        account: &AccountId,
        ticket: &Arc<ResumeTicket>,
    ) -> Option<(Stream, ClientGuard)> {
        let request = self.pool.take_return_sender(account, ticket)?;
        // From here on the client counts as connected: no device is woken.
        let guard = ClientGuard::new(self.pool.clone(), account.clone());
        let (give, given) = oneshot::channel();
        request.send(give).ok()?;
        let stream = timeout(RETURN_LIMIT, given).await.ok()?.ok()?;
        Some((stream, guard))
    }

    /// The ticket for which a new session may be resumed.
    async fn ticket(&self, login: ClientLogin<'_>, logged_in: &LoggedIn) -> Option<ResumeTicket> {
        let is_wanted = self.pool.settings().hand_back
            && login.credentials.kind == CredentialKind::Password
            && self.pool.has_device(login.account);
        if !is_wanted {
            return None;
        }
        let hash = self.hasher.hash(&login.credentials.password, login.requester()).await?;
        Some(ResumeTicket::new(hash, login.target, login.client, logged_in))
    }
}

impl ClientLogin<'_> {
    fn requester(&self) -> HashRequester {
        HashRequester { account: self.account.clone(), prefix: self.client }
    }
}
