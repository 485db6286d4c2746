//! The pool of kept sessions: clients' upstream sessions that go on watching after the client disconnected
//! (docs/keeping.md).
//!
//! The proxy hands a session over that has come to rest; it is watched in by the same machine as deltapush's own. Of each
//! account the newest is kept: the one before logs out as soon as the new one watches. When the last one has ended and no
//! client is there, the account's devices are called back (`device_waker`).

mod device_waker;
mod resume_ticket;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::context::WatchContext;
use super::session::{self, Ended, ReturnRequests, SessionTask, Spare, TakenSession, WatchEnd};
use crate::account::AccountId;
use crate::config::{KeptSessions, Messages};
use crate::push::account::{Account, KeptSession, SessionRequest};
use crate::push::filter::PushFilter;
use crate::push::idle::{self, IdleFailure, InheritedState};
use crate::push::observer::ShownPosition;
use crate::push::registry::Registry;
use crate::push::watch_status::WatchState;
use crate::secret::DeviceToken;
use crate::telemetry::TelemetryEvent;
use crate::tls::stream::{Stream, receive};
use crate::trace::Recorder;
pub(super) use device_waker::DeviceWaker;
use device_waker::DueAccounts;
pub use resume_ticket::ResumeTicket;

/// Time for a client whose session the mail server has ended to come back by itself before it is called.
const RETURN_TIME: Duration = Duration::from_secs(30);

/// Time limit of a server for a LOGOUT.
const LOGOUT_TIME: Duration = Duration::from_secs(3);

/// Time limit for a session to be restored to its state after the login.
const HAND_BACK_TIME: Duration = Duration::from_secs(5);

/// A first look at a mailbox, so long after the client had logged in, looks back.
const LATE: Duration = Duration::from_secs(60);

/// Keeps sessions. Clones are handles of the same one.
#[derive(Clone)]
pub struct SessionPool(Arc<PoolShared>);

struct PoolShared {
    context: Arc<WatchContext>,
    settings: KeptSessions,
    /// Room for accounts with a kept session.
    places: Arc<Semaphore>,
    next: AtomicU64,
    /// Accounts whose devices are to be woken.
    due: DueAccounts,
}

/// A session that is handed over: authenticated, and nothing under way in it.
pub struct Given {
    /// Whose.
    pub account: AccountId,
    /// The connection to the mail server.
    pub stream: Stream,
    /// The recorder of its transcript.
    pub trace: Recorder,
    /// The server's abilities.
    pub abilities: Abilities,
    /// Settings that the client has left in it.
    pub manners: InheritedState,
    /// When the client had logged in.
    pub since: Instant,
    /// The ticket for which it may be given back: only a session in which nothing was set.
    pub ticket: Option<Arc<ResumeTicket>>,
}

/// Abilities of a server that matter for a session to watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// IDLE (RFC 2177).
    pub idle: bool,
    /// NOTIFY (RFC 5465).
    pub notify: bool,
}

/// That a client of the account is there, until it is dropped.
pub struct Presence {
    keeper: SessionPool,
    account: AccountId,
    /// It waits for mail in the only mailbox that is watched.
    waits: AtomicBool,
    /// Why there may be no session any more.
    pub reason: &'static str,
}

impl SessionPool {
    pub(super) fn new(context: Arc<WatchContext>, settings: KeptSessions) -> (Self, DeviceWaker) {
        let places = Arc::new(Semaphore::new(settings.sessions.min(Semaphore::MAX_PERMITS)));
        let (next, due) = (AtomicU64::new(1), DueAccounts::default());
        let keeper = Self(Arc::new(PoolShared { context, settings, places, next, due }));
        (keeper.clone(), DeviceWaker::new(keeper))
    }

    /// The settings of kept sessions.
    #[must_use]
    pub fn settings(&self) -> &KeptSessions {
        &self.0.settings
    }

    fn registry(&self) -> &Registry {
        &self.0.context.registry
    }

    /// The account, if anybody wants to know of its mail: it has a device.
    fn wanted(&self, account: &AccountId) -> Option<Arc<Account>> {
        self.registry().get(account).filter(|_| !self.0.context.shutdown.is_cancelled())
    }

    /// A client has logged in.
    #[must_use]
    pub fn client(&self, account: &AccountId) -> Presence {
        self.registry().change_clients(account, |clients| {
            clients.here = clients.here.saturating_add(1);
        });
        let (keeper, account) = (self.clone(), account.clone());
        Presence {
            keeper,
            account,
            waits: AtomicBool::new(false),
            reason: "the client's session was lost",
        }
    }

    /// Reports if a session of the account is worth keeping: it has a device, and no client that waits itself.
    #[must_use]
    pub fn needs(&self, account: &AccountId) -> bool {
        self.wants(account) && self.registry().clients(account).waiting == 0
    }

