//! One watching session: connection, login, and the [`idle`](crate::push::idle) machine with its I/O.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch as channel;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use super::Context;
use super::account::Ended;
use crate::account::AccountId;
use crate::parser::reader::{ResponseReader, TooLong};
use crate::push::board::WatchState;
use crate::push::gate::{Place, Treatment};
use crate::push::idle::{Action, Failure, IdleMachine, Watch, WatchedMailbox};
use crate::secret::Credentials;
use crate::store::{Announce, StoreError};
use crate::stream::{Stream, receive};
use crate::telemetry::Event;
use crate::trace::{Mark, Recorder, Speaker};
use crate::upstream::connect::{Attempt, ConnectError, Connected};
use crate::upstream::dialogue::Purpose;
use crate::upstream::id::Introduction;

/// The longest response that a watching session reads: flags and some header fields, of which it asks for 16 KiB at most, or a
/// capability list.
const MAX_RESPONSE: usize = 64 * 1024;

/// How long the upstream may take to accept what is written.
const WRITE_TIME: Duration = Duration::from_secs(60);

/// How much earlier than a watching session a server may tell a device of the same news.
const HEAD_START: Duration = Duration::from_secs(2);

/// Why a watching session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("the connection to the mail server broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("the mail server sent a response that is too long: {0}")]
    TooLong(#[from] TooLong),
    #[error("the state cannot be written: {0}")]
    Store(#[from] StoreError),
    #[error("no route of the configuration leads to the account's mail server any more")]
    NoRoute,
    #[error("the mail server has no session left, and the account's own client comes first")]
    GaveWay,
    #[error("deltapush ends")]
    Leaving,
    #[error("a bug in deltapush ended it")]
    Panicked,
}

/// What a session is to do.
pub(super) struct Task<'a> {
    pub(super) context: &'a Context,
    pub(super) account: &'a AccountId,
    pub(super) credentials: &'a Credentials,
    /// The mailboxes; all but the first need NOTIFY.
    pub(super) mailboxes: &'a [String],
    pub(super) treatment: Treatment,
    /// Who is to know whether the server has NOTIFY.
    pub(super) notify: Option<&'a channel::Sender<Option<bool>>>,
    /// The wish to watch is old.
    pub(super) late: bool,
    /// Sessions in a row that ended in the middle of a fetch.
    pub(super) failed_fetches: &'a AtomicU32,
}

/// So many sessions in a row that ended in the middle of a fetch, and it is not tried again: one message that a server or
/// deltapush cannot digest must not hold up all that come after it.
const MAX_FAILED_FETCHES: u32 = 2;

/// Logs in and watches until something ends it.
pub(super) async fn run(task: Task<'_>, mut place: Place) -> Ended {
    let mut trace = task.context.tracer.watch(task.account);
    trace.note(|| format!("a watch of {:?} begins", task.mailboxes));
    let Connected { stream, logged_in, rest } = match connect(&task, &mut trace).await {
        Ok(connected) => connected,
        Err(end) => {
            trace.note(|| format!("it ends without a login: {end}"));
            return Err(end);
        }
    };
    let _under_way = task.context.sessions.token();
    place.made();
    task.context.board.proof(task.account);
    if !logged_in.capabilities.has("IDLE") {
        return Err(Failure::NoIdle("it is not among its capabilities".into()).into());
    }
    let notify = logged_in.capabilities.has("NOTIFY");
    if let Some(known) = task.notify {
        known.send_replace(Some(notify));
    }
    let machine = IdleMachine::new(watch(&task, notify).await?, now());
    let session = Session {
        context: task.context,
        account: task.account,
        stream,
        trace,
        machine,
        reader: ResponseReader::new(MAX_RESPONSE),
        notify: task.notify,
        was_watching: false,
    };
    session.run(rest, task.failed_fetches).await
}

async fn connect(task: &Task<'_>, trace: &mut Recorder) -> Result<Connected, End> {
    let upstreams = &*task.context.upstreams.get();
    let found = upstreams.routes.find_again(&task.account.upstream, task.credentials.owner());
    let (target, _) = found.ok_or(End::NoRoute)?;
    let credentials = task.credentials.clone();
    let (origin, introduction) = (None, Introduction::default());
    let (target, purpose) = (&target, Purpose::Watch);
    let attempt = Attempt { target, upstreams, credentials, purpose, origin, introduction, permit: None };
    Ok(attempt.connect(trace.transcript()).await?)
}

/// What the machine has to know.
async fn watch(task: &Task<'_>, notify: bool) -> Result<Watch, StoreError> {
    let positions = task.context.registry.positions(task.account).await?;
    let wanted = if notify { task.mailboxes } else { task.mailboxes.get(..1).unwrap_or_default() };
    let with_position = |name: &String| {
        let position = positions.iter().find(|(noted, _)| noted == name).map(|(_, position)| *position);
        WatchedMailbox { name: name.clone(), position }
    };
    Ok(Watch {
        mailboxes: wanted.iter().map(with_position).collect(),
        judge: task.context.judge(task.account, task.credentials),
        // Not all at the same time, if all began at the same time.
        renewal: task.treatment.idle_renewal.mul_f64(1.0 - fastrand::f64() / 10.0),
        notify,
        blindly: task.failed_fetches.load(Ordering::Relaxed) >= MAX_FAILED_FETCHES,
        late: task.late,
        grace: task.context.wishes.get().grace,
    })
}

