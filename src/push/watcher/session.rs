//! One watch session: connection, login, and the driver of the [`idle`](crate::push::idle) machine.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::{oneshot, watch as channel};
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::WatchContext;
use crate::clock::{now, reached};
use crate::credentials::Credentials;
use crate::machine::Machine;
use crate::mailbox_name::MailboxName;
use crate::parser::reader::{ResponseReader, ResponseTooLong};
use crate::push::account::Account;
use crate::push::idle::{
    IdleAction, IdleFailure, IdleInput, IdleMachine, InheritedState, WatchTerms, WatchedMailbox,
};
use crate::push::pacing::{Treatment, WatchPermit};
use crate::push::registry::INBOX;
use crate::push::watch_status::WatchState;
use crate::store::{Announce, Position, StoreError};
use crate::telemetry::TelemetryEvent;
use crate::tls::stream::{Stream, receive};
use crate::trace::{Mark, Recorder, Speaker};
use crate::upstream::connect::{ConnectError, Connected, LoginRequest};
use crate::upstream::id::Introduction;
use crate::upstream::login_machine::Purpose;

/// The longest response that a watching session reads: flags and some header fields, of which it asks for 16 KiB at most, or a
/// capability list.
const MAX_RESPONSE: usize = 64 * 1024;

/// Responses that are handled in one turn, after which other tasks run.
const TURN: usize = 1000;

/// Time limit for the upstream to accept written bytes.
const WRITE_TIME: Duration = Duration::from_secs(60);

/// Time to read the server's last words from a connection that broke.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// Lead with which a server may tell a device of the same mail before a watch session.
const HEAD_START: Duration = Duration::from_secs(2);

/// The result of a session, which never ends well.
pub(super) type Ended = Result<Infallible, WatchEnd>;

/// Why a watching session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchEnd {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Failed(#[from] IdleFailure),
    #[error("the connection to the mail server broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the mail server sent a response that is too long: {0}")]
    TooLong(#[from] ResponseTooLong),
    #[error("the state cannot be written: {0}")]
    Store(#[from] StoreError),
    #[error("no route of the configuration leads to the account's mail server any more")]
    NoRoute,
    #[error("the mail server allows no more sessions, and the account's own client comes first")]
    GaveWay,
    #[error("deltapush shuts down")]
    Leaving,
    #[error("its client is back and has resumed the session")]
    HandedBack,
    #[error("a bug in deltapush ended the session")]
    Panicked,
}

/// The task of a session.
pub(super) struct Task<'a> {
    pub(super) context: &'a WatchContext,
    pub(super) account: &'a Account,
    /// The mailboxes; all but the first need NOTIFY.
    pub(super) mailboxes: &'a [MailboxName],
    pub(super) spare: Spare,
    pub(super) treatment: Treatment,
    /// The receiver of the fact that the server has NOTIFY.
    pub(super) notify: Option<&'a channel::Sender<Option<bool>>>,
    /// The wish to watch is old.
    pub(super) late: bool,
    /// Sessions in a row that ended in the middle of a fetch.
    pub(super) failed_fetches: &'a AtomicU32,
    /// When it is to log out.
    pub(super) leaving: CancellationToken,
    /// Called once the mailbox is watched.
    pub(super) when_watching: Option<&'a (dyn Fn() + Send + Sync)>,
    /// The requester of the session, if it can be given back.
    pub(super) wanted: Option<SessionReturn>,
}

/// The mailboxes to watch where the first one cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// None: other sessions have them.
    None,
    /// INBOX, unless another session has it.
    Inbox,
    /// The others, and INBOX.
    Others,
}

/// Gets a session's connection back, once.
pub(super) type SessionReturn = oneshot::Receiver<oneshot::Sender<Stream>>;

/// A session that somebody else has logged in and used.
pub(super) struct Taken {
    pub(super) stream: Stream,
    pub(super) trace: Recorder,
    pub(super) has_notify: bool,
    /// Settings that its previous user has left in it.
    pub(super) manners: InheritedState,
}

