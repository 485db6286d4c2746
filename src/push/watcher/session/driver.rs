//! The driver of the [`idle`](crate::push::idle) machine in one session.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::{oneshot, watch as channel};
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::end::{Ended, WatchEnd};
use super::{ReturnRequests, SessionTask};
use crate::clock::{now, reached};
use crate::config::NewsSource;
use crate::machine::Machine;
use crate::mailbox_name::MailboxName;
use crate::parser::reader::{ResponseReader, ResponseTooLong};
use crate::push::account::Account;
use crate::push::idle::{IdleAction, IdleFailure, IdleInput, IdleMachine};
use crate::push::watch_status::WatchState;
use crate::push::watcher::context::WatchContext;
use crate::store::{Announce, Look, Noticed, StoreError};
use crate::telemetry::TelemetryEvent;
use crate::tls::stream::{Stream, receive};
use crate::trace::{Mark, Recorder, Speaker};

/// The longest response that a watching session reads: flags and some header fields, of which it asks for 16 KiB at most, or a
/// capability list.
const MAX_RESPONSE: usize = 64 * 1024;

/// Responses that are handled in one turn, after which other tasks run.
const TURN: usize = 1000;

/// Time limit for the upstream to accept written bytes.
const WRITE_TIME: Duration = Duration::from_secs(60);

/// Time to read the server's last words from a connection that broke.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// Actions of the machine that may wait for the state to be written.
const MAX_LATER: usize = 256;

/// Lead with which a server may tell a device of the same mail before a watch session.
const HEAD_START: Duration = Duration::from_secs(2);

/// A session under way: the machine and its I/O.
pub(super) struct WatchSession<'a> {
    context: &'a WatchContext,
    account: &'a Account,
    stream: Stream,
    trace: Recorder,
    machine: IdleMachine,
    reader: ResponseReader,
    notify: Option<&'a channel::Sender<Option<bool>>>,
    was_watching: bool,
    /// The mail server is expected to tell of new mail first.
    takes_news: bool,
    logout: CancellationToken,
    when_watching: Option<&'a (dyn Fn() + Send + Sync)>,
    return_requests: Option<ReturnRequests>,
    /// The receiver of the connection, once the session is as it was after its login.
    return_to: Option<oneshot::Sender<Stream>>,
    /// The end that came while the state was waited for.
    end: Option<WatchEnd>,
}

impl<'a> WatchSession<'a> {
    /// Boxed: a future would hold it as an argument and as a variable.
    pub(super) fn new(
        task: SessionTask<'a>,
        stream: Stream,
        trace: Recorder,
        machine: IdleMachine,
    ) -> Box<Self> {
        Box::new(Self {
            context: task.context,
            account: task.account,
            stream,
            trace,
            machine,
            reader: ResponseReader::new(MAX_RESPONSE),
            notify: task.notify,
            was_watching: false,
            takes_news: task
                .context
                .news_source(&task.account.id)
                .is_some_and(NewsSource::has_server),
            logout: task.logout,
            when_watching: task.when_watching,
            return_requests: task.return_requests,
            return_to: None,
            end: None,
        })
    }