/// A session under way: the machine and its I/O.
struct Session<'a> {
    context: &'a Context,
    account: &'a AccountId,
    stream: Stream,
    trace: Recorder,
    machine: IdleMachine,
    reader: ResponseReader,
    notify: Option<&'a channel::Sender<Option<bool>>>,
    was_watching: bool,
}

impl Session<'_> {
    async fn run(mut self, received: Vec<u8>, failed_fetches: &AtomicU32) -> Result<Infallible, End> {
        let end = self.go_on(received, failed_fetches).await;
        if self.machine.is_fetching() {
            failed_fetches.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(end) = &end {
            self.trace.note(|| format!("the watch ends: {end}"));
        }
        end
    }

    async fn go_on(&mut self, mut received: Vec<u8>, failed_fetches: &AtomicU32) -> Result<Infallible, End> {
        let mut actions = Vec::new();
        self.machine.start(now(), &mut actions);
        loop {
            self.respond(&mut received, &mut actions)?;
            if self.act(&mut actions).await? {
                failed_fetches.store(0, Ordering::Relaxed);
            }
            tokio::select! {
                read = receive(&mut self.stream, &mut received) => {
                    if read? == 0 {
                        return Err(Failure::Bye("without a word".into()).into());
                    }
                    self.context.board.proof(self.account);
                }
                () = sleep_until(self.machine.deadline().into()) => self.machine.tick(now(), &mut actions),
                () = self.context.leaving.cancelled() => {
                    self.leave(&mut actions).await?;
                    return Err(End::Leaving);
                }
            }
        }
    }

    /// Logs out, and waits until the server has closed the connection. How long that may take is for the caller to say.
    async fn leave(&mut self, actions: &mut Vec<Action>) -> Result<(), End> {
        self.machine.leave(now(), actions);
        self.act(actions).await?;
        let mut received = Vec::new();
        while receive(&mut self.stream, &mut received).await? > 0 {
            received.clear();
        }
        Ok(())
    }

    /// Gives the machine what was received.
    fn respond(&mut self, received: &mut Vec<u8>, actions: &mut Vec<Action>) -> Result<(), TooLong> {
        let bytes = std::mem::take(received);
        let mut input = bytes.as_slice();
        while let Some(response) = self.reader.next(&mut input)? {
            if let Some(transcript) = self.trace.transcript() {
                transcript.response(Speaker::Upstream, Mark::Kept, &response);
            }
            self.machine.response(&response, now(), actions);
        }
        Ok(())
    }

    /// Does what the machine wants; whether something was looked through.
    async fn act(&mut self, actions: &mut Vec<Action>) -> Result<bool, End> {
        let mut has_noted = false;
        for action in std::mem::take(actions) {
            match action {
                Action::Send(bytes) => self.send(&bytes).await?,
                Action::Noticed { mailbox, position, announce, since } => {
                    let wakes = self.announce(announce, since);
                    let announce = self.wakes_any(&wakes);
                    self.context.registry.noticed(self.account, &mailbox, position, wakes).await?;
                    self.tell(&Event::Noticed { account: self.account, mailbox: &mailbox, announce, since });
                    has_noted = true;
                }
                Action::Judged { mailbox, uid, verdict } => {
                    debug!(account = %self.account, uid, "new message: {verdict}");
                    let skipped = verdict.skipped();
                    self.tell(&Event::Judged { account: self.account, mailbox: &mailbox, uid, skipped });
                }
                Action::LeftOut(mailbox, words) => {
                    warn!(account = %self.account, "mailbox {mailbox:?} is not watched: {words}");
                }
                Action::Watching => self.watching(),
                Action::OnlyFirst => {
                    if let Some(known) = self.notify {
                        known.send_replace(Some(false));
                    }
                }
                Action::Failed(failure) => return Err(failure.into()),
            }
        }
        Ok(has_noted)
    }

    /// With a grace, a device whose own session took the news and fetched needs no push.
    fn announce(&self, announce: bool, since: Option<std::time::Instant>) -> Announce {
        match since.filter(|_| announce && !self.context.wishes.get().grace.is_zero()) {
            Some(since) => {
                // The server may have told the device first.
                let since = since.checked_sub(HEAD_START).unwrap_or(since);
                Announce::AllBut(self.context.board.fetched_since(self.account, since.into()))
            }
            None => announce.into(),
        }
    }

    fn wakes_any(&self, wakes: &Announce) -> bool {
        match wakes {
            Announce::Nothing => false,
            Announce::All => true,
            Announce::AllBut(fetched) => {
                self.context.registry.tokens(self.account).iter().any(|token| !fetched.contains(token))
            }
        }
    }

    fn tell(&self, event: &Event<'_>) {
        self.context.board.telemetry().tell(event);
    }

    fn watching(&mut self) {
        if !std::mem::replace(&mut self.was_watching, true) {
            self.context.board.set(self.account, WatchState::Watching);
            info!(account = %self.account, upstream = %self.account.upstream, "watching");
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        if let Some(transcript) = self.trace.transcript() {
            transcript.lines(Speaker::ToUpstream, Mark::Own, bytes);
        }
        let written = timeout(WRITE_TIME, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        written.await.map_err(|_| Failure::Silent)??;
        Ok(())
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