/// So many sessions in a row that ended in the middle of a fetch, and it is not tried again: one message that a server or
/// deltapush cannot digest must not hold up all that come after it.
const MAX_FAILED_FETCHES: u32 = 2;

/// Logs in and watches until something ends it.
pub(super) async fn run(
    task: Task<'_>,
    credentials: &Credentials,
    mut place: WatchPermit,
) -> Ended {
    let mut trace = task.context.tracer.watch(&task.account.id);
    trace.note(|| format!("a watch of {:?} begins", task.mailboxes));
    // Boxed: what a login needs is given back after it.
    let Connected { stream, logged_in, rest } =
        match Box::pin(connect(&task, credentials, &mut trace)).await {
            Ok(connected) => connected,
            Err(end) => {
                trace.note(|| format!("the connection ends without a login: {end}"));
                return Err(end);
            }
        };
    let _under_way = task.context.sessions.token();
    place.made();
    task.account.watch.proof();
    if !logged_in.capabilities.has("IDLE") {
        return Err(IdleFailure::NoIdle("IDLE is not among its capabilities".into()).into());
    }
    let notify = logged_in.capabilities.has("NOTIFY");
    task.account.watch.is_uw_imapd(logged_in.capabilities.has("SCAN"));
    if let Some(known) = task.notify {
        known.send_replace(Some(notify));
    }
    let machine = IdleMachine::new(Box::pin(watch(&task, notify)).await?, now());
    let failed_fetches = task.failed_fetches;
    WatchSession::new(task, stream, trace, machine).run(rest, failed_fetches).await
}

/// Watches in a session that is there.
pub(super) async fn take_over(task: Task<'_>, taken: Taken) -> Ended {
    let _under_way = task.context.sessions.token();
    task.account.watch.proof();
    let Taken { stream, mut trace, has_notify, manners } = taken;
    trace.note(|| {
        format!(
            "the client disconnected, and a watch of {:?} begins in its session",
            task.mailboxes
        )
    });
    let machine = IdleMachine::new(watch(&task, has_notify).await?, now()).in_session(manners);
    let failed_fetches = task.failed_fetches;
    WatchSession::new(task, stream, trace, machine).run(Vec::new(), failed_fetches).await
}

async fn connect(
    task: &Task<'_>,
    credentials: &Credentials,
    trace: &mut Recorder,
) -> Result<Connected, WatchEnd> {
    let upstreams = &*task.context.upstreams.get();
    let found = upstreams.routes.find_again(&task.account.id.upstream, credentials.owner());
    let (target, _) = found.ok_or(WatchEnd::NoRoute)?;
    let credentials = credentials.clone();
    let (origin, introduction) = (None, Introduction::default());
    let (target, purpose) = (&target, Purpose::Watch);
    let attempt = LoginRequest {
        target,
        upstreams,
        credentials,
        purpose,
        origin,
        introduction,
        permit: None,
    };
    Ok(attempt.connect(trace.transcript()).await?)
}

/// The terms for the machine.
async fn watch(task: &Task<'_>, notify: bool) -> Result<WatchTerms, StoreError> {
    let positions = task.context.registry.positions(&task.account.id).await?;
    let first = task.mailboxes.len().min(if notify { usize::MAX } else { 1 });
    let (wanted, others) = task.mailboxes.split_at_checked(first).unwrap_or_default();
    let with_position = |name: &MailboxName| {
        let position =
            positions.iter().find(|(noted, _)| noted == name).map(|(_, position)| *position);
        let is_left_out = task.account.watch.is_left_out(name);
        WatchedMailbox { name: name.clone(), position, is_left_out }
    };
    let mut spare: Vec<_> = match task.spare {
        Spare::Others => others.iter().map(with_position).collect(),
        Spare::None | Spare::Inbox => Vec::new(),
    };
    if task.spare != Spare::None && !task.mailboxes.iter().any(|name| name == INBOX) {
        spare.push(with_position(&MailboxName::inbox()));
    }
    Ok(WatchTerms {
        mailboxes: wanted.iter().map(with_position).collect(),
        spare,
        judge: task.context.judge(&task.account.id),
        // Not all at the same time, if all began at the same time.
        renewal: task.treatment.idle_renewal.mul_f64(1.0 - fastrand::f64() / 10.0),
        notify,
        blindly: task.failed_fetches.load(Ordering::Relaxed) >= MAX_FAILED_FETCHES,
        late: task.late,
        grace: task.context.wishes.get().grace,
    })
}

