//! The pool of kept sessions: clients' upstream sessions that go on watching after the client disconnected
//! (docs/keeping.md).
//!
//! The proxy hands a session over that has come to rest; it is watched in by the same machine as deltapush's own. Of each
//! account the newest is kept: the one before logs out as soon as the new one watches. When the last one has ended and no
//! client is there, the account's devices are called back (`device_waker`).

mod device_waker;
mod resume_ticket;
mod shown;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::WatchContext;
use super::account::Ended;
use super::session::{self, SessionReturn, Spare, Taken, Task, WatchEnd};
use crate::account::AccountId;
use crate::config::{KeptSessions, Messages};
use crate::push::filter::PushFilter;
use crate::push::idle::{self, IdleFailure, InheritedState, is_same};
use crate::push::latest;
use crate::push::observer::ShownPosition;
use crate::push::watch_status::WatchState;
use crate::secret::DeviceToken;
use crate::telemetry::TelemetryEvent;
use crate::tls::stream::{Stream, receive};
use crate::trace::Recorder;
use device_waker::Call;
pub(super) use device_waker::DeviceWaker;
pub use resume_ticket::ResumeTicket;

/// How long a client whose session the mail server has ended may take to come back by itself before it is called.
const RETURN_TIME: Duration = Duration::from_secs(30);

/// How long a server may take for a LOGOUT.
const LOGOUT_TIME: Duration = Duration::from_secs(3);

/// How long a session may take to be brought back to where it was after its login.
const HAND_BACK_TIME: Duration = Duration::from_secs(5);

/// A first look at a mailbox, so long after the client had logged in, looks back.
const LATE: Duration = Duration::from_secs(60);

/// Keeps sessions. Clones are handles of the same one.
#[derive(Clone)]
pub struct SessionPool(Arc<PoolShared>);

struct PoolShared {
    context: Arc<WatchContext>,
    settings: KeptSessions,
    accounts: DashMap<AccountId, PooledAccount>,
    /// Room for accounts with a kept session.
    places: Arc<Semaphore>,
    next: AtomicU64,
    calls: latest::LatestSender<AccountId, Call>,
}

/// What there is of an account.
#[derive(Default)]
struct PooledAccount {
    /// Clients that are logged in, and sessions that are just being taken over.
    clients: usize,
    /// Clients of these that wait for mail in the only mailbox that is watched.
    waiting: usize,
    /// Kept sessions, the newest last: more than one only until that one watches.
    sessions: Vec<PooledSession>,
    place: Option<OwnedSemaphorePermit>,
    /// What its devices have been shown through deltapush.
    shown: shown::ByDevice,
}

struct PooledSession {
    number: u64,
    leave: CancellationToken,
    /// What it is handed back for, and how it is asked to be.
    back: Option<(Arc<ResumeTicket>, oneshot::Sender<oneshot::Sender<Stream>>)>,
}

/// A session that is handed over: authenticated, and nothing under way in it.
pub struct Given {
    /// Whose.
    pub account: AccountId,
    /// The connection to the mail server.
    pub stream: Stream,
    /// Where its transcript goes.
    pub trace: Recorder,
    /// What the server can do.
    pub abilities: Abilities,
    /// What the client has set in it.
    pub manners: InheritedState,
    /// When the client had logged in.
    pub since: Instant,
    /// What it may be handed back for: only a session in which nothing was set.
    pub ticket: Option<Arc<ResumeTicket>>,
}