    pub(super) async fn run(
        mut self: Box<Self>,
        received: Vec<u8>,
        failed_fetches: &AtomicU32,
    ) -> Ended {
        let end = self.watch(received, failed_fetches).await;
        if let (Err(WatchEnd::Resumed), Some(return_to)) = (&end, self.return_to.take()) {
            // A client that does not wait any more has another session by now.
            let _ = return_to.send(self.stream);
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

    async fn watch(&mut self, mut received: Vec<u8>, failed_fetches: &AtomicU32) -> Ended {
        let mut actions = Vec::new();
        self.machine.handle(IdleInput::Start, now(), &mut actions);
        loop {
            self.respond(&mut received, &mut actions)?;
            if self.act(&mut actions).await? {
                failed_fetches.store(0, Ordering::Relaxed);
            }
            if let Some(end) = self.end.take() {
                return Err(end);
            }
            if !received.is_empty() {
                yield_now().await;
                continue;
            }
            let event = self.next_event(&mut received).await?;
            if let SessionEvent::Logout = event {
                Box::pin(self.log_out(&mut actions)).await?;
                return Err(WatchEnd::Shutdown);
            }
            self.take_in(event, &mut actions)?;
        }
    }

    async fn next_event(&mut self, received: &mut Vec<u8>) -> io::Result<SessionEvent> {
        let deadline = self.machine.deadline();
        Ok(tokio::select! {
            read = receive(&mut self.stream, received) => SessionEvent::Received(read?),
            () = reached(deadline) => SessionEvent::Due,
            Some(to) = requested(&mut self.return_requests) => SessionEvent::ReturnRequested(to),
            () = self.logout.cancelled() => SessionEvent::Logout,
        })
    }

    /// Takes an event in. A logout is the caller's.
    fn take_in(
        &mut self,
        event: SessionEvent,
        actions: &mut Vec<IdleAction>,
    ) -> Result<(), WatchEnd> {
        match event {
            SessionEvent::Received(0) => {
                return Err(IdleFailure::Bye("without a reason".into()).into());
            }
            SessionEvent::Received(_) => self.account.watch.note_activity(),
            SessionEvent::Due => self.machine.handle(IdleInput::Tick, now(), actions),
            SessionEvent::ReturnRequested(to) => {
                self.return_to = Some(to);
                self.machine.handle(IdleInput::Release, now(), actions);
            }
            SessionEvent::Logout => {}
        }
        Ok(())
    }

    /// Logs out, and waits until the server has closed the connection. The caller limits the time.
    async fn log_out(&mut self, actions: &mut Vec<IdleAction>) -> Result<(), WatchEnd> {
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

    /// Performs the machine's actions. Returns true if a position was stored.
    async fn act(&mut self, actions: &mut Vec<IdleAction>) -> Result<bool, WatchEnd> {
        let mut has_stored = false;
        let mut batch = VecDeque::from(std::mem::take(actions));
        while let Some(action) = batch.pop_front() {
            match action {
                IdleAction::Send(bytes) => Box::pin(self.send(&bytes)).await?,
                IdleAction::Noticed { mailbox, look, announce, since, last, ids } => {
                    let announce = announce && !self.account.was_woken_for(&ids);
                    let wakes = self.context.without_copies(
                        self.account,
                        self.announce(announce, last),
                        &ids,
                    );
                    let is_push = self.wakes_any(&wakes);
                    // Boxed, like all that is done once in a while: the session waits in between.
                    let noticed =
                        Box::pin(self.store(&mailbox, look, wakes, ids, &mut batch)).await?;
                    let announce = is_push && noticed == Noticed::New;
                    self.context.report(&TelemetryEvent::Noticed {
                        account: &self.account.telemetry,
                        mailbox: &mailbox,
                        announce,
                        since,
                    });
                    has_stored = true;
                }
                IdleAction::Judged { mailbox, uid, verdict } => {
                    debug!(account = %self.account, uid, "new message: {verdict}");
                    let skipped = verdict.skipped();
                    self.context.report(&TelemetryEvent::Judged {
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
                IdleAction::Odd(oddity) => self.context.report_oddity(self.account, oddity),
                IdleAction::Watching => self.watching(),
                IdleAction::OnlyFirst => {
                    if let Some(known) = self.notify {
                        known.send_replace(Some(false));
                    }
                }
                IdleAction::Released if self.reader.is_empty() => return Err(WatchEnd::Resumed),
                IdleAction::Released => {
                    return Err(IdleFailure::Bye("in the middle of a response".into()).into());
                }
                IdleAction::Failed(failure) => return Err(failure.into()),
            }
        }
        Ok(has_stored)
    }

    /// Records that a mailbox cannot be opened. If it is forgotten, this session does not try it again either.
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

    /// The devices to wake. With a grace, none that has fetched in a session of its own since the last message came.
    fn announce(&self, announce: bool, last: Option<std::time::Instant>) -> Announce {
        match last.filter(|_| announce && !self.context.settings.get().grace.is_zero()) {
            Some(last) => {
                // The server may have announced the mail to the device first.
                let since = last.checked_sub(HEAD_START).unwrap_or(last);
                Announce::AllBut(self.account.watch.fetched_since(since.into()))
            }
            None => announce.into(),
        }
    }

    /// Stores the outcome of a look, and which devices it wakes. On failure no device counts as woken. `later` has the actions that
    /// follow.
    async fn store(
        &mut self,
        mailbox: &str,
        look: Look,
        wakes: Announce,
        ids: Vec<u64>,
        later: &mut VecDeque<IdleAction>,
    ) -> Result<Noticed, StoreError> {
        let is_push = wakes != Announce::Nothing;
        let (registry, account) = (&self.context.registry, &self.account.id);
        let noticed = registry.noticed(account, mailbox, look, wakes);
        let stored = if registry.ownership().is_sole() {
            noticed.await
        } else {
            self.stay_until(noticed, later).await
        };
        match stored {
            Ok(Noticed::New) if is_push => {
                if self.takes_news {
                    self.account.news_missed(1);
                }
                // After that: the mail server may still tell of them.
                self.account.remember_woken_for(&ids);
            }
            Ok(_) => {}
            Err(_) => self.context.duplicates().forget(&ids, &self.account.id),
        }
        stored
    }

    /// Waits for the state, perhaps until the database is back, and keeps the session alive: without a renewal the mail server
    /// ends it after 30 minutes (RFC 9051 section 5.4).
    async fn stay_until(
        &mut self,
        stored: impl Future<Output = Result<Noticed, StoreError>>,
        later: &mut VecDeque<IdleAction>,
    ) -> Result<Noticed, StoreError> {
        tokio::pin!(stored);
        let (logout, mut received) = (self.logout.clone(), Vec::new());
        if self.end.is_none() {
            let following = later.drain(..).collect();
            self.end = self.send_first(following, later).await.err();
        }
        loop {
            let goes_on = self.end.is_none() && later.len() < MAX_LATER;
            let event = tokio::select! {
                biased;
                stored = &mut stored => return stored,
                () = logout.cancelled() => return Err(StoreError::Closed),
                event = self.next_event(&mut received), if goes_on => event,
            };
            if let Err(end) = self.stay(event, &mut received, later).await {
                self.end = Some(end);
            }
        }
    }

    /// Goes on after an event.
    async fn stay(
        &mut self,
        event: io::Result<SessionEvent>,
        received: &mut Vec<u8>,
        later: &mut VecDeque<IdleAction>,
    ) -> Result<(), WatchEnd> {
        let mut actions = Vec::new();
        self.take_in(event?, &mut actions)?;
        while !received.is_empty() {
            self.respond(received, &mut actions)?;
            yield_now().await;
        }
        self.send_first(actions, later).await
    }

    /// Sends what the machine asks for, and leaves its other actions for later.
    async fn send_first(
        &mut self,
        actions: Vec<IdleAction>,
        later: &mut VecDeque<IdleAction>,
    ) -> Result<(), WatchEnd> {
        for action in actions {
            match action {
                IdleAction::Send(bytes) => self.send(&bytes).await?,
                IdleAction::Failed(failure) => return Err(failure.into()),
                action => later.push_back(action),
            }
        }
        Ok(())
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
    /// The session's client is back and requests its connection.
    ReturnRequested(oneshot::Sender<Stream>),
    /// The session is to log out.
    Logout,
}

/// Waits for a request to return the session; never returns if there can be none any more.
async fn requested(requests: &mut Option<ReturnRequests>) -> Option<oneshot::Sender<Stream>> {
    let Some(waiting) = requests else { return std::future::pending().await };
    let to = waiting.await.ok();
    *requests = None;
    match to {
        Some(to) => Some(to),
        None => std::future::pending().await,
    }
}