    /// Reports if the account's mail is of interest: it has a device.
    #[must_use]
    pub fn wants(&self, account: &AccountId) -> bool {
        self.wanted(account).is_some()
    }

    /// Reports if a kept session watches the account now.
    #[must_use]
    pub fn is_watching(&self, account: &AccountId) -> bool {
        self.registry().get(account).is_some_and(|account| account.kept.is_watching())
    }

    /// Reports if mail in `mailbox` concerns the account's devices.
    #[must_use]
    pub fn is_watched_mailbox(&self, account: &AccountId, mailbox: &str) -> bool {
        let mailboxes =
            self.registry().get(account).map(|account| self.0.context.mailboxes(&account));
        mailboxes.is_some_and(|mailboxes| mailboxes.iter().any(|watched| watched == mailbox))
    }

    /// The ticket of the account's kept session.
    #[must_use]
    pub fn ticket(&self, account: &AccountId) -> Option<Arc<ResumeTicket>> {
        self.registry().get(account)?.kept.ticket()
    }

    /// Hands a session back to a client that has shown its ticket: as it was after its login.
    pub async fn hand_back(
        &self,
        account: &AccountId,
        ticket: &Arc<ResumeTicket>,
    ) -> Option<(Stream, Presence)> {
        let wanted = self.registry().get(account)?.kept.take_back(ticket)?;
        // From here on the client counts as there: nobody is called.
        let presence = self.client(account);
        let (give, given) = oneshot::channel();
        wanted.send(give).ok()?;
        let stream = timeout(HAND_BACK_TIME, given).await.ok()?.ok()?;
        Some((stream, presence))
    }

    /// Another password is right now: no session is handed back for the one before.
    pub fn revoke(&self, account: &AccountId) {
        if let Some(account) = self.registry().get(account) {
            account.kept.revoke();
        }
    }

    /// Takes a session over and watches in it.
    pub fn keep(&self, mut given: Given) {
        let keeper = self.clone();
        let Some(account) = self.registry().get(&given.account) else {
            debug!(account = %given.account, "session not kept: the account has no device any more");
            tokio::spawn(log_out(given.stream));
            return;
        };
        // With IDLE alone a session can be handed back as it was; NOTIFY cannot be undone.
        let needs_notify = given.manners.notify || self.0.context.mailboxes(&account).len() > 1;
        given.abilities.notify &= needs_notify;
        let (want, wanted) = oneshot::channel();
        let back =
            given.ticket.take().filter(|_| !given.abilities.notify).map(|ticket| (ticket, want));
        let Some((number, leave)) = self.begin(&account, back) else {
            debug!(%account, "session not kept: as many as `keep.sessions` allows are kept already");
            tokio::spawn(log_out(given.stream));
            return;
        };
        tokio::spawn(async move {
            let watch = keeper.watch(&account, given, number, leave, wanted);
            let end = match AssertUnwindSafe(watch).catch_unwind().await {
                Ok(Err(end)) => end,
                Err(_) => WatchEnd::Panicked,
            };
            keeper.ended(&account, number, &end);
        });
    }

    /// Logs out of a session that is not to be kept, if it can be talked to.
    pub fn log_out_when_at_rest(&self, at_rest: Result<(), &'static str>, stream: Stream) {
        if at_rest.is_ok() {
            tokio::spawn(log_out(stream));
        }
    }

    /// The push filter for the messages that a client fetches. A client need not ask for the fields that show a chat
    /// message.
    #[must_use]
    pub fn judge(&self, account: &AccountId) -> PushFilter {
        let judge = self.0.context.push_filter(account);
        let messages =
            if judge.messages == Messages::Chat { Messages::All } else { judge.messages };
        PushFilter { messages, ..judge }
    }

    /// Reports if the apps of all the account's devices are known to fetch encrypted messages only.
    #[must_use]
    pub fn fetches_encrypted_only(&self, account: &AccountId) -> bool {
        self.registry().fetches_encrypted_only(account)
    }

    /// The device with this token has been shown that in a session of its own.
    pub fn device_knows(&self, account: &AccountId, token: &DeviceToken, shown: ShownPosition) {
        if let Some(account) = self.registry().get(account) {
            account.kept.device_knows(token, shown);
        }
    }

    /// The tokens of the devices that have been shown all of `news`.
    #[must_use]
    pub fn who_knows(&self, account: &AccountId, news: &ShownPosition) -> Vec<DeviceToken> {
        self.registry().get(account).map(|account| account.kept.who_knows(news)).unwrap_or_default()
    }

