//! The loop that reads and writes for one session: two streams and a [`Session`] between them, in one task.
//!
//! It reads into a buffer that belongs to the thread, so that an idle connection owns none, and only while what waits in
//! that direction is under its limit. What a peer cannot take at once is queued, and the queue is given back once empty.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::compress::InflateError;
use super::own_lines;
use super::peer::{Closing, Peer};
use super::session::{ObservedEvent, Output, Request, RequestOutcome, Session};
use super::turn::{TurnBudget, consume};
use crate::secret::DeviceToken;
use crate::store::FetchLesson;
use crate::telemetry::Direction;
use crate::tls::stream::{Stream, with_scratch};
use crate::trace::{Recorder, Transcript};

/// How long a session goes on after one peer has closed its side, or after deltapush ended it.
const LINGER: Duration = Duration::from_secs(30);

/// How long nothing is said before what is kept of a client that compresses is made smaller.
pub const FOLD_TIME: Duration = Duration::from_secs(5);

/// A future that performs a [`Request`] and says what came of it.
pub type Performed = Pin<Box<dyn Future<Output = RequestOutcome> + Send>>;

/// What a session needs to know of its account.
pub trait SessionServices: Send {
    /// The tokens that it has.
    fn tokens(&self) -> Vec<DeviceToken>;
    /// How push is for it at this moment, in one line for its owner.
    fn push_status(&self) -> String;
    /// A client of it idles in this mailbox.
    fn idles_in(&self, mailbox: &str);
    /// A client of it asks for messages.
    fn fetches(&self);
    /// The app of a client that has handed over a token has fetched unencrypted messages, or has left some.
    fn learns(&self, _lesson: FetchLesson) {}
    /// A client of it has come for a background fetch.
    fn background_fetch(&self) {}
    /// So many bytes go that way.
    fn relayed(&self, way: Direction, bytes: usize);
    /// Does what a session asked for.
    fn perform(&self, request: Request) -> Performed;
    /// Something about new mail passes by. Only where sessions are kept.
    fn sees(&self, _glimpse: ObservedEvent<'_>) {}
    /// Whether it is worth a copy what the client fetches.
    fn looks_for_mail(&self) -> bool {
        false
    }
    /// The client is gone, and left this. Only where sessions are kept.
    fn inherits(self, _left: OrphanedSession)
    where
        Self: Sized,
    {
    }
}

/// What a client has left behind: a session that may go on without it.
pub struct OrphanedSession {
    /// The connection to the mail server.
    pub stream: Stream,
    /// What it has not taken yet.
    pub unsent: Vec<u8>,
    /// What is under way in it.
    pub session: Session,
    /// Where its transcript goes.
    pub trace: Recorder,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayEnd {
    /// The client closed, or its connection broke.
    #[error("the client disconnected{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Client(Option<io::Error>),
    /// The client said LOGOUT, and deltapush answered.
    #[error("the client logged out")]
    LoggedOut,
    /// The upstream closed, or its connection broke.
    #[error(
        "the mail server closed the connection{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    Upstream(Option<io::Error>),
    /// What the client said after COMPRESS is not compressed as it should be.
    #[error(transparent)]
    Malformed(InflateError),
    /// Neither peer said anything for too long.
    #[error("neither side sent anything for too long")]
    Idle,
    /// The client began a command that deltapush holds, and did not end it.
    #[error("a command took too long to arrive")]
    Dribble,
    /// The upstream did not say what the client's next bytes had to wait for.
    #[error("the mail server did not answer in time")]
    Unanswered,
    /// deltapush is shutting down.
    #[error("deltapush shuts down")]
    Shutdown,
}

/// A session with its two streams.
pub struct Relay<A> {
    session: Session,
    client: Peer,
    upstream: Peer,
    account: A,
    trace: Recorder,
    /// What the client sent and the session could not take yet.
    waiting: Vec<u8>,
    /// Upstream bytes that were read and are left for the next turn.
    unread: Vec<u8>,
    turn: TurnBudget,
    /// What waits is compressed: it was read with the COMPRESS, or after it.
    began_to_compress: bool,
    requests: VecDeque<Request>,
    performing: Option<Performed>,
    limit: usize,
    idle_time: Duration,
    command_time: Duration,
    /// What is waited for, for a limited time.
    wait: Option<Wait>,
    last_activity: Instant,
    /// When the client last received anything, and whether it does in this turn.
    heard: Instant,
    hears: bool,
    timer: Pin<Box<Sleep>>,
    end: Option<RelayEnd>,
}

/// A wait for a peer's word that has an end.
#[derive(Debug, Clone, Copy)]
struct Wait {
    who: Awaited,
    /// Differs from one wait for that peer to the next.
    number: u32,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The client, for the rest of a command that deltapush holds.
    Client,
    /// The upstream, for what decides what the client's next bytes are.
    Upstream,
}

/// What both peers have said before the relay began.
pub struct Preread {
    /// Sent by the client after its login.
    pub client: Vec<u8>,
    /// For the client: the answer to its login.
    pub answer: Vec<u8>,
    /// Said by the upstream after that.
    pub upstream: Vec<u8>,
}

/// What is to be kept to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes that may wait in one direction.
    pub buffer: usize,
    /// How long both peers may be silent.
    pub idle_time: Duration,
    /// How long the client may take for a command that deltapush holds.
    pub command_time: Duration,
}

impl<A: SessionServices> Relay<A> {
    /// A relay between two streams that are past the login.
    pub fn new(
        session: Session,
        (client, upstream): (Stream, Stream),
        account: A,
        trace: Recorder,
        bounds: Bounds,
    ) -> Self {
        let now = Instant::now();
        Self {
            session,
            client: Peer::new(client),
            upstream: Peer::new(upstream),
            account,
            trace,
            waiting: Vec::new(),
            unread: Vec::new(),
            turn: TurnBudget::new(),
            began_to_compress: false,
            requests: VecDeque::new(),
            performing: None,
            limit: bounds.buffer,
            idle_time: bounds.idle_time,
            command_time: bounds.command_time,
            wait: None,
            last_activity: now,
            heard: now,
            hears: false,
            timer: Box::pin(sleep_until(now.checked_add(bounds.idle_time).unwrap_or(now))),
            end: None,
        }
    }