/// A session under way: the machine and its I/O.
struct WatchSession<'a> {
    context: &'a WatchContext,
    account: &'a Account,
    stream: Stream,
    trace: Recorder,
    machine: IdleMachine,
    reader: ResponseReader,
    notify: Option<&'a channel::Sender<Option<bool>>>,
    was_watching: bool,
    leaving: CancellationToken,
    when_watching: Option<&'a (dyn Fn() + Send + Sync)>,
    wanted: Option<SessionReturn>,
    /// The receiver of the connection, once the session is as it was after its login.
    wanted_by: Option<oneshot::Sender<Stream>>,
}

impl<'a> WatchSession<'a> {
    /// Boxed: a future would hold it as an argument and as a variable.
    fn new(task: Task<'a>, stream: Stream, trace: Recorder, machine: IdleMachine) -> Box<Self> {
        Box::new(Self {
            context: task.context,
            account: task.account,
            stream,
            trace,
            machine,
            reader: ResponseReader::new(MAX_RESPONSE),
            notify: task.notify,
            was_watching: false,
            leaving: task.leaving,
            when_watching: task.when_watching,
            wanted: task.wanted,
            wanted_by: None,
        })
    }

    async fn run(mut self: Box<Self>, received: Vec<u8>, failed_fetches: &AtomicU32) -> Ended {
        let end = self.go_on(received, failed_fetches).await;
        if let (Err(WatchEnd::HandedBack), Some(wanted_by)) = (&end, self.wanted_by.take()) {
            // Who does not wait any more has another session by now.
            let _ = wanted_by.send(self.stream);
            return end;
        }
        if self.machine.is_fetching() {
            failed_fetches.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(self.with_last_words(end)).await
    }

    /// Adds the server's last words to the reason of an end, those too that were not read yet when it came.
    async fn with_last_words(mut self: Box<Self>, end: Ended) -> Ended {
        let Err(end) = end;
        let end = match end {
            WatchEnd::Failed(failure) => self.machine.explain(failure).into(),
            WatchEnd::Broken(_) => {
                let (mut received, mut actions) = (Vec::new(), Vec::new());
                let _ = timeout(LAST_WORDS_TIME, self.read_rest(&mut received)).await;
                let _ = self.respond(&mut received, &mut actions);
                let own = actions.into_iter().find_map(|action| match action {
                    IdleAction::Failed(failure) => Some(failure),
                    _ => None,
                });
                own.or_else(|| self.machine.explain_break(end.to_string()))
                    .map_or(end, WatchEnd::Failed)
            }
            WatchEnd::TooLong(_) => {
                self.machine.explain_break(end.to_string()).map_or(end, WatchEnd::Failed)
            }
            _ => end,
        };
        self.trace.note(|| format!("the watch ends: {end}"));
        Err(end)
    }

    /// Reads what the server had sent before the connection broke.
    async fn read_rest(&mut self, received: &mut Vec<u8>) {
        while received.len() < MAX_RESPONSE {
            if !receive(&mut self.stream, received).await.is_ok_and(|count| count > 0) {
                return;
            }
        }
    }

    async fn go_on(&mut self, mut received: Vec<u8>, failed_fetches: &AtomicU32) -> Ended {
        let mut actions = Vec::new();
        self.machine.handle(IdleInput::Start, now(), &mut actions);
        loop {
            self.respond(&mut received, &mut actions)?;
            if self.act(&mut actions).await? {
                failed_fetches.store(0, Ordering::Relaxed);
            }
            if !received.is_empty() {
                yield_now().await;
                continue;
            }
            match self.next_event(&mut received).await? {
                SessionEvent::Received(0) => {
                    return Err(IdleFailure::Bye("without a reason".into()).into());
                }
                SessionEvent::Received(_) => self.account.watch.proof(),
                SessionEvent::Due => self.machine.handle(IdleInput::Tick, now(), &mut actions),
                SessionEvent::Wanted(by) => {
                    self.wanted_by = Some(by);
                    self.machine.handle(IdleInput::Release, now(), &mut actions);
                }
                SessionEvent::Shutdown => {
                    Box::pin(self.leave(&mut actions)).await?;
                    return Err(WatchEnd::Leaving);
                }
            }
        }
    }

    async fn next_event(&mut self, received: &mut Vec<u8>) -> io::Result<SessionEvent> {
        let deadline = self.machine.deadline();
        Ok(tokio::select! {
            read = receive(&mut self.stream, received) => SessionEvent::Received(read?),
            () = reached(deadline) => SessionEvent::Due,
            Some(by) = wanted(&mut self.wanted) => SessionEvent::Wanted(by),
            () = self.leaving.cancelled() => SessionEvent::Shutdown,
        })
    }

    /// Logs out, and waits until the server has closed the connection. How long that may take is for the caller to say.
    async fn leave(&mut self, actions: &mut Vec<IdleAction>) -> Result<(), WatchEnd> {
        self.machine.handle(IdleInput::Leave, now(), actions);
        self.act(actions).await?;
        let mut received = Vec::new();
        while receive(&mut self.stream, &mut received).await? > 0 {
            received.clear();
        }
        Ok(())
    }

    /// Gives the machine what was received, as much of it as one turn may handle. The rest stays.
    fn respond(
        &mut self,
        received: &mut Vec<u8>,
        actions: &mut Vec<IdleAction>,
    ) -> Result<(), ResponseTooLong> {
        let bytes = std::mem::take(received);
        let mut input = bytes.as_slice();
        if !input.is_empty() {
            let encrypted_only = self.account.fetches_encrypted_only();
            self.machine.handle(IdleInput::EncryptedOnly(encrypted_only), now(), actions);
        }
        for _ in 0..TURN {
            let Some(response) = self.reader.next(&mut input)? else { return Ok(()) };
            if let Some(transcript) = self.trace.transcript() {
                transcript.response(Speaker::Upstream, Mark::Kept, &response);
            }
            self.machine.handle(IdleInput::Response(&response), now(), actions);
        }
        received.extend_from_slice(input);
        Ok(())
    }

    /// Does what the machine wants; whether something was looked through.
    async fn act(&mut self, actions: &mut Vec<IdleAction>) -> Result<bool, WatchEnd> {
        let mut has_noted = false;
        for action in std::mem::take(actions) {
            match action {
                IdleAction::Send(bytes) => Box::pin(self.send(&bytes)).await?,
                IdleAction::Noticed { mailbox, position, announce, since, last, ids } => {
                    let wakes = self.context.without_copies(
                        self.account,
                        self.announce(announce, last),
                        &ids,
                    );
                    let announce = self.wakes_any(&wakes);
                    // Boxed, like all that is done once in a while: the session waits in between.
                    Box::pin(self.note(&mailbox, position, wakes, ids)).await?;
                    self.context.tell(&TelemetryEvent::Noticed {
                        account: &self.account.telemetry,
                        mailbox: &mailbox,
                        announce,
                        since,
                    });
                    has_noted = true;
                }
                IdleAction::Judged { mailbox, uid, verdict } => {
                    debug!(account = %self.account, uid, "new message: {verdict}");
                    let skipped = verdict.skipped();
                    self.context.tell(&TelemetryEvent::Judged {
                        account: &self.account.telemetry,
                        mailbox: &mailbox,
                        uid,
                        skipped,
                    });
                }
                IdleAction::LeftOut(mailbox, words) => {
                    Box::pin(self.left_out(mailbox, words, actions)).await
                }
                IdleAction::Opened(mailbox) => {
                    info!(account = %self.account, "mailbox {mailbox:?} can be opened again, and is watched");
                    self.account.watch.no_longer_left_out(&mailbox);
                }
                IdleAction::Odd(oddity) => self.context.odd(self.account, oddity),
                IdleAction::Watching => self.watching(),
                IdleAction::OnlyFirst => {
                    if let Some(known) = self.notify {
                        known.send_replace(Some(false));
                    }
                }
                IdleAction::Released if self.reader.is_empty() => return Err(WatchEnd::HandedBack),
                IdleAction::Released => {
                    return Err(IdleFailure::Bye("in the middle of a response".into()).into());
                }
                IdleAction::Failed(failure) => return Err(failure.into()),
            }
        }
        Ok(has_noted)
    }

    /// A mailbox cannot be opened: if it is forgotten, this session does not try it again either.
    async fn left_out(
        &mut self,
        mailbox: MailboxName,
        words: String,
        actions: &mut Vec<IdleAction>,
    ) {
        if self.context.left_out(self.account, &mailbox, &words).await {
            self.machine.handle(IdleInput::NeverRetry(&mailbox), now(), actions);
        }
    }

    /// With a grace, a device whose own session took the news, the last of it too, and fetched needs no push.
    fn announce(&self, announce: bool, last: Option<std::time::Instant>) -> Announce {
        match last.filter(|_| announce && !self.context.wishes.get().grace.is_zero()) {
            Some(last) => {
                // The server may have told the device first.
                let told = last.checked_sub(HEAD_START).unwrap_or(last);
                Announce::AllBut(self.account.watch.fetched_since(told.into()))
            }
            None => announce.into(),
        }
    }

    /// Notes what was found. If that fails, it has woken nobody.
    async fn note(
        &self,
        mailbox: &str,
        position: Position,
        wakes: Announce,
        ids: Vec<u64>,
    ) -> Result<(), StoreError> {
        let noted = self.context.registry.noticed(&self.account.id, mailbox, position, wakes).await;
        if noted.is_err() {
            self.context.duplicates().forget(&ids, &self.account.id);
        }
        noted
    }

    fn wakes_any(&self, wakes: &Announce) -> bool {
        match wakes {
            Announce::Nothing => false,
            Announce::All => true,
            Announce::AllBut(fetched) => {
                self.account.tokens().iter().any(|token| !fetched.contains(token))
            }
        }
    }

    fn watching(&mut self) {
        if !std::mem::replace(&mut self.was_watching, true) {
            self.context.show(self.account, WatchState::Watching);
            info!(account = %self.account, upstream = %self.account.id.upstream, "watching");
            if let Some(then) = self.when_watching {
                then();
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), WatchEnd> {
        if let Some(transcript) = self.trace.transcript() {
            transcript.lines(Speaker::ToUpstream, Mark::Own, bytes);
        }
        let written = timeout(WRITE_TIME, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        written.await.map_err(|_| IdleFailure::Silent)??;
        Ok(())
    }
}

/// The next thing that happens to a session.
enum SessionEvent {
    /// So many bytes came; none if the server has closed the connection.
    Received(usize),
    /// The machine's deadline.
    Due,
    /// Somebody wants the session back.
    Wanted(oneshot::Sender<Stream>),
    /// It is to log out.
    Shutdown,
}

/// Waits until somebody wants the session back; for ever if nobody can, or nobody any more.
async fn wanted(wanted: &mut Option<SessionReturn>) -> Option<oneshot::Sender<Stream>> {
    let Some(waiting) = wanted else { return std::future::pending().await };
    let by = waiting.await.ok();
    *wanted = None;
    match by {
        Some(by) => Some(by),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<'a, F>(_: fn(Task<'a>, &'a Credentials, WatchPermit) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn session_that_waits_is_small() {
        let sizes = (size_of::<IdleMachine>(), size_of::<WatchSession<'_>>(), size_of_future(run));
        // In bytes: the machine; that and what is known of its stream; all that is kept for a session. A quarter above what
        // rustc 1.95 makes of them: layouts are the compiler's.
        assert!(sizes.0 <= 490 && sizes.1 <= 850 && sizes.2 <= 1460, "{sizes:?}");
    }
}