/// What a server must be able to do, or may be, for a session to watch.
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
        let (calls, called) = latest::channel();
        let places = Arc::new(Semaphore::new(settings.sessions.min(Semaphore::MAX_PERMITS)));
        let (accounts, next) = (DashMap::new(), AtomicU64::new(1));
        let keeper =
            Self(Arc::new(PoolShared { context, settings, accounts, places, next, calls }));
        (keeper.clone(), DeviceWaker::new(keeper, called))
    }

    /// How sessions are kept.
    #[must_use]
    pub fn settings(&self) -> &KeptSessions {
        &self.0.settings
    }

    /// A client has logged in.
    #[must_use]
    pub fn client(&self, account: &AccountId) -> Presence {
        let mut entry = self.0.accounts.entry(account.clone()).or_default();
        entry.clients = entry.clients.saturating_add(1);
        drop(entry);
        let (keeper, account) = (self.clone(), account.clone());
        Presence {
            keeper,
            account,
            waits: AtomicBool::new(false),
            reason: "the client's session was lost",
        }
    }

    /// Whether a session of the account is worth keeping: it has a device, and no client that waits itself.
    #[must_use]
    pub fn needs(&self, account: &AccountId) -> bool {
        self.wants(account) && self.0.accounts.get(account).is_none_or(|entry| entry.waiting == 0)
    }

    /// Whether anybody wants to know of the account's mail: it has a device.
    #[must_use]
    pub fn wants(&self, account: &AccountId) -> bool {
        self.0.context.registry.is_known(account) && !self.0.context.leaving.is_cancelled()
    }

    /// Whether a kept session watches the account now.
    #[must_use]
    pub fn is_watching(&self, account: &AccountId) -> bool {
        self.0.accounts.get(account).is_some_and(|entry| {
            // One that is about to leave looks no more.
            entry.sessions.iter().any(|session| !session.leave.is_cancelled())
        })
    }

    /// Whether mail in `mailbox` is the account's devices' concern.
    #[must_use]
    pub fn is_watched_mailbox(&self, account: &AccountId, mailbox: &str) -> bool {
        self.0.context.mailboxes(account).iter().any(|watched| is_same(watched, mailbox))
    }

    /// The account has no device any more.
    pub(super) fn forget(&self, account: &AccountId) {
        self.let_go(account);
        self.0.context.board.remove(account);
        self.0.context.board.telemetry().tell(&TelemetryEvent::Forgotten { account });
    }

    fn let_go(&self, account: &AccountId) {
        if let Some(entry) = self.0.accounts.get(account) {
            entry.sessions.iter().for_each(|session| session.leave.cancel());
        }
    }

    /// What the account's kept session would be handed back for.
    #[must_use]
    pub fn ticket(&self, account: &AccountId) -> Option<Arc<ResumeTicket>> {
        let entry = self.0.accounts.get(account)?;
        let newest = entry.sessions.iter().rev().find(|session| !session.leave.is_cancelled())?;
        newest.back.as_ref().map(|(ticket, _)| Arc::clone(ticket))
    }

    /// Hands a session back to a client that has shown its ticket: as it was after its login.
    pub async fn hand_back(
        &self,
        account: &AccountId,
        ticket: &Arc<ResumeTicket>,
    ) -> Option<(Stream, Presence)> {
        let wanted = {
            let mut entry = self.0.accounts.get_mut(account)?;
            let is_its = |session: &&mut PooledSession| {
                session.back.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, ticket))
                    && !session.leave.is_cancelled()
            };
            entry.sessions.iter_mut().find(is_its)?.back.take()?.1
        };
        // From here on the client counts as there: nobody is called.
        let presence = self.client(account);
        let (give, given) = oneshot::channel();
        wanted.send(give).ok()?;
        let stream = timeout(HAND_BACK_TIME, given).await.ok()?.ok()?;
        Some((stream, presence))
    }

    /// Another password is right now: no session is handed back for the one before.
    pub fn revoke(&self, account: &AccountId) {
        if let Some(mut entry) = self.0.accounts.get_mut(account) {
            entry.sessions.iter_mut().for_each(|session| session.back = None);
        }
    }

    /// Takes a session over and watches in it.
    pub fn keep(&self, mut given: Given) {
        let keeper = self.clone();
        // With IDLE alone a session can be handed back as it was; NOTIFY cannot be undone.
        let needs_notify =
            given.manners.notify || self.0.context.mailboxes(&given.account).len() > 1;
        given.abilities.notify &= needs_notify;
        let (want, wanted) = oneshot::channel();
        let back =
            given.ticket.take().filter(|_| !given.abilities.notify).map(|ticket| (ticket, want));
        let Some((number, leave)) = self.begin(&given.account, back) else {
            debug!(account = %given.account, "session not kept: as many as `keep.sessions` allows are kept already");
            tokio::spawn(log_out(given.stream));
            return;
        };
        tokio::spawn(async move {
            let account = given.account.clone();
            let watched =
                AssertUnwindSafe(keeper.watch(given, number, leave, wanted)).catch_unwind();
            let end = match watched.await {
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

    /// Who judges the account's messages by what a client fetches of them. A client need not ask for the fields that tell a
    /// chat message.
    #[must_use]
    pub fn judge(&self, account: &AccountId) -> PushFilter {
        let judge = self.0.context.judge(account);
        let messages =
            if judge.messages == Messages::Chat { Messages::All } else { judge.messages };
        PushFilter { messages, ..judge }
    }

    /// Whether the apps of all the account's devices are known to fetch encrypted messages only.
    #[must_use]
    pub fn fetches_encrypted_only(&self, account: &AccountId) -> bool {
        self.0.context.registry.fetches_encrypted_only(account)
    }

    /// The device with this token has been shown that in a session of its own.
    pub fn device_knows(&self, account: &AccountId, token: &DeviceToken, shown: ShownPosition) {
        if let Some(mut entry) = self.0.accounts.get_mut(account) {
            entry.shown.note(token, shown);
        }
    }

    /// The tokens of the devices that have been shown all of `news`.
    #[must_use]
    pub fn who_knows(&self, account: &AccountId, news: &ShownPosition) -> Vec<DeviceToken> {
        self.0.accounts.get(account).map(|entry| entry.shown.know(news)).unwrap_or_default()
    }

    /// A client's session has told of news, which is noted.
    pub fn tell_noticed(
        &self,
        account: &AccountId,
        mailbox: &str,
        since: Option<std::time::Instant>,
        announce: bool,
    ) {
        self.0.context.board.telemetry().tell(&TelemetryEvent::Noticed {
            account,
            mailbox,
            announce,
            since,
        });
    }

    fn begin(
        &self,
        account: &AccountId,
        back: Option<(Arc<ResumeTicket>, oneshot::Sender<oneshot::Sender<Stream>>)>,
    ) -> Option<(u64, CancellationToken)> {
        let mut entry = self.0.accounts.entry(account.clone()).or_default();
        if entry.place.is_none() {
            entry.place = Some(Arc::clone(&self.0.places).try_acquire_owned().ok()?);
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let leave = self.0.context.leaving.child_token();
        entry.sessions.push(PooledSession { number, leave: leave.clone(), back });
        Some((number, leave))
    }

    async fn watch(
        &self,
        given: Given,
        number: u64,
        leave: CancellationToken,
        wanted: SessionReturn,
    ) -> Result<Infallible, WatchEnd> {
        let Given { account, stream, trace, abilities, manners, since, ticket: _ } = given;
        let context = &*self.0.context;
        if !abilities.idle {
            tokio::spawn(log_out(stream));
            return Err(IdleFailure::NoIdle("IDLE is not among its capabilities".into()).into());
        }
        let mailboxes = context.mailboxes(&account);
        let treatment = *context.gates.of(&context.host(&account).await).treatment();
        let blindness = idle::blindness(treatment.idle_renewal);
        let known = context.board.give_way_of(&account);
        let give_way = known.unwrap_or_else(|| context.board.begin(&account, blindness));
        context.board.found_within(&account, blindness);
        context.board.watches(&account, &mailboxes);
        let taken = Taken { stream, trace, has_notify: abilities.notify, manners };
        let failed_fetches = AtomicU32::new(0);
        let task = Task {
            context,
            account: &account,
            mailboxes: &mailboxes,
            spare: Spare::Others,
            treatment,
            notify: None,
            late: since.elapsed() > LATE,
            failed_fetches: &failed_fetches,
            leaving: leave,
            when_watching: Some(&|| self.supersede(&account, number)),
            wanted: Some(wanted),
        };
        self.until_told(task, taken, &give_way).await
    }

    async fn until_told(&self, task: Task<'_>, taken: Taken, give_way: &Notify) -> Ended {
        tokio::select! {
            end = Box::pin(session::take_over(task, taken)) => end,
            () = give_way.notified() => Err(WatchEnd::GaveWay),
        }
    }

    /// The session watches: those before it are not needed any more.
    fn supersede(&self, account: &AccountId, number: u64) {
        if let Some(entry) = self.0.accounts.get(account) {
            entry
                .sessions
                .iter()
                .filter(|session| session.number < number)
                .for_each(|session| session.leave.cancel());
        }
    }

    fn ended(&self, account: &AccountId, number: u64, end: &WatchEnd) {
        if let Some(mut entry) = self.0.accounts.get_mut(account) {
            entry.sessions.retain(|session| session.number != number);
            if entry.sessions.is_empty() {
                entry.place = None;
            }
        }
        let upstream = &account.upstream;
        match end {
            WatchEnd::Leaving => debug!(%account, "a kept session has logged out"),
            WatchEnd::HandedBack => debug!(%account, "a client has resumed its kept session"),
            WatchEnd::Panicked => error!(%account, "a kept session ended: {end}"),
            WatchEnd::Failed(IdleFailure::NoIdle(_)) => {
                warn!(%account, %upstream, "session not kept: {end}")
            }
            _ => info!(%account, %upstream, "a kept session ended: {end}"),
        }
        // Whoever it gave way to is about to come in.
        let delay = if matches!(end, WatchEnd::GaveWay) { RETURN_TIME } else { Duration::ZERO };
        self.is_left_alone(account, &end.to_string(), delay);
    }

    /// If neither a client nor a kept session is there, the account's devices are called back, not before `delay` is over.
    fn is_left_alone(&self, account: &AccountId, reason: &str, delay: Duration) {
        let is_alone = self.is_alone(account);
        self.0
            .accounts
            .remove_if(account, |_, entry| entry.clients == 0 && entry.sessions.is_empty());
        if !is_alone || !self.wants(account) {
            return;
        }
        self.show(account, WatchState::AwaitingDevice { reason: reason.to_owned() });
        let now = Instant::now();
        self.0.calls.send(account.clone(), Call { due: now.checked_add(delay).unwrap_or(now) });
    }

    fn is_alone(&self, account: &AccountId) -> bool {
        self.0
            .accounts
            .get(account)
            .is_none_or(|entry| entry.clients == 0 && entry.sessions.is_empty())
    }

    fn show(&self, account: &AccountId, state: WatchState) {
        let board = &self.0.context.board;
        if board.give_way_of(account).is_none() {
            board.begin(account, Duration::ZERO);
        }
        board.set(account, state);
    }
}

impl Presence {
    /// The client waits for mail in `mailbox`: what is kept besides is not needed, if there is no other mailbox to watch.
    pub fn waits_in(&self, mailbox: &str) {
        let Self { keeper, account, .. } = self;
        let mailboxes = keeper.0.context.mailboxes(account);
        let is_only = matches!(mailboxes.as_slice(), [only] if is_same(only, mailbox));
        if !is_only || !keeper.wants(account) || self.waits.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(mut entry) = keeper.0.accounts.get_mut(account) {
            entry.waiting = entry.waiting.saturating_add(1);
        }
        keeper.let_go(account);
        keeper.show(account, WatchState::WithClient);
    }

    /// The client does something else, or is gone.
    pub fn waits_no_more(&self) {
        if self.waits.swap(false, Ordering::Relaxed)
            && let Some(mut entry) = self.keeper.0.accounts.get_mut(&self.account)
        {
            entry.waiting = entry.waiting.saturating_sub(1);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.waits_no_more();
        if let Some(mut entry) = self.keeper.0.accounts.get_mut(&self.account) {
            entry.clients = entry.clients.saturating_sub(1);
        }
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