    /// Relays until one peer is gone, nothing was said for too long, or `shutdown` is cancelled.
    // Not an async fn: its task would hold what it is given twice, as an argument and as a variable.
    pub fn run(
        mut self: Box<Self>,
        beginning: Preread,
        shutdown: &CancellationToken,
    ) -> impl Future<Output = RelayEnd> {
        self.waiting = beginning.client;
        let mut first = Some((beginning.answer, beginning.upstream));
        async move {
            let mut cancelled = pin!(shutdown.cancelled());
            let end = poll_fn(|cx| {
                if let Some((answer, said)) = first.take() {
                    let (_, mut out) = self.parts(cx);
                    out.to_client(&answer);
                    self.unread = said;
                }
                if self.end.is_none() && cancelled.as_mut().poll(cx).is_ready() {
                    self.finish(RelayEnd::Shutdown, own_lines::RESTART, cx);
                }
                let polled = self.poll(cx);
                if let Poll::Ready(end) = &polled {
                    self.trace.note(|| format!("the session ends: {end}"));
                }
                polled
            })
            .await;
            self.leave(end)
        }
    }

    /// Gives away what is left, if that can go on without the client.
    fn leave(self, end: RelayEnd) -> RelayEnd {
        let Self { mut session, upstream, unread, account, trace, .. } = self;
        session.keep_unread(&unread);
        let goes_on = session.may_be_kept()
            && !matches!(end, RelayEnd::Upstream(_) | RelayEnd::Unanswered | RelayEnd::Shutdown);
        if let Some((stream, unsent)) = goes_on.then(|| upstream.into_stream()).flatten() {
            account.inherits(OrphanedSession { stream, unsent, session, trace });
        }
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        self.turn = TurnBudget::new();
        with_scratch(|buffer| {
            let mut progress = false;
            loop {
                while !self.turn.is_over() && self.step(buffer, cx) {
                    progress = true;
                }
                // Nothing more is at hand: what was compressed goes out, and is then sent.
                if self.turn.is_over() || !self.client.flush_compressed(cx) {
                    break;
                }
            }
            self.note_time(progress);
        });
        if self.turn.is_over() {
            // Woken once the runtime has looked for other work: who has just something to say does not queue behind those that
            // always have.
            let _pending = pin!(yield_now()).poll(cx);
        }
        if let Some(end) = self.poll_end() {
            return Poll::Ready(end);
        }
        self.time_wait();
        self.poll_timer(cx)
    }

    /// What happened in this turn happened now: the clock is read once for all of it.
    fn note_time(&mut self, progress: bool) {
        let hears = std::mem::take(&mut self.hears);
        if progress || hears {
            let now = Instant::now();
            self.last_activity = if progress { now } else { self.last_activity };
            self.heard = if hears { now } else { self.heard };
        }
    }

