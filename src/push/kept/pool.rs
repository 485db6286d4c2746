//! The pool of kept sessions. Each is driven like deltapush's own watch sessions.
//!
//! Of each account the newest session is kept: those before it log out as soon as it watches. When the last one has ended and
//! no client is connected, the account's devices are woken ([`DeviceWaker`](super::device_waker)).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::due_accounts::{DueAccounts, later};
use super::resume_ticket::ResumeTicket;
use super::state::{ReturnSender, SessionEntry};
use crate::account::AccountId;
use crate::config::KeepSettings;
use crate::push::account::Account;
use crate::push::idle::{self, IdleFailure, InheritedState};
use crate::push::registry::Registry;
use crate::push::watch_status::WatchState;
use crate::push::watcher::context::WatchContext;
use crate::push::watcher::session::{
    self, Ended, ReturnRequests, SessionTask, Spare, TakenSession, WatchEnd,
};
use crate::tls::stream::{Stream, receive};
use crate::trace::Recorder;
use crate::upstream::capabilities::Capabilities;

/// Time for a client whose session has ended to come back by itself before its devices are woken.
pub(super) const RETURN_TIME: Duration = Duration::from_secs(30);

/// Time limit of a server for a LOGOUT.
const LOGOUT_TIME: Duration = Duration::from_secs(3);

/// A session that is kept so long after its login counts new mail from the stored position.
const LATE: Duration = Duration::from_secs(60);

/// All kept sessions. Clones are handles of the same pool.
#[derive(Clone)]
pub(super) struct SessionPool(Arc<PoolShared>);

struct PoolShared {
    context: Arc<WatchContext>,
    settings: KeepSettings,
    /// Room for accounts with a kept session.
    room: Arc<Semaphore>,
    next: AtomicU64,
    /// Accounts whose devices are to be woken.
    due: DueAccounts,
}

/// A session for the pool: authenticated, and without commands in flight.
pub(in crate::push) struct OfferedSession {
    pub(in crate::push) account: AccountId,
    pub(in crate::push) stream: Stream,
    pub(in crate::push) trace: Recorder,
    pub(in crate::push) abilities: WatchAbilities,
    /// Settings that the client has left in it.
    pub(in crate::push) inherited: InheritedState,
    /// The time of the client's login.
    pub(in crate::push) since: Instant,
    /// The ticket for which it may be resumed: only of a session in which nothing was set.
    pub(in crate::push) ticket: Option<Arc<ResumeTicket>>,
}

/// Capabilities of a mail server that a watch uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::push) struct WatchAbilities {
    /// IDLE (RFC 2177).
    pub(in crate::push) idle: bool,
    /// NOTIFY (RFC 5465).
    pub(in crate::push) notify: bool,
}

impl From<&Capabilities> for WatchAbilities {
    fn from(capabilities: &Capabilities) -> Self {
        Self { idle: capabilities.has("IDLE"), notify: capabilities.has("NOTIFY") }
    }
}

impl SessionPool {
    pub(super) fn new(context: Arc<WatchContext>, settings: KeepSettings) -> Self {
        let room = Arc::new(Semaphore::new(settings.sessions.min(Semaphore::MAX_PERMITS)));
        let (next, due) = (AtomicU64::new(1), DueAccounts::default());
        Self(Arc::new(PoolShared { context, settings, room, next, due }))
    }

    pub(super) fn settings(&self) -> &KeepSettings {
        &self.0.settings
    }

    pub(super) fn context(&self) -> &Arc<WatchContext> {
        &self.0.context
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0.context.registry
    }

    /// Accounts whose devices are to be woken.
    pub(super) fn due(&self) -> &DueAccounts {
        &self.0.due
    }

    /// The account, if it has a device and deltapush does not shut down.
    pub(super) fn account_with_device(&self, account: &AccountId) -> Option<Arc<Account>> {
        self.registry().get(account).filter(|_| !self.0.context.shutdown.is_cancelled())
    }

    /// Reports if the account has a device: without one its mail is of no interest.
    pub(super) fn has_device(&self, account: &AccountId) -> bool {
        self.account_with_device(account).is_some()
    }

    /// The ticket of the account's newest session.
    pub(super) fn ticket(&self, account: &AccountId) -> Option<Arc<ResumeTicket>> {
        self.registry().get(account)?.kept.ticket()
    }

    /// Takes the channel for the request to return the session that this ticket is for: once.
    pub(super) fn take_return_sender(
        &self,
        account: &AccountId,
        ticket: &Arc<ResumeTicket>,
    ) -> Option<ReturnSender> {
        self.registry().get(account)?.kept.take_return_sender(ticket)
    }

    /// Withdraws the tickets of the account's sessions.
    pub(super) fn revoke(&self, account: &AccountId) {
        if let Some(account) = self.registry().get(account) {
            account.kept.revoke();
        }
    }