    /// A client's session has told of news, which is noted.
    pub fn tell_noticed(
        &self,
        account: &AccountId,
        mailbox: &str,
        since: Option<std::time::Instant>,
        announce: bool,
    ) {
        let Some(account) = self.registry().get(account) else { return };
        let account = &account.telemetry;
        self.0.context.report(&TelemetryEvent::Noticed { account, mailbox, announce, since });
    }

    fn begin(
        &self,
        account: &Account,
        back: Option<(Arc<ResumeTicket>, SessionRequest)>,
    ) -> Option<(u64, CancellationToken)> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let leave = self.0.context.shutdown.child_token();
        let session = KeptSession { number, leave: leave.clone(), back };
        account
            .kept
            .begin(session, &self.0.places, || account.is_erased())
            .then_some((number, leave))
    }

    async fn watch(
        &self,
        account: &Arc<Account>,
        given: Given,
        number: u64,
        leave: CancellationToken,
        wanted: ReturnRequests,
    ) -> Ended {
        let Given { account: _, stream, trace, abilities, manners, since, ticket: _ } = given;
        let context = &*self.0.context;
        if !abilities.idle {
            tokio::spawn(log_out(stream));
            return Err(IdleFailure::NoIdle("IDLE is not among its capabilities".into()).into());
        }
        let mailboxes = context.mailboxes(account);
        let treatment = *context.pacing.of(&context.host(&account.id).await).treatment();
        let blindness = idle::blindness(treatment.idle_renewal);
        if !account.watch.has_begun() {
            context.begin(account, blindness);
        }
        account.watch.found_within(blindness);
        account.watch.watches(&mailboxes);
        let taken =
            TakenSession { stream, trace, has_notify: abilities.notify, inherited: manners };
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
            logout: leave,
            // Those before it are not needed any more.
            when_watching: Some(&|| account.kept.end_older(number)),
            return_requests: Some(wanted),
        };
        tokio::select! {
            end = Box::pin(session::take_over(task, taken)) => end,
            () = account.watch.asked_to_give_way() => Err(WatchEnd::Yielded),
        }
    }

    fn ended(&self, account: &Arc<Account>, number: u64, end: &WatchEnd) {
        account.kept.ended(number);
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
        // Whoever it gave way to is about to come in.
        let delay = if matches!(end, WatchEnd::Yielded) { RETURN_TIME } else { Duration::ZERO };
        self.is_left_alone(&account.id, &end.to_string(), delay);
    }

    /// If neither a client nor a kept session is there, the account's devices are called back, not before `delay` is over.
    fn is_left_alone(&self, account: &AccountId, reason: &str, delay: Duration) {
        if !self.registry().is_alone(account) {
            return;
        }
        let Some(account) = self.wanted(account) else { return };
        self.show(&account, WatchState::AwaitingDevice { reason: reason.to_owned() });
        self.0.due.put(&account, later(Instant::now(), delay));
    }

    fn show(&self, account: &Account, state: WatchState) {
        if !account.watch.has_begun() {
            self.0.context.begin(account, Duration::ZERO);
        }
        self.0.context.show(account, state);
    }
}

impl Presence {
    /// The client waits for mail in `mailbox`: what is kept besides is not needed, if there is no other mailbox to watch.
    pub fn waits_in(&self, mailbox: &str) {
        let Self { keeper, account, .. } = self;
        let Some(known) = keeper.wanted(account) else { return };
        let mailboxes = keeper.0.context.mailboxes(&known);
        let is_only = matches!(mailboxes.as_slice(), [only] if only == mailbox);
        if !is_only || self.waits.swap(true, Ordering::Relaxed) {
            return;
        }
        keeper.registry().change_clients(account, |clients| {
            clients.waiting = clients.waiting.saturating_add(1);
        });
        known.kept.end_all();
        keeper.show(&known, WatchState::WithClient);
    }

    /// The client does something else, or is gone.
    pub fn waits_no_more(&self) {
        if self.waits.swap(false, Ordering::Relaxed) {
            self.keeper.registry().change_clients(&self.account, |clients| {
                clients.waiting = clients.waiting.saturating_sub(1);
            });
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.waits_no_more();
        self.keeper.registry().change_clients(&self.account, |clients| {
            clients.here = clients.here.saturating_sub(1);
        });
        self.keeper.is_left_alone(&self.account, self.reason, RETURN_TIME);
    }
}

/// Leaves a session in good order.
async fn log_out(mut stream: Stream) {
    let goodbye = async {
        stream.write_all(b"x LOGOUT\r\n").await?;
        stream.flush().await?;
        let mut received = Vec::new();
        while receive(&mut stream, &mut received).await? > 0 {
            received.clear();
        }
        std::io::Result::Ok(())
    };
    // Whatever comes of it, the connection is closed.
    let _ = timeout(LOGOUT_TIME, goodbye).await;
}

fn later(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