    /// Sees to it that the timer does not fire too late for what is waited for.
    fn time_wait(&mut self) {
        let Some((who, number, time)) = self.awaited().filter(|_| self.end.is_none()) else {
            self.wait = None;
            return;
        };
        if self.wait.is_none_or(|wait| (wait.who, wait.number) != (who, number)) {
            let now = Instant::now();
            let until = now.checked_add(time).unwrap_or(now);
            self.wait = Some(Wait { who, number, until });
            if until < self.timer.deadline() {
                self.timer.as_mut().reset(until);
            }
        }
    }

    /// Whose word is waited for, which one, and for how long at most.
    fn awaited(&self) -> Option<(Awaited, u32, Duration)> {
        if let Some((number, patience)) = self.session.patience() {
            // What the client has not taken yet may be a long answer to an earlier command.
            return (self.client.waiting() == 0).then_some((Awaited::Upstream, number, patience));
        }
        // Not while the client is to hear something first: its `+` may be the end of that.
        let is_clients_turn =
            self.waiting.is_empty() && self.client.waiting() == 0 && !self.is_backed_up();
        let number = self.session.holds_command().filter(|_| is_clients_turn)?;
        Some((Awaited::Client, number, self.command_time))
    }

    /// What was waited for did not come. Returns how the session ends, if it does.
    fn give_up_waiting(
        &mut self,
        who: Awaited,
        cx: &mut Context<'_>,
    ) -> Option<(RelayEnd, &'static str)> {
        self.wait = None;
        if who == Awaited::Client {
            return Some((RelayEnd::Dribble, own_lines::SLOW_COMMAND));
        }
        let (session, mut out) = self.parts(cx);
        let goes_on = session.overdue(&mut out);
        self.note_time(false);
        if goes_on {
            self.trace.note(|| {
                "the mail server has not answered: deltapush reads the client's next commands nevertheless".to_owned()
            });
            // Polled again, so that it is.
            cx.waker().wake_by_ref();
            return None;
        }
        Some((RelayEnd::Unanswered, own_lines::UPSTREAM_SILENT))
    }