    /// Takes a session into the pool and watches in it.
    pub(super) fn keep(&self, mut session: OfferedSession) {
        let pool = self.clone();
        let Some(account) = self.registry().get(&session.account) else {
            debug!(account = %session.account, "session not kept: the account has no device any more");
            tokio::spawn(log_out(session.stream));
            return;
        };
        if !account.is_watched() {
            debug!(%account, "session not kept: the mail server tells of new mail");
            tokio::spawn(log_out(session.stream));
            return;
        }
        // With IDLE alone a session can be returned as it was; NOTIFY cannot be undone.
        let needs_notify = session.inherited.notify || self.0.context.mailboxes(&account).len() > 1;
        session.abilities.notify &= needs_notify;
        let (sender, requests) = oneshot::channel();
        let ticket = session.ticket.take().filter(|_| !session.abilities.notify);
        let resumable = ticket.map(|ticket| (ticket, sender));
        let Some((number, logout)) = self.enter(&account, resumable) else {
            debug!(%account, "session not kept: as many as `keep.sessions` allows are kept already");
            tokio::spawn(log_out(session.stream));
            return;
        };
        tokio::spawn(async move {
            let watch = pool.watch(&account, session, number, logout, requests);
            let end = match AssertUnwindSafe(watch).catch_unwind().await {
                Ok(Err(end)) => end,
                Err(_) => WatchEnd::Panicked,
            };
            pool.leave(&account, number, &end);
        });
    }

    /// Gives a session its number and the cancellation by which it logs out. None if there is no room for its account.
    fn enter(
        &self,
        account: &Account,
        resumable: Option<(Arc<ResumeTicket>, ReturnSender)>,
    ) -> Option<(u64, CancellationToken)> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let logout = self.0.context.shutdown.child_token();
        let session = SessionEntry { number, logout: logout.clone(), resumable };
        account.kept.add(session, &self.0.room, || account.is_erased()).then_some((number, logout))
    }

    async fn watch(
        &self,
        account: &Arc<Account>,
        session: OfferedSession,
        number: u64,
        logout: CancellationToken,
        return_requests: ReturnRequests,
    ) -> Ended {
        let OfferedSession { account: _, stream, trace, abilities, inherited, since, ticket: _ } =
            session;
        let context = &*self.0.context;
        if !abilities.idle {
            tokio::spawn(log_out(stream));
            return Err(IdleFailure::NoIdle("IDLE is not among its capabilities".into()).into());
        }
        let mailboxes = context.mailboxes(account);
        let treatment = *context.pacing.of(&context.host(&account.id).await).treatment();
        let max_delay = idle::max_detection_delay(treatment.idle_renewal);
        if !account.watch.has_begun() {
            context.begin(account, max_delay);
        }
        account.watch.found_within(max_delay);
        account.watch.watches(&mailboxes);
        let taken = TakenSession { stream, trace, has_notify: abilities.notify, inherited };
        let failed_fetches = AtomicU32::new(0);
        let task = SessionTask {
            context,
            account,
            mailboxes: &mailboxes,
            spare: Spare::Others,
            treatment,
            notify: None,
            late: since.elapsed() > LATE,
            failed_fetches: &failed_fetches,
            logout,
            when_watching: Some(&|| account.kept.close_older(number)),
            return_requests: Some(return_requests),
        };
        tokio::select! {
            end = Box::pin(session::take_over(task, taken)) => end,
            () = account.watch.asked_to_give_way() => Err(WatchEnd::Yielded),
        }
    }

    fn leave(&self, account: &Arc<Account>, number: u64, end: &WatchEnd) {
        account.kept.remove(number);
        let upstream = &account.id.upstream;
        match end {
            WatchEnd::Shutdown => debug!(%account, "a kept session has logged out"),
            WatchEnd::Resumed => debug!(%account, "a client has resumed its kept session"),
            WatchEnd::Panicked => error!(%account, "a kept session ended: {end}"),
            WatchEnd::Failed(IdleFailure::NoIdle(_)) => {
                warn!(%account, %upstream, "session not kept: {end}")
            }
            _ => info!(%account, %upstream, "a kept session ended: {end}"),
        }
        // The client for which it yielded is about to log in.
        let delay = if matches!(end, WatchEnd::Yielded) { RETURN_TIME } else { Duration::ZERO };
        self.wake_if_alone(&account.id, &end.to_string(), delay);
    }

    /// Schedules the wake-up of the account's devices in `delay`, if the account has neither a client nor a kept session.
    pub(super) fn wake_if_alone(&self, account: &AccountId, reason: &str, delay: Duration) {
        if !self.registry().is_alone(account) {
            return;
        }
        let is_watched = |account: &Arc<Account>| account.is_watched();
        let Some(account) = self.account_with_device(account).filter(is_watched) else { return };
        self.show(&account, WatchState::AwaitingDevice { reason: reason.to_owned() });
        self.0.due.put(&account, later(Instant::now(), delay));
    }

    /// Shows the new state of the account's watch.
    pub(super) fn show(&self, account: &Account, state: WatchState) {
        if !account.watch.has_begun() {
            // Without an event: nothing connects.
            account.watch.begin(Duration::ZERO);
        }
        self.0.context.show(account, state);
    }
}

/// Logs out of a session and closes its connection, within a time limit.
pub(super) async fn log_out(mut stream: Stream) {
    let goodbye = async {
        stream.write_all(b"x LOGOUT\r\n").await?;
        stream.flush().await?;
        let mut received = Vec::new();
        while receive(&mut stream, &mut received).await? > 0 {
            received.clear();
        }
        std::io::Result::Ok(())
    };
    // The connection is closed in any case.
    let _ = timeout(LOGOUT_TIME, goodbye).await;
}