    /// Does what can be done now; whether anything was done.
    fn step(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> bool {
        let delivered = self.client.poll_send(cx);
        self.hears |= delivered;
        let mut progress = delivered | self.upstream.poll_send(cx);
        progress |= self.poll_requests(cx);
        progress |= self.take_waiting(cx);
        progress |= self.read_client(buffer, cx);
        progress |= self.read_upstream(buffer, cx);
        progress |= self.hand_on_ends(cx);
        progress
    }

    /// Gives the session what it could not take before.
    fn take_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        if self.began_to_compress {
            // What was read behind the COMPRESS is compressed.
            self.began_to_compress = false;
            self.client.receive_compressed(&std::mem::take(&mut self.waiting));
            return true;
        }
        let may_go_on =
            self.session.takes_client_input() && !self.is_backed_up() && !self.turn.is_over();
        if self.waiting.is_empty() || !may_go_on {
            return false;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut turn = self.turn;
        let (session, mut out) = self.parts(cx);
        let used = session.some_from_client(&waiting, &mut turn.pieces, &mut out);
        self.turn = turn;
        consume(&mut waiting, used);
        self.waiting = waiting;
        used > 0
    }

    /// Whether the client's commands have to wait: the upstream does not take them, or the client not their answers.
    fn is_backed_up(&self) -> bool {
        self.upstream.waiting().max(self.client.waiting()) >= self.limit
    }

    fn read_client(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> bool {
        // After a COMPRESS, what waits is handed over first: what is read now would join it, inflated.
        let must_wait = !self.waiting.is_empty()
            || self.began_to_compress
            || self.is_backed_up()
            || self.turn.is_over();
        if self.client.eof || must_wait || self.end.is_some() {
            return false;
        }
        let mut turn = self.turn;
        let read = match self.client.poll_read(buffer, cx) {
            None => return false,
            Some(Ok(input)) => {
                turn.count(input.len(), self.client.is_compressed());
                let (session, mut out) = self.parts(cx);
                let used = session.some_from_client(input, &mut turn.pieces, &mut out);
                self.waiting.extend_from_slice(input.get(used..).unwrap_or_default());
                input.len()
            }
            Some(Err(malformed)) => {
                self.finish(RelayEnd::Malformed(malformed), own_lines::NOT_DEFLATE, cx);
                0
            }
        };
        self.turn = turn;
        // It may have been a token, and the thread's buffer lives on. To inflate, what was said before is put there too, even
        // if nothing comes of it.
        let dirty = if self.client.is_compressed() { buffer.len() } else { read };
        buffer.get_mut(..dirty).unwrap_or_default().fill(0);
        true
    }

    fn read_upstream(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> bool {
        // What is said after the end is for whoever goes on with the session.
        let is_over = self.session.may_be_kept() && self.session.is_over();
        if self.client.waiting() >= self.limit || is_over || self.turn.is_over() {
            return false;
        }
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            let used = self.take_upstream(&unread, cx);
            consume(&mut unread, used);
            self.unread = unread;
            return true;
        }
        if self.upstream.eof {
            return false;
        }
        let Some(Ok(input)) = self.upstream.poll_read(buffer, cx) else { return false };
        let read = input.len();
        self.turn.count(read, self.client.is_compressed());
        let used = self.take_upstream(input, cx);
        self.unread = input.get(used..).unwrap_or_default().to_vec();
        buffer.get_mut(..read).unwrap_or_default().fill(0);
        true
    }

    /// Gives the session what the upstream said, as much of it as this turn may handle, and returns how much that was.
    fn take_upstream(&mut self, input: &[u8], cx: &mut Context<'_>) -> usize {
        let mut turn = self.turn;
        let (session, mut out) = self.parts(cx);
        let used = session.some_from_upstream(input, &mut turn.pieces, &mut out);
        self.turn = turn;
        used
    }

    /// Hands on that a peer has closed, or deltapush itself, once all that was said before is handed on.
    fn hand_on_ends(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        if self.session.is_over() && self.client.closing == Closing::No {
            self.client.close();
            if !self.session.may_be_kept() {
                self.upstream.close();
            } else if self.end.is_none() {
                self.end = Some(RelayEnd::LoggedOut);
                self.linger();
            }
            progress = true;
        }
        // What the client asked for is done and answered first.
        if self.performing.is_some() || !self.requests.is_empty() {
            return progress;
        }
        if self.client.eof && self.waiting.is_empty() {
            if !self.session.may_be_kept() && self.upstream.closing == Closing::No {
                self.upstream.close();
                progress = true;
            } else if self.session.may_be_kept()
                && self.client.closing == Closing::No
                && !self.session.owes_answers()
            {
                self.client.close();
                self.end.get_or_insert(RelayEnd::Client(None));
                self.linger();
                progress = true;
            }
        }
        if self.upstream.eof && self.unread.is_empty() && self.client.closing == Closing::No {
            let (session, mut out) = self.parts(cx);
            session.upstream_closed(&mut out);
            self.client.close();
            progress = true;
        }
        progress
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(performing) = &mut self.performing else {
            let Some(request) = self.requests.pop_front() else { return false };
            self.performing = Some(self.account.perform(request));
            return true;
        };
        let Poll::Ready(answer) = performing.as_mut().poll(cx) else { return false };
        self.performing = None;
        let (session, mut out) = self.parts(cx);
        session.answered(answer, &mut out);
        true
    }

    /// Ends the session on deltapush's own account, with the response that is under way; what is queued still goes out.
    fn finish(&mut self, end: RelayEnd, bye: &str, cx: &mut Context<'_>) {
        let (session, mut out) = self.parts(cx);
        session.close(bye, &mut out);
        self.end = Some(end);
        self.linger();
    }

    fn linger(&mut self) {
        let now = Instant::now();
        self.timer.as_mut().reset(now.checked_add(LINGER).unwrap_or(now));
    }

    /// Whether all is over.
    fn poll_end(&mut self) -> Option<RelayEnd> {
        if self.client.is_broken() {
            return Some(RelayEnd::Client(self.client.error.take()));
        }
        if self.client.closing == Closing::Done {
            return Some(
                self.end.take().unwrap_or_else(|| RelayEnd::Upstream(self.upstream.error.take())),
            );
        }
        if self.client.eof && self.upstream.is_broken() {
            return Some(RelayEnd::Client(None));
        }
        if (self.client.eof || self.client.closing == Closing::Wanted) && self.end.is_none() {
            self.end = Some(if self.client.eof {
                RelayEnd::Client(None)
            } else {
                RelayEnd::Upstream(self.upstream.error.take())
            });
            self.linger();
        }
        None
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            let due = [self.keepalive_due(), self.fold_due()].into_iter().flatten().min();
            if let Some(due) = due.filter(|due| *due < self.timer.deadline()) {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            if let Some(end) = self.end.take() {
                return Poll::Ready(end);
            }
            let end_of = |start: Instant, time| start.checked_add(time).unwrap_or(start);
            let idle_until = end_of(self.last_activity, self.idle_time);
            let now = Instant::now();
            let given_up = self.wait.filter(|wait| wait.until <= now);
            let given_up = given_up.and_then(|wait| self.give_up_waiting(wait.who, cx));
            let over = given_up
                .or_else(|| (idle_until <= now).then_some((RelayEnd::Idle, own_lines::IDLE)));
            if let Some((end, bye)) = over {
                self.finish(end, bye, cx);
                // Polled again, so that the words go out.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.fold_due().is_some_and(|due| due <= now) {
                self.client.fold();
            }
            if self.keepalive_due().is_some_and(|due| due <= now) {
                let (session, mut out) = self.parts(cx);
                session.keep_alive(&mut out);
                self.note_time(false);
                // Polled again, so that it goes out, or what broke is seen.
                cx.waker().wake_by_ref();
            }
            // Once for all that was said meanwhile: that a peer speaks costs no change of the timer.
            self.timer
                .as_mut()
                .reset(self.wait.map_or(idle_until, |wait| wait.until.min(idle_until)));
        }
    }

    /// When the client has to hear something, if it waits for that and takes what it is sent.
    fn keepalive_due(&self) -> Option<Instant> {
        let takes =
            self.end.is_none() && self.client.closing == Closing::No && self.client.waiting() == 0;
        self.heard.checked_add(self.session.keepalive().filter(|_| takes)?)
    }

    /// When to make smaller what is kept of the client, if there is anything to be made so.
    fn fold_due(&self) -> Option<Instant> {
        self.last_activity.checked_add(FOLD_TIME).filter(|_| self.client.can_fold())
    }

    fn parts<'a, 'b>(&'a mut self, cx: &'a mut Context<'b>) -> (&'a mut Session, Out<'a, 'b, A>) {
        let out = Out {
            client: &mut self.client,
            upstream: &mut self.upstream,
            account: &self.account,
            requests: &mut self.requests,
            began_to_compress: &mut self.began_to_compress,
            trace: &mut self.trace,
            hears: &mut self.hears,
            cx,
        };
        (&mut self.session, out)
    }
}

/// The session's output, written as it comes.
struct Out<'a, 'b, A> {
    client: &'a mut Peer,
    upstream: &'a mut Peer,
    account: &'a A,
    requests: &'a mut VecDeque<Request>,
    began_to_compress: &'a mut bool,
    trace: &'a mut Recorder,
    hears: &'a mut bool,
    cx: &'a mut Context<'b>,
}

impl<A: SessionServices> Output for Out<'_, '_, A> {
    fn to_client(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.account.relayed(Direction::ToClient, bytes.len());
            self.client.send(bytes, self.cx);
            *self.hears = true;
        }
    }

    fn to_upstream(&mut self, bytes: &[u8]) {
        self.account.relayed(Direction::ToUpstream, bytes.len());
        self.upstream.send(bytes, self.cx);
    }

    fn compress(&mut self) {
        self.client.compress();
        *self.began_to_compress = true;
        self.trace.note(|| {
            "from here on, client and deltapush compress what they send; the trace shows it uncompressed".to_owned()
        });
    }

    fn request(&mut self, request: Request) {
        // Bounded by the session, which takes no more commands while many are unanswered.
        self.requests.push_back(request);
    }

    fn idles_in(&mut self, mailbox: &str) {
        self.account.idles_in(mailbox);
    }

    fn fetches(&mut self) {
        self.account.fetches();
    }

    fn learns(&mut self, lesson: FetchLesson) {
        self.account.learns(lesson);
    }

    fn background_fetch(&mut self) {
        self.account.background_fetch();
    }

    fn tokens(&self) -> Vec<DeviceToken> {
        self.account.tokens()
    }

    fn sees(&mut self, glimpse: ObservedEvent<'_>) {
        self.account.sees(glimpse);
    }

    fn looks_for_mail(&self) -> bool {
        self.account.looks_for_mail()
    }

    fn push_status(&self) -> String {
        self.account.push_status()
    }

    fn transcript(&mut self) -> Option<&mut dyn Transcript> {
        self.trace.transcript().map(|transcript| transcript as &mut dyn Transcript)
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "relay_compress_tests.rs"]
mod compress_tests;
